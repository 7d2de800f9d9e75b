// A warning: something a person should know and may do something about, kept until it is resolved or deleted. The same trouble
// with the same object is one warning that counts.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/json.h"
#include "base/units.h"

namespace virga {

/// The values are what the store keeps. Below 1000 they are those of Incus, from 1000 on our own.
enum class WarningType : std::uint16_t {
  cgroup_blkio = 1,
  cgroup_cpu = 3,
  cgroup_cpuset = 4,
  cgroup_freezer = 7,
  cgroup_memory = 9,
  cgroup_pids = 11,
  network_unavailable = 20,
  instance_autostart_failure = 22,
  instance_type_not_operational = 23,
  storage_pool_unavailable = 24,
  runtime_weakness = 1000,
  vm_limitation = 1001,
  network_service_restarted = 1002,
  firewall_repaired = 1003,
  scheduled_snapshot_failure = 1004,
};
/// What the API shows: "Storage pool unavailable".
std::string_view to_string(WarningType type) noexcept;
/// "low", "moderate", "high".
std::string_view severity_of(WarningType type) noexcept;

enum class WarningStatus : std::uint8_t { fresh, acknowledged, resolved };
std::string_view to_string(WarningStatus status) noexcept;  ///< "new", "acknowledged", "resolved"

struct Warning {
  std::string uuid;
  WarningType type = WarningType::runtime_weakness;
  WarningStatus status = WarningStatus::fresh;
  std::string project;     ///< empty: concerns the whole server
  std::string entity_url;  ///< empty: of nothing in particular
  std::string message;     ///< the last one
  std::int64_t count = 1;
  WallTime first_seen_at{};
  WallTime last_seen_at{};
  WallTime updated_at{};  ///< of the status
  std::int64_t revision = 0;
};

json::object encode(const Warning& warning);
/// Errors: invalid.
Result<Warning> decode_warning(const json::object& document);

}  // namespace virga
