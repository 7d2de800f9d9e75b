#include "engine/instances/spec.h"

#include <fmt/format.h>

#include "model/name.h"

namespace virga::engine {
namespace {

std::string option(const Config& device, const char* name) {
  auto it = device.find(name);
  return it == device.end() ? std::string() : it->second;
}

}  // namespace

std::vector<NicDevice> nics_of(const Instance& instance) {
  std::vector<NicDevice> out;
  for (const auto& [name, device] : instance.expanded_devices) {
    if (option(device, "type") != "nic") continue;
    NicDevice nic;
    nic.device = name;
    nic.network = option(device, "network");
    nic.guest_name = option(device, "name");
    nic.mac = option(device, "hwaddr");
    if (nic.mac.empty()) nic.mac = option(instance.config, ("volatile." + name + ".hwaddr").c_str());
    nic.ipv4 = option(device, "ipv4.address");
    nic.ipv6 = option(device, "ipv6.address");
    if (auto mtu = option(device, "mtu"); !mtu.empty())
      nic.mtu = static_cast<std::uint32_t>(parse_integer(mtu, 0, 65535).value_or(0));
    out.push_back(std::move(nic));
  }
  int next = 0;
  auto taken = [&](const std::string& n) {
    return std::any_of(out.begin(), out.end(), [&](const auto& o) { return o.guest_name == n; });
  };
  for (auto& nic : out) {
    if (!nic.guest_name.empty()) continue;
    std::string name;
    do name = fmt::format("eth{}", next++);
    while (taken(name));
    nic.guest_name = std::move(name);
  }
  return out;
}

storage::VolumeId volume_id(const Instance& instance) {
  return {.kind = instance.type == InstanceType::container ? storage::VolumeKind::container : storage::VolumeKind::virtual_machine,
          .project = instance.project,
          .name = instance.name};
}

Result<storage::VolumeSpec> volume_spec(const Instance& instance) {
  storage::VolumeSpec spec;
  spec.id = volume_id(instance);
  spec.content = instance.type == InstanceType::container ? storage::ContentType::filesystem : storage::ContentType::block;
  VIRGA_TRY(auto root, root_disk(instance.expanded_devices));
  if (auto size = option(root.second, "size"); !size.empty()) {
    VIRGA_TRY(spec.size, parse_bytes(size));
  }
  return spec;
}

std::string log_path(const std::string& state_dir, const std::string& project, const std::string& name) {
  return fmt::format("{}/logs/{}", state_dir, project_prefixed(project, name));
}

Paths paths_of(const std::string& state_dir, const Instance& instance) {
  return {fmt::format("{}/run/{}", state_dir, instance.uuid), log_path(state_dir, instance.project, instance.name)};
}

Result<compute::GuestSpec> guest_spec(const Instance& instance, const Paths& paths) {
  compute::GuestSpec spec;
  spec.id = instance.uuid;
  spec.project = instance.project;
  spec.name = instance.name;
  spec.kind = instance.type == InstanceType::container ? compute::Kind::container : compute::Kind::virtual_machine;
  spec.run_dir = paths.run;
  spec.log_dir = paths.logs;
  spec.ids = {instance.id_base, ids_per_guest};
  const auto& config = instance.expanded_config;
  if (auto v = option(config, "limits.cpu"); !v.empty()) {
    VIRGA_TRY(auto n, parse_integer(v, 1, 1024));
    spec.cpus = static_cast<std::uint32_t>(n);
  }
  if (auto v = option(config, "limits.memory"); !v.empty()) {
    VIRGA_TRY(spec.memory, parse_bytes(v));
  }
  if (auto v = option(config, "limits.processes"); !v.empty()) {
    VIRGA_TRY(auto n, parse_integer(v, 1, 4'194'304));
    spec.processes = static_cast<std::uint64_t>(n);
  }
  if (auto v = option(config, "security.nesting"); !v.empty()) {
    VIRGA_TRY(spec.nesting, parse_bool(v));
  }
  for (const auto& [key, value] : config)
    if (key.starts_with("environment.")) spec.environment[key.substr(12)] = value;
  return spec;
}

std::string document_key(const std::string& project, const std::string& name) {
  return fmt::format("/instances/{}/{}", project, name);
}

}  // namespace virga::engine
