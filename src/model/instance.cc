#include "model/instance.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "model/name.h"

namespace virga {

std::string_view to_string(InstanceStatus status) noexcept {
  switch (status) {
    case InstanceStatus::stopped:
      return "Stopped";
    case InstanceStatus::running:
      return "Running";
    case InstanceStatus::frozen:
      return "Frozen";
    case InstanceStatus::starting:
      return "Starting";
    case InstanceStatus::stopping:
      return "Stopping";
    case InstanceStatus::error:
      return "Error";
  }
  return "Error";
}

int status_code(InstanceStatus status) noexcept {
  switch (status) {
    case InstanceStatus::stopped:
      return 102;
    case InstanceStatus::running:
      return 103;
    case InstanceStatus::frozen:
      return 110;
    case InstanceStatus::starting:
      return 106;
    case InstanceStatus::stopping:
      return 107;
    case InstanceStatus::error:
      return 112;
  }
  return 112;
}

json::object encode(const Instance& i) {
  return {{"project", i.project},
          {"name", i.name},
          {"uuid", i.uuid},
          {"type", to_string(i.type)},
          {"architecture", i.architecture},
          {"description", i.description},
          {"ephemeral", i.ephemeral},
          {"created_at", format_time(i.created_at)},
          {"last_used_at", format_time(i.last_used_at)},
          {"profiles", to_json(i.profiles)},
          {"config", to_json(i.config)},
          {"devices", to_json(i.devices)},
          {"image", i.image},
          {"pool", i.pool},
          {"id_base", i.id_base}};
}

Result<Instance> decode_instance(const json::object& document) {
  Fields f(document);
  Instance i;
  VIRGA_TRY(i.project, f.string("project"));
  VIRGA_TRY(i.name, f.string("name"));
  VIRGA_TRY(i.uuid, f.string("uuid"));
  VIRGA_TRY(auto type, f.string("type"));
  VIRGA_TRY(i.type, parse_instance_type(type));
  VIRGA_TRY(i.architecture, f.string("architecture"));
  VIRGA_TRY(i.description, f.string("description"));
  VIRGA_TRY(i.ephemeral, f.boolean("ephemeral"));
  VIRGA_TRY(auto created, f.string("created_at", "0001-01-01T00:00:00Z"));
  VIRGA_TRY(i.created_at, parse_time(created));
  VIRGA_TRY(auto used, f.string("last_used_at", "0001-01-01T00:00:00Z"));
  VIRGA_TRY(i.last_used_at, parse_time(used));
  VIRGA_TRY(i.profiles, f.strings("profiles"));
  VIRGA_TRY(i.config, f.string_map("config"));
  VIRGA_TRY(i.devices, f.string_maps("devices"));
  VIRGA_TRY(i.image, f.string("image"));
  VIRGA_TRY(i.pool, f.string("pool"));
  VIRGA_TRY(auto base, f.integer("id_base"));
  i.id_base = static_cast<std::uint32_t>(base);
  return i;
}

void expand(Instance& i, const std::vector<std::shared_ptr<const Profile>>& profiles) {
  i.expanded_config = expand_config(profiles, i.config);
  i.expanded_devices = expand_devices(profiles, i.devices);
  share_expansion(i);
}

namespace {

/// Maps of devices that several instances have alike: thousands are made from a handful of profiles.
class KnownDevices {
 public:
  SharedMap<Devices> share(const SharedMap<Devices>& devices) {
    if (devices.empty()) return {};
    if (auto it = known_.find(devices); it != known_.end()) return *it;
    if (known_.size() >= next_sweep_) {
      std::erase_if(known_, [](const auto& known) { return known.use_count() == 1; });
      next_sweep_ = std::max<std::size_t>(64, known_.size() * 2);
    }
    known_.insert(devices);
    return devices;
  }

 private:
  struct ByContent {
    bool operator()(const SharedMap<Devices>& a, const SharedMap<Devices>& b) const { return a.get() < b.get(); }
  };
  std::set<SharedMap<Devices>, ByContent> known_;
  std::size_t next_sweep_ = 64;
};

}  // namespace

void share_expansion(Instance& i) {
  thread_local KnownDevices known;  // objects are made on the event loop; tests have more than one
  if (i.expanded_config == i.config) i.expanded_config = i.config;
  i.devices = known.share(i.devices);
  i.expanded_devices = known.share(i.expanded_devices);
}

Result<std::pair<std::string, Config>> root_disk(const Devices& expanded) {
  const std::pair<const std::string, Config>* found = nullptr;
  for (const auto& entry : expanded) {
    auto type = entry.second.find("type");
    auto path = entry.second.find("path");
    if (type == entry.second.end() || type->second != "disk" || path == entry.second.end() || path->second != "/") continue;
    if (found != nullptr)
      return invalid("devices", fmt::format("both '{}' and '{}' are root disks: there must be one", found->first, entry.first));
    found = &entry;
  }
  if (found == nullptr)
    return fail(Error(ErrorKind::invalid, "no root disk: a disk device with path / and a pool is needed")
                    .with_field("devices")
                    .with_hint("name a storage pool, or add a root disk to the profile; `virga admin init --auto` makes both"));
  return std::pair(found->first, found->second);
}

Result<> check(const Instance& i) {
  VIRGA_CHECK(check_instance_name(i.name));
  VIRGA_CHECK(check_description(i.description));
  if (i.architecture != "x86_64")
    return fail(Error(ErrorKind::unsupported, fmt::format("architecture '{}' is not this host's, x86_64", i.architecture))
                    .with_field("architecture"));
  constexpr std::size_t max_profiles = 100;
  if (i.profiles.size() > max_profiles) return invalid("profiles", fmt::format("more than {} profiles", max_profiles));
  VIRGA_CHECK(check_config(i.config, i.type, true));
  VIRGA_CHECK(check_config(i.expanded_config, i.type, true));
  VIRGA_CHECK(check_devices(i.devices, i.type));
  VIRGA_CHECK(check_devices(i.expanded_devices, i.type));
  std::set<std::string> guest_names;
  for (const auto& [name, device] : i.expanded_devices) {
    if (device.at("type") != "nic") continue;
    auto given = device.find("name");
    if (given != device.end() && !guest_names.insert(given->second).second)
      return invalid(fmt::format("devices.{}.name", name), fmt::format("two NICs are named '{}' in the guest", given->second));
  }
  auto root = root_disk(i.expanded_devices);
  if (!root) return fail(std::move(root).error());
  return {};
}

}  // namespace virga
