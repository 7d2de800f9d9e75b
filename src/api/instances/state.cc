#include "api/instances/state.h"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>
#include <map>

#include "base/units.h"
#include "engine/networks/service.h"
#include "engine/sampler/sampler.h"

namespace virga::api {
namespace {

using compute::GuestStats;

json::object counters_json(const GuestStats::Interface& i) {
  return {{"bytes_received", i.bytes_in},
          {"bytes_sent", i.bytes_out},
          {"packets_received", i.packets_in},
          {"packets_sent", i.packets_out},
          {"errors_received", i.errors_in},
          {"errors_sent", i.errors_out},
          {"packets_dropped_inbound", i.dropped_in},
          {"packets_dropped_outbound", i.dropped_out}};
}

json::object interface_json(const GuestStats::Interface& i) {
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

/// What was measured: everything that is not known from memory.
json::object measured_json(const GuestStats& s) {
  json::object network;
  for (const auto& i : s.interfaces) network[i.name] = interface_json(i);
  json::object out{{"processes", s.processes},
                   {"cpu", json::object{{"usage", s.cpu_ns}, {"allocated_time", 0}}},
                   {"memory", json::object{{"usage", s.memory_used},
                                           {"usage_peak", s.memory_peak},
                                           {"total", s.memory_total},
                                           {"swap_usage", s.swap_used},
                                           {"swap_usage_peak", 0}}},
                   {"network", std::move(network)},
                   {"os_info", nullptr}};
  if (!s.os_name.empty() || !s.kernel_version.empty() || !s.host_name.empty())
    out["os_info"] = json::object{{"os", s.os_name},
                                  {"os_version", s.os_version},
                                  {"kernel_version", s.kernel_version},
                                  {"hostname", s.host_name},
                                  {"fqdn", s.host_name}};
  return out;
}

json::object unmeasured_json() {
  auto out = measured_json({.processes = 0});
  out["network"] = nullptr;
  return out;
}

/// Addresses are allocated by virga and kept to by the guest: they are known before it has been asked.
void add_known_addresses(GuestStats& stats, const Instance& instance, const engine::Networks& networks) {
  for (const auto& nic : networks.addresses_of(instance.uuid)) {
    auto at = std::find_if(stats.interfaces.begin(), stats.interfaces.end(), [&](const auto& i) { return i.mac == nic.mac; });
    if (at == stats.interfaces.end()) {
      GuestStats::Interface i;
      i.name = nic.device;
      i.mac = nic.mac;
      i.host_name = engine::Networks::host_interface(instance.uuid, nic.device);
      i.state = "up";
      i.type = "broadcast";
      at = stats.interfaces.insert(stats.interfaces.end(), std::move(i));
    }
    auto add = [&](const char* family, const std::string& address) {
      const auto same = [&](const auto& a) { return a.address == address; };
      if (!address.empty() && std::none_of(at->addresses.begin(), at->addresses.end(), same))
        at->addresses.push_back({family, address, "", "global"});
    };
    add("inet", nic.ipv4);
    add("inet6", nic.ipv6);
  }
}

/// An object's text without its braces.
std::string inside(const json::object& object) {
  auto text = json::serialize(object);
  return text.substr(1, text.size() - 2);
}

engine::SamplePtr sample_of(Context& c, const Instance& instance, const engine::Instances::Vitals& vitals) {
  auto sample = c.services.sampler.find(instance.uuid);
  // One of an earlier run tells nothing about this one.
  return sample && sample->taken >= vitals.started_at ? sample : nullptr;
}

}  // namespace

json::object instance_state_json(const engine::InstanceState& state) {
  json::object out{{"status", to_string(state.status)},
                   {"status_code", status_code(state.status)},
                   {"disk", json::object()},
                   {"pid", state.pid},
                   {"started_at", format_time(state.started_at)}};
  if (state.disk_used) out["disk"] = json::object{{state.root_device, json::object{{"usage", *state.disk_used}, {"total", 0}}}};
  for (auto& [key, value] : state.stats ? measured_json(*state.stats) : unmeasured_json()) out[key] = std::move(value);
  out["virga_state_age"] = 0;
  return out;
}

void append_known_state(std::string& out, Context& c, const Instance& instance) {
  static const std::string nothing = inside(unmeasured_json());
  const auto text = std::back_inserter(out);
  const auto vitals = c.services.instances.vitals(instance);
  fmt::format_to(text, R"({{"status":"{}","status_code":{},"pid":{},"started_at":"{}","disk":{{)", to_string(instance.status),
                 status_code(instance.status), vitals.pid, format_time(vitals.started_at));
  if (vitals.disk_used)
    fmt::format_to(text, R"({}:{{"usage":{},"total":0}})", json::serialize(json::value(vitals.root_device)), *vitals.disk_used);
  out.append("},");
  if (instance.status != InstanceStatus::running && instance.status != InstanceStatus::frozen) {
    out.append(nothing).append(R"(,"virga_state_age":0})");
    return;
  }
  const auto sample = sample_of(c, instance, vitals);
  if (!sample) {
    GuestStats stats{.processes = 0};
    add_known_addresses(stats, instance, c.services.networks);
    out.append(inside(measured_json(stats))).append(R"(,"virga_state_age":null})");
    return;
  }
  out.append(c.shared.sample_cache.text_of(sample, [&](const engine::Sample& s) {
    auto stats = s.stats;
    add_known_addresses(stats, instance, c.services.networks);
    return inside(measured_json(stats));
  }));
  const auto age = std::chrono::duration_cast<Milliseconds>(std::chrono::system_clock::now() - sample->taken).count();
  fmt::format_to(text, R"(,"virga_state_age":{}.{:03}}})", std::max<std::int64_t>(age, 0) / 1000,
                 std::max<std::int64_t>(age, 0) % 1000);
}

}  // namespace virga::api
