#include "api/instances/json.h"

#include <fmt/format.h>

#include <iterator>
#include <map>
#include <utility>

#include "api/etag.h"
#include "api/filter.h"
#include "base/units.h"

namespace virga::api {
namespace {

json::object counters_json(const compute::GuestStats::Interface& i) {
  return {{"bytes_received", i.bytes_in},
          {"bytes_sent", i.bytes_out},
          {"packets_received", i.packets_in},
          {"packets_sent", i.packets_out},
          {"errors_received", i.errors_in},
          {"errors_sent", i.errors_out},
          {"packets_dropped_inbound", i.dropped_in},
          {"packets_dropped_outbound", i.dropped_out}};
}

json::object interface_json(const compute::GuestStats::Interface& i) {
  json::array addresses;
  for (const auto& a : i.addresses)
    addresses.push_back(json::object{{"family", a.family}, {"address", a.address}, {"netmask", a.netmask}, {"scope", a.scope}});
  return {{"addresses", std::move(addresses)},
          {"counters", counters_json(i)},
          {"hwaddr", i.mac},
          {"host_name", i.host_name},
          {"mtu", i.mtu},
          {"state", i.state},
          {"type", i.type}};
}

json::object base_state(InstanceStatus status) {
  return {{"status", to_string(status)},
          {"status_code", status_code(status)},
          {"disk", json::object()},
          {"memory", json::object{{"usage", 0}, {"usage_peak", 0}, {"total", 0}, {"swap_usage", 0}, {"swap_usage_peak", 0}}},
          {"network", nullptr},
          {"pid", 0},
          {"processes", 0},
          {"cpu", json::object{{"usage", 0}, {"allocated_time", 0}}},
          {"started_at", format_time(WallTime{})},
          {"os_info", nullptr}};
}

}  // namespace

json::object instance_json(const Instance& i) {
  return {{"name", i.name},
          {"project", i.project},
          {"type", to_string(i.type)},
          {"architecture", i.architecture},
          {"description", i.description},
          {"status", to_string(i.status)},
          {"status_code", status_code(i.status)},
          {"created_at", format_time(i.created_at)},
          {"last_used_at", format_time(i.last_used_at)},
          {"location", "none"},
          {"ephemeral", i.ephemeral},
          {"stateful", false},
          {"profiles", to_json(i.profiles)},
          {"config", to_json(i.config)},
          {"devices", to_json(i.devices)},
          {"expanded_config", to_json(i.expanded_config)},
          {"expanded_devices", to_json(i.expanded_devices)}};
}

std::string instance_etag(const Instance& i) {
  return etag_of(
      json::array{i.architecture, to_json(i.config), to_json(i.devices), i.ephemeral, to_json(i.profiles), i.description});
}

json::object instance_state_json(const engine::InstanceState& state) {
  auto out = base_state(state.status);
  out["pid"] = state.pid;
  out["started_at"] = format_time(state.started_at);
  if (state.disk_used) out["disk"] = json::object{{state.root_device, json::object{{"usage", *state.disk_used}, {"total", 0}}}};
  if (!state.stats) return out;
  const auto& s = *state.stats;
  out["processes"] = s.processes;
  out["cpu"] = json::object{{"usage", s.cpu_ns}, {"allocated_time", 0}};
  out["memory"] = json::object{{"usage", s.memory_used},
                               {"usage_peak", s.memory_peak},
                               {"total", s.memory_total},
                               {"swap_usage", s.swap_used},
                               {"swap_usage_peak", 0}};
  json::object network;
  for (const auto& i : s.interfaces) network[i.name] = interface_json(i);
  out["network"] = std::move(network);
  if (!s.os_name.empty() || !s.kernel_version.empty() || !s.host_name.empty())
    out["os_info"] = json::object{{"os", s.os_name},
                                  {"os_version", s.os_version},
                                  {"kernel_version", s.kernel_version},
                                  {"hostname", s.host_name},
                                  {"fqdn", s.host_name}};
  return out;
}

void append_known_state(std::string& out, const Instance& instance, const engine::Networks& networks) {
  // What is the same for all: made once for each status.
  static std::map<InstanceStatus, std::string> frames;
  auto frame = frames.find(instance.status);
  if (frame == frames.end()) {
    auto object = base_state(instance.status);
    object.erase("network");
    frame = frames.emplace(instance.status, json::serialize(object)).first;
    frame->second.back() = ',';
  }
  out.append(frame->second).append(R"("network":)");
  if (instance.status != InstanceStatus::running && instance.status != InstanceStatus::frozen) {
    out.append("null}");
    return;
  }
  static const std::string counters = json::serialize(counters_json({}));
  out.push_back('{');
  bool first = true;
  for (const auto& nic : networks.addresses_of(instance.uuid)) {
    // Device names, MACs and addresses were validated: nothing in them needs an escape.
    fmt::format_to(std::back_inserter(out),
                   R"({}"{}":{{"hwaddr":"{}","host_name":"{}","mtu":0,"state":"up","type":"broadcast","counters":{},"addresses":[)",
                   std::exchange(first, false) ? "" : ",", nic.device, nic.mac,
                   engine::Networks::host_interface(instance.uuid, nic.device), counters);
    if (!nic.ipv4.empty())
      fmt::format_to(std::back_inserter(out), R"({{"family":"inet","address":"{}","netmask":"","scope":"global"}})", nic.ipv4);
    if (!nic.ipv6.empty())
      fmt::format_to(std::back_inserter(out), R"({}{{"family":"inet6","address":"{}","netmask":"","scope":"global"}})",
                     nic.ipv4.empty() ? "" : ",", nic.ipv6);
    out.append("]}");
  }
  out.append("}}");
}

Result<json::value> instance_field(const Instance& i, std::string_view field) {
  auto in_map = [&](const Config& map, std::string_view key) {
    const auto it = map.find(std::string(key));
    return json::value(it == map.end() ? std::string_view() : std::string_view(it->second));
  };
  if (field == "name") return json::value(i.name);
  if (field == "status") return json::value(to_string(i.status));
  if (field == "status_code") return json::value(status_code(i.status));
  if (field == "type") return json::value(to_string(i.type));
  if (field == "project") return json::value(i.project);
  if (field == "description") return json::value(i.description);
  if (field == "architecture") return json::value(i.architecture);
  if (field == "ephemeral") return json::value(i.ephemeral);
  if (field.starts_with("config.")) return in_map(i.config, field.substr(7));
  if (field.starts_with("expanded_config.")) return in_map(i.expanded_config, field.substr(16));
  return find_field(instance_json(i), field);
}

}  // namespace virga::api
