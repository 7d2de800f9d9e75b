// The one table of the server's configuration keys: what exists, what a value may be, and what it is worth where nothing is set. A
// key that is not here is refused with the nearest that is. GET /1.0/metadata/configuration shows it.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "model/config.h"

namespace virga::engine {

struct ServerKey {
  std::string_view key;  ///< ends with '*': any key that begins so
  std::string_view type;
  std::string_view default_value;  ///< as the value would be written; empty: none
  std::string_view description;
  /// Checks a value and may bring it into its normal form. Errors: invalid, unsupported; without a field.
  Result<> (*check)(std::string& value);
};

/// In the order of the reference.
std::span<const ServerKey> server_keys();
const ServerKey* find_server_key(std::string_view key);
/// Removes empty values and puts the others into their normal form. Errors: invalid, unsupported, field "config.<key>".
Result<Config> check_server_config(Config config);
/// What stands between the commas of a value, without blanks around it.
std::vector<std::string> listed(std::string_view value);
/// The value, or what the key is worth where it is not set.
std::string server_setting(const Config& config, std::string_view key);

}  // namespace virga::engine
