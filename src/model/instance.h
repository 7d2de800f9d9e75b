// An instance: what a user configured, what the daemon keeps about it, and the status it has now. Services hand out immutable
// snapshots (std::shared_ptr<const Instance>); every change, of status too, makes a new one.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/json.h"
#include "base/shared_map.h"
#include "base/units.h"
#include "model/config.h"
#include "model/profile.h"

namespace virga {

enum class InstanceStatus { stopped, running, frozen, starting, stopping, error };
std::string_view to_string(InstanceStatus status) noexcept;  ///< "Stopped", "Running", ... as the API says it
int status_code(InstanceStatus status) noexcept;             ///< 102, 103, 110, 106, 107, 112

struct Instance {
  // Stored.
  std::string project;
  std::string name;
  std::string uuid;
  InstanceType type = InstanceType::container;
  std::string architecture = "x86_64";
  std::string description;
  bool ephemeral = false;
  WallTime created_at{};
  WallTime last_used_at{};
  std::vector<std::string> profiles;
  SharedMap<Config> config;    ///< the instance's own, volatile.* and image.* included
  SharedMap<Devices> devices;  ///< the instance's own
  std::string image;           ///< fingerprint the root was made from; empty: none
  std::string pool;            ///< where its root volume is
  std::uint32_t id_base = 0;   ///< first host id of its own range
  std::int64_t revision = 0;

  // Derived, kept here so that a list needs nothing else. Equal ones are one map in memory, see share_expansion().
  SharedMap<Config> expanded_config;
  SharedMap<Devices> expanded_devices;
  InstanceStatus status = InstanceStatus::stopped;
};

json::object encode(const Instance& instance);
Result<Instance> decode_instance(const json::object& document);
/// The checks of the merged object: own and expanded configuration and devices, exactly one root disk. Errors: invalid.
Result<> check(const Instance& instance);
/// Fills expanded_config and expanded_devices.
void expand(Instance& instance, const std::vector<std::shared_ptr<const Profile>>& profiles);
/// Lets go of maps that are there already: an expanded configuration that equals the instance's own is the same map, and so are
/// equal devices of several instances.
void share_expansion(Instance& instance);
/// The root disk among the expanded devices: its name and options. Errors: invalid.
Result<std::pair<std::string, Config>> root_disk(const Devices& expanded);

}  // namespace virga
