// A storage pool: where volumes live. Services hand out immutable snapshots (std::shared_ptr<const Pool>). Also the table of its
// configuration keys: a key that is not there is refused with the nearest that is.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "base/json.h"
#include "model/config.h"

namespace virga {

enum class PoolStatus { created, unavailable };
std::string_view to_string(PoolStatus status) noexcept;  ///< "Created", "Unavailable" as the API says it

struct Pool {
  // Stored.
  std::string name;
  std::string driver;
  std::string description;
  Config config;              ///< "source" is always there
  std::int64_t revision = 0;  ///< of the document; not part of its text

  // Derived.
  PoolStatus status = PoolStatus::created;
  std::string error;  ///< why it is unavailable

  std::string source() const;
};

json::object encode(const Pool& pool);
Result<Pool> decode_pool(const json::object& document);

struct PoolKeyRule {
  std::string_view key;  ///< ends with '*': any key that begins so
  std::string_view type;
  std::string_view default_value;
  std::string_view description;
  Result<> (*check)(std::string_view value);
  bool may_change;  ///< after the pool was made
};
std::span<const PoolKeyRule> pool_keys();

/// Name, description, keys and values. Errors: invalid; field "name", "config.<key>".
Result<> check(const Pool& pool);
/// Whether the configuration of a pool that exists may become `to`. Errors: invalid, field "config.<key>".
Result<> check_pool_change(const Config& from, const Config& to);

}  // namespace virga
