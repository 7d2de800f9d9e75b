// JSON of strangers: any bytes give a value or an error; what passes has no key twice, is not deeper than it may be, and is the
// same after being written and read (but for fractions, whose last digits may differ). Taking fields out of it never fails in any
// other way than with an error.
#include <cstdint>
#include <cstdlib>
#include <set>
#include <string>
#include <string_view>

#include "base/json.h"

namespace {

using namespace virga;

void check(const json::value& value, int depth) {
  if (depth > 32) std::abort();
  if (value.is_array())
    for (const auto& item : value.get_array()) check(item, depth + 1);
  if (!value.is_object()) return;
  std::set<std::string_view> keys;
  for (const auto& [key, item] : value.get_object()) {
    if (!keys.insert(key).second) std::abort();
    check(item, depth + 1);
  }
}

bool has_fraction(const json::value& value) {
  if (value.is_array()) {
    for (const auto& item : value.get_array())
      if (has_fraction(item)) return true;
  } else if (value.is_object()) {
    for (const auto& [key, item] : value.get_object())
      if (has_fraction(item)) return true;
  }
  return value.is_double();
}

void take_fields(const json::object& object) {
  const Fields fields(object, "fuzz");
  for (const auto& [key, value] : object) {
    (void)fields.string(key).has_value();
    (void)fields.boolean(key).has_value();
    (void)fields.integer(key).has_value();
    (void)fields.strings(key).has_value();
    (void)fields.string_map(key).has_value();
    (void)fields.string_maps(key).has_value();
    (void)fields.object(key).has_value();
  }
  (void)fields.only({"name", "config"}).has_value();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  auto value = parse_json({reinterpret_cast<const char*>(data), size});
  if (!value) return 0;
  check(*value, 0);
  auto again = parse_json(json::serialize(*value));
  if (!again || (*again != *value && !has_fraction(*value))) std::abort();
  if (value->is_object()) take_fields(value->get_object());
  return 0;
}
