// The one table of configuration keys and device options of instances and profiles: what exists, for which kind of guest, and what
// a value may be. A key that is not here is refused with the nearest that is.
#pragma once

#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "base/error.h"

namespace virga {

using Config = std::map<std::string, std::string>;
using Devices = std::map<std::string, Config>;

enum class InstanceType { container, virtual_machine };
std::string_view to_string(InstanceType type) noexcept;           ///< "container", "virtual-machine"
Result<InstanceType> parse_instance_type(std::string_view text);  ///< empty is container

struct KeyRule {
  std::string_view key;  ///< ends with '*': any key that begins so
  bool containers;
  bool vms;
  std::string_view type;  ///< as the API's metadata says it: string, integer, bool
  std::string_view default_value;
  std::string_view description;
  Result<> (*check)(std::string_view value);
  bool live;  ///< takes effect while the guest runs
};

/// All rules for instances, in the order of the reference.
std::span<const KeyRule> instance_keys();
const KeyRule* find_instance_key(std::string_view key);

/// Checks keys and values. `type` absent: a profile, whose keys must exist for some kind. Keys below volatile.* and image.* pass
/// where `internal` is set: they are ours. Errors: invalid, field "config.<key>".
Result<> check_config(const Config& config, std::optional<InstanceType> type, bool internal);
/// Checks every device by itself. Errors: invalid, field "devices.<name>.<option>".
Result<> check_devices(const Devices& devices, std::optional<InstanceType> type);

}  // namespace virga
