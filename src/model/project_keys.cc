#include "model/project_keys.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "base/units.h"
#include "model/name.h"

namespace virga {
namespace {

Result<> boolean(std::string_view v) {
  auto r = parse_bool(v);
  return r ? Result<>{} : fail(ErrorKind::invalid, "it is true or false");
}
Result<> count(std::string_view v) {
  auto r = parse_integer(v, 0, 1'000'000'000);
  return r ? Result<>{} : fail(std::move(r).error());
}
Result<> size(std::string_view v) {
  auto r = parse_bytes(v);
  return r ? Result<>{} : fail(std::move(r).error());
}
Result<> pool_size(std::string_view v) {
  return size(v);
}
Result<> one_of(std::string_view v, std::initializer_list<std::string_view> values) {
  if (std::find(values.begin(), values.end(), v) != values.end()) return {};
  return fail(ErrorKind::invalid, fmt::format("it is one of {}", fmt::join(values, ", ")));
}
Result<> allow_or_block(std::string_view v) {
  return one_of(v, {"allow", "block"});
}
Result<> managed(std::string_view v) {
  return one_of(v, {"allow", "block", "managed"});
}
Result<> privilege(std::string_view v) {
  return one_of(v, {"allow", "isolated", "unprivileged"});
}
Result<> interception(std::string_view v) {
  return one_of(v, {"allow", "block", "full"});
}
Result<> names(std::string_view v) {
  while (true) {
    const auto comma = std::min(v.find(','), v.size());
    auto name = v.substr(0, comma);
    while (name.starts_with(' ')) name.remove_prefix(1);
    while (name.ends_with(' ')) name.remove_suffix(1);
    VIRGA_CHECK(check_object_name("object", name));
    if (comma == v.size()) return {};
    v.remove_prefix(comma + 1);
  }
}
Result<> paths(std::string_view v) {
  while (true) {
    const auto comma = std::min(v.find(','), v.size());
    const auto path = v.substr(0, comma);
    if (!path.starts_with('/')) return fail(ErrorKind::invalid, "each path begins with '/'");
    for (std::size_t at = 0; at < path.size(); at = std::min(path.find('/', at), path.size()) + 1) {
      const auto part = path.substr(at, path.find('/', at) - at);
      if (part == ".." || part == ".") return fail(ErrorKind::invalid, "a path holds no '.' and no '..'");
    }
    if (comma == v.size()) return {};
    v.remove_prefix(comma + 1);
  }
}
Result<> any_text(std::string_view v) {
  for (const char c : v)
    if (static_cast<unsigned char>(c) < 0x20 && c != '\n' && c != '\t')
      return fail(ErrorKind::invalid, "control characters are not allowed here");
  return {};
}
/// What nothing makes use of yet can be forbidden, which it is anyway, but not allowed.
Result<> only_block(std::string_view v) {
  VIRGA_CHECK(allow_or_block(v));
  return v == "block" ? Result<>{} : fail(ErrorKind::unsupported, "what it would allow is not supported yet");
}

constexpr auto rules = std::to_array<ProjectKeyRule>({
    {"features.images", "bool", "true", "whether the project has images and aliases of its own", boolean},
    {"features.networks", "bool", "false", "only false: projects use the networks of the default project", boolean},
    {"features.networks.zones", "bool", "false", "only false: projects use the network zones of the default project", boolean},
    {"features.profiles", "bool", "true", "whether the project has profiles of its own", boolean},
    {"features.storage.buckets", "bool", "true", "whether the project has storage buckets of its own", boolean},
    {"features.storage.volumes", "bool", "true", "whether the project has custom volumes of its own", boolean},
    {"limits.containers", "integer", "", "how many containers the project may hold", count},
    {"limits.cpu", "integer", "", "the sum of limits.cpu of its instances, each of which must then have one", count},
    {"limits.disk", "string", "", "the sum of root disk sizes, custom volumes and images; each root disk must then have a size",
     size},
    {"limits.disk.pool.*", "string", "", "the same for one storage pool, without images", pool_size},
    {"limits.instances", "integer", "", "how many instances the project may hold", count},
    {"limits.memory", "string", "", "the sum of limits.memory of its instances, each of which must then have one", size},
    {"limits.networks", "integer", "", "how many networks the project may hold", count},
    {"limits.processes", "integer", "", "the sum of limits.processes of its containers, each of which must then have one", count},
    {"limits.virtual-machines", "integer", "", "how many VMs the project may hold", count},
    {"restricted", "bool", "false", "whether the restricted.* keys hold", boolean},
    {"restricted.backups", "string", "block", "whether backups may be made", allow_or_block},
    {"restricted.cluster.target", "string", "block", "only block: there are no clusters yet", only_block},
    {"restricted.containers.interception", "string", "block", "which system calls containers may have intercepted", interception},
    {"restricted.containers.lowlevel", "string", "block", "whether containers may have low-level keys", allow_or_block},
    {"restricted.containers.nesting", "string", "block", "whether containers may have security.nesting", allow_or_block},
    {"restricted.containers.privilege", "string", "unprivileged", "how privileged a container may be", privilege},
    {"restricted.devices.disk", "string", "managed", "which disks besides the root: none, those of pools, all", managed},
    {"restricted.devices.disk.paths", "string", "",
     "below which host paths a disk's source may be, where restricted.devices.disk is allow", paths},
    {"restricted.devices.gpu", "string", "block", "whether GPUs may be given to instances", allow_or_block},
    {"restricted.devices.infiniband", "string", "block", "whether InfiniBand devices may be given to instances", allow_or_block},
    {"restricted.devices.nic", "string", "managed", "which NICs: none, those on managed networks, all", managed},
    {"restricted.devices.pci", "string", "block", "whether PCI devices may be given to instances", allow_or_block},
    {"restricted.devices.proxy", "string", "block", "whether instances may have proxy devices", allow_or_block},
    {"restricted.devices.unix-block", "string", "block", "whether block devices may be given to instances", allow_or_block},
    {"restricted.devices.unix-char", "string", "block", "whether character devices may be given to instances", allow_or_block},
    {"restricted.devices.unix-hotplug", "string", "block", "whether hotplugged devices may be given to instances", allow_or_block},
    {"restricted.devices.usb", "string", "block", "whether USB devices may be given to instances", allow_or_block},
    {"restricted.networks.access", "string", "", "which networks may be used; unset: all", names},
    {"restricted.networks.subnets", "string", "block", "only block: projects have no networks of their own", only_block},
    {"restricted.networks.zones", "string", "block", "only block: there are no network zones yet", only_block},
    {"restricted.snapshots", "string", "block", "whether snapshots may be made", allow_or_block},
    {"restricted.storage-pools.access", "string", "", "which storage pools may be used; unset: all", names},
    {"restricted.virtual-machines.lowlevel", "string", "block", "whether VMs may have low-level keys", allow_or_block},
    {"restricted.virtual-machines.nesting", "string", "allow", "whether VMs may have security.nesting", allow_or_block},
    {"user.*", "string", "", "free for the user; can be searched", any_text},
});

/// Keys of Incus whose subject does not exist here yet, with why.
struct Later {
  std::string_view key, why;
};
constexpr std::string_view of_the_server = "the server's key of this name holds for all projects";
constexpr auto later = std::to_array<Later>({
    {"restricted.cluster.groups", "there are no clusters yet"},
    {"restricted.idmap.gid", "raw.idmap is not supported: each container has its own range of ids"},
    {"restricted.idmap.uid", "raw.idmap is not supported: each container has its own range of ids"},
    {"restricted.images.servers", "image servers cannot be chosen by project yet"},
    {"restricted.networks.integrations", "there are no network integrations yet"},
    {"restricted.networks.uplinks", "projects have no networks of their own"},
    {"backups.compression_algorithm", "it can be given with each backup only"},
    {"images.auto_update_cached", of_the_server},
    {"images.auto_update_interval", of_the_server},
    {"images.compression_algorithm", of_the_server},
    {"images.default_architecture", of_the_server},
    {"images.remote_cache_expiry", of_the_server},
    {"network.hwaddr_pattern", "MAC addresses begin with 00:16:3e"},
});

std::string nearest_key(std::string_view key) {
  std::string best;
  for (const auto& rule : rules)
    if (auto near = nearest(key, {rule.key}); !near.empty() && best.empty()) best = near;
  return best;
}

tl::unexpected<Error> not_supported(const std::string& key, std::string_view why) {
  return fail(Error(ErrorKind::unsupported, fmt::format("'{}' is not supported yet: {}", key, why)).with_field("config." + key));
}

}  // namespace

std::span<const ProjectKeyRule> project_keys() {
  return rules;
}

const ProjectKeyRule* find_project_key(std::string_view key) {
  for (const auto& r : rules) {
    const auto stem = r.key.substr(0, r.key.size() - 1);
    if (r.key.ends_with('*') ? key.size() > stem.size() && key.starts_with(stem) : r.key == key) return &r;
  }
  return nullptr;
}

Result<> check_project_key(bool default_project, const std::string& key, const std::string& value) {
  const std::string field = "config." + key.substr(0, 100);
  for (const auto& [known, why] : later)
    if (key == known) return not_supported(key, why);
  const auto* rule = find_project_key(key);
  if (rule == nullptr) {
    const auto near = nearest_key(key);
    return invalid(field, fmt::format("unknown project configuration key '{}'{}", key.substr(0, 100),
                                      near.empty() ? "" : "; did you mean '" + near + "'?"));
  }
  if (rule->key == "user.*" && key.size() > 128) return invalid(field, "a user key has 1 to 123 characters behind 'user.'");
  if (rule->key == "user.*" && !any_text(key)) return invalid(field, "control characters are not allowed here");
  if (rule->key == "limits.disk.pool.*" && !check_object_name("pool", key.substr(17)))
    return invalid(field, "a storage pool's name is expected behind 'limits.disk.pool.'");
  if (value.empty()) return {};
  if (auto fits = rule->check(value); !fits)
    return fail(std::move(fits).error().wrap(fmt::format("invalid value for '{}'", key)).with_field(field));
  if ((key == "features.networks" || key == "features.networks.zones") && !default_project && *parse_bool(value))
    return not_supported(key, "projects use the networks of the default project");
  return {};
}

}  // namespace virga
