#include "model/project_restrictions.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "base/units.h"
#include "model/project_keys.h"

namespace virga {
namespace {

/// Keys that give an instance nothing that others feel, beyond what limits.* and quotas bound.
constexpr auto harmless = std::to_array<std::string_view>({"boot.autostart",
                                                           "boot.autostart.delay",
                                                           "boot.autostart.priority",
                                                           "boot.autorestart",
                                                           "boot.stop.priority",
                                                           "cloud-init.",
                                                           "cluster.evacuate",
                                                           "environment.",
                                                           "image.",
                                                           "limits.cpu",
                                                           "limits.cpu.allowance",
                                                           "limits.cpu.priority",
                                                           "limits.disk.priority",
                                                           "limits.memory",
                                                           "limits.memory.enforce",
                                                           "limits.memory.swap.priority",
                                                           "limits.processes",
                                                           "migration.stateful",
                                                           "oci.",
                                                           "security.agent.metrics",
                                                           "security.csm",
                                                           "security.guestapi",
                                                           "security.idmap.isolated",
                                                           "security.protection.delete",
                                                           "security.protection.shift",
                                                           "security.secureboot",
                                                           "snapshots.",
                                                           "user.",
                                                           "volatile."});

bool is_harmless(std::string_view key) {
  return std::any_of(harmless.begin(), harmless.end(),
                     [&](std::string_view known) { return known.ends_with('.') ? key.starts_with(known) : key == known; });
}

bool listed(std::string_view list, std::string_view name) {
  while (!list.empty()) {
    const auto comma = std::min(list.find(','), list.size());
    auto item = list.substr(0, comma);
    while (item.starts_with(' ')) item.remove_prefix(1);
    while (item.ends_with(' ')) item.remove_suffix(1);
    if (item == name) return true;
    list.remove_prefix(std::min(comma + 1, list.size()));
  }
  return false;
}

/// "/srv/data" is below "/srv" and below itself; "/srvx" and "/srv/../etc" are not.
bool is_below(std::string_view path, std::string_view list) {
  if (!path.starts_with('/') || path.find("/../") != std::string_view::npos || path.ends_with("/..")) return false;
  while (!list.empty()) {
    const auto comma = std::min(list.find(','), list.size());
    auto root = list.substr(0, comma);
    while (root.ends_with('/')) root.remove_suffix(1);
    if (path == root || (path.starts_with(root) && path[root.size()] == '/')) return true;
    list.remove_prefix(std::min(comma + 1, list.size()));
  }
  return false;
}

bool is_true(std::string_view value) {
  return parse_bool(value).value_or(true);  // what is no boolean is not let through
}

tl::unexpected<Error> denied(const Project& project, std::string field, std::string_view what, std::string_view key) {
  return fail(Error(ErrorKind::denied,
                    fmt::format("{} is not allowed in project '{}' ({}={})", what, project.name, key, restriction(project, key)))
                  .with_field(std::move(field)));
}

bool exists_for(InstanceType type, std::string_view key) {
  const auto* rule = find_instance_key(key);
  return rule == nullptr || (type == InstanceType::container ? rule->containers : rule->vms);
}

/// The restriction that a key and its value meet; empty: none.
std::string_view obstacle(const Project& project, InstanceType type, std::string_view key, std::string_view value) {
  const bool container = type == InstanceType::container;
  auto allowed = [&](std::string_view restricted_key) { return restriction(project, restricted_key) == "allow"; };
  if (is_harmless(key)) return {};
  if (key == "security.nesting") {
    const std::string_view by = container ? "restricted.containers.nesting" : "restricted.virtual-machines.nesting";
    return !is_true(value) || allowed(by) ? std::string_view() : by;
  }
  if (key == "security.privileged") {
    constexpr std::string_view by = "restricted.containers.privilege";
    return !is_true(value) || allowed(by) ? std::string_view() : by;
  }
  if (key.starts_with("security.syscalls.intercept.")) {
    constexpr std::string_view by = "restricted.containers.interception";
    const auto level = restriction(project, by);
    const bool mounts = key.starts_with("security.syscalls.intercept.mount");
    return level == "full" || (level == "allow" && !mounts) ? std::string_view() : by;
  }
  const std::string_view by = container ? "restricted.containers.lowlevel" : "restricted.virtual-machines.lowlevel";
  return allowed(by) ? std::string_view() : by;
}

std::string option(const Config& device, const char* name) {
  const auto it = device.find(name);
  return it == device.end() ? std::string() : it->second;
}

Result<> check_disk(const Project& project, const std::string& field, const Config& device) {
  const auto pool = option(device, "pool"), source = option(device, "source");
  if (!pool.empty() && !may_use_pool(project, pool))
    return denied(project, field + ".pool", fmt::format("storage pool '{}'", pool), "restricted.storage-pools.access");
  constexpr std::string_view by = "restricted.devices.disk";
  const auto level = restriction(project, by);
  if (level != "allow" && !option(device, "raw.mount.options").empty())
    return denied(project, field + ".raw.mount.options", "'raw.mount.options'", by);
  const bool root = option(device, "path") == "/" && !pool.empty();
  if (root) {
    // Options of a root disk that reach the host are none of the root's own.
    return source.empty() ? Result<>{} : denied(project, field + ".source", "a source of the root disk", by);
  }
  if (level == "block") return denied(project, field, "a disk besides the root", by);
  if (level == "managed" && pool.empty()) return denied(project, field + ".source", "a disk that is not in a storage pool", by);
  if (pool.empty()) {
    const auto roots = restriction(project, "restricted.devices.disk.paths");
    if (!roots.empty() && !is_below(source, roots))
      return denied(project, field + ".source", fmt::format("the source '{}'", source), "restricted.devices.disk.paths");
  }
  return {};
}

Result<> check_nic(const Project& project, const std::string& field, const Config& device) {
  constexpr std::string_view by = "restricted.devices.nic";
  const auto level = restriction(project, by);
  const auto network = option(device, "network"), parent = option(device, "parent");
  if (level == "block") return denied(project, field, "a NIC", by);
  if (level == "managed" && network.empty()) return denied(project, field, "a NIC that is not on a managed network", by);
  for (const auto& name : {network, parent})
    if (!name.empty() && !may_use_network(project, name))
      return denied(project, field + ".network", fmt::format("network '{}'", name), "restricted.networks.access");
  return {};
}

Result<> check_device(const Project& project, const std::string& name, const Config& device) {
  const auto type = option(device, "type");
  const auto field = "devices." + name;
  if (type == "none" || type == "tpm") return {};
  if (type == "disk") return check_disk(project, field, device);
  if (type == "nic") return check_nic(project, field, device);
  const auto key = "restricted.devices." + type;
  if (find_project_key(key) == nullptr)
    return fail(Error(ErrorKind::denied,
                      fmt::format("a device of type '{}' is not allowed in project '{}' (restricted=true)", type, project.name))
                    .with_field(field));
  if (restriction(project, key) != "allow") return denied(project, field, fmt::format("a device of type '{}'", type), key);
  return {};
}

}  // namespace

bool is_restricted(const Project& project) {
  const auto it = project.config.find("restricted");
  return it != project.config.end() && parse_bool(it->second).value_or(false);
}

std::string restriction(const Project& project, std::string_view key) {
  const auto it = project.config.find(std::string(key));
  if (it != project.config.end() && !it->second.empty()) return it->second;
  const auto* rule = find_project_key(key);
  return rule == nullptr ? std::string() : std::string(rule->default_value);
}

bool may_use_network(const Project& project, std::string_view network) {
  const auto list = restriction(project, "restricted.networks.access");
  return !is_restricted(project) || list.empty() || listed(list, network);
}

bool may_use_pool(const Project& project, std::string_view pool) {
  const auto list = restriction(project, "restricted.storage-pools.access");
  return !is_restricted(project) || list.empty() || listed(list, pool);
}

Result<> check_restrictions(const Project& project, std::optional<InstanceType> type, const Config& config,
                            const Devices& devices) {
  if (!is_restricted(project)) return {};
  for (const auto& [key, value] : config) {
    std::string_view by;
    for (const auto kind : {InstanceType::container, InstanceType::virtual_machine}) {
      if (type ? *type != kind : !exists_for(kind, key)) continue;
      by = obstacle(project, kind, key, value);
      if (!by.empty()) break;
    }
    if (!by.empty()) return denied(project, "config." + key, fmt::format("'{}'", key), by);
  }
  for (const auto& [name, device] : devices) VIRGA_CHECK(check_device(project, name, device));
  return {};
}

}  // namespace virga
