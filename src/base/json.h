// Reading JSON from strangers: parse with limits, then take fields by name; every error names the field.
#pragma once

#include <boost/json.hpp>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"

namespace virga {

namespace json = boost::json;

/// Errors: invalid (syntax, deeper than 32, not UTF-8, duplicate keys in one object, trailing text).
Result<json::value> parse_json(std::string_view text);
/// The same, and the value must be an object.
Result<json::object> parse_json_object(std::string_view text);

/// Takes typed fields out of an object. A field that is absent or null yields the fallback; a wrong type is `invalid` with its
/// name.
class Fields {
 public:
  explicit Fields(const json::object& object, std::string prefix = {}) : object_(object), prefix_(std::move(prefix)) {}
  bool has(std::string_view name) const;
  Result<std::string> string(std::string_view name, std::string fallback = {}) const;
  Result<bool> boolean(std::string_view name, bool fallback = false) const;
  Result<std::int64_t> integer(std::string_view name, std::int64_t fallback = 0) const;
  Result<std::vector<std::string>> strings(std::string_view name) const;
  /// {"k": "v"}: values must be strings.
  Result<std::map<std::string, std::string>> string_map(std::string_view name) const;
  /// {"k": {"k2": "v"}}.
  Result<std::map<std::string, std::map<std::string, std::string>>> string_maps(std::string_view name) const;
  /// The object below `name`, an empty one where absent.
  Result<json::object> object(std::string_view name) const;
  /// Errors: invalid, naming the first field that is not in `known`.
  Result<> only(std::initializer_list<std::string_view> known) const;

 private:
  const json::value* find(std::string_view name) const;
  tl::unexpected<Error> wrong(std::string_view name, std::string_view expected) const;
  const json::object& object_;
  std::string prefix_;
};

/// The text with '?' for each byte that is no UTF-8: what others wrote can be kept as JSON and read again.
std::string valid_utf8(std::string_view text);

json::object to_json(const std::map<std::string, std::string>& map);
json::object to_json(const std::map<std::string, std::map<std::string, std::string>>& maps);
json::array to_json(const std::vector<std::string>& strings);

}  // namespace virga
