#include "api/networks/json.h"

#include "api/etag.h"

namespace virga::api {

json::object network_json(const Network& network, const std::vector<std::string>& used_by) {
  return {{"name", network.name},
          {"description", network.description},
          {"type", network.type},
          {"config", to_json(network.config)},
          {"managed", true},
          {"status", to_string(network.status)},
          {"locations", json::array{"none"}},
          {"project", "default"},
          {"used_by", to_json(used_by)}};
}

json::object network_state_json(const network::BridgeState& state) {
  json::array addresses, ports;
  for (const auto& a : state.addresses)
    addresses.push_back(json::object{{"family", a.family}, {"address", a.address}, {"netmask", a.netmask}, {"scope", a.scope}});
  for (const auto& p : state.ports) ports.emplace_back(p);
  return {{"addresses", std::move(addresses)},
          {"counters", json::object{{"bytes_received", state.counters.bytes_received},
                                    {"bytes_sent", state.counters.bytes_sent},
                                    {"packets_received", state.counters.packets_received},
                                    {"packets_sent", state.counters.packets_sent}}},
          {"hwaddr", state.mac},
          {"mtu", state.mtu},
          {"state", state.up ? "up" : "down"},
          {"type", "broadcast"},
          {"bond", nullptr},
          {"bridge", json::object{{"id", ""},
                                  {"stp", false},
                                  {"forward_delay", 0},
                                  {"vlan_default", 0},
                                  {"vlan_filtering", false},
                                  {"upper_devices", std::move(ports)}}},
          {"vlan", nullptr},
          {"ovn", nullptr}};
}

json::object lease_json(const engine::Networks::Lease& lease) {
  return {{"hostname", lease.host_name}, {"hwaddr", lease.mac}, {"address", lease.address}, {"type", lease.type}, {"location", ""}};
}

std::string network_etag(const Network& network) {
  return etag_of(json::array{network.name, true, network.type, network.description, to_json(network.config)});
}

}  // namespace virga::api
