#include "apps/virga/values.h"

namespace virga::cli {

std::string text_of(const json::object& object, std::string_view name) {
  const auto* value = object.if_contains(name);
  return value != nullptr && value->is_string() ? std::string(value->get_string()) : std::string();
}

std::int64_t integer_of(const json::object& object, std::string_view name) {
  const auto* value = object.if_contains(name);
  if (value == nullptr || !value->is_number()) return 0;
  if (value->is_double())
    return value->get_double() > -9e18 && value->get_double() < 9e18 ? static_cast<std::int64_t>(value->get_double()) : 0;
  json::error_code ec;
  auto number = value->to_number<std::int64_t>(ec);
  return ec ? INT64_MAX : number;
}

bool boolean_of(const json::object& object, std::string_view name) {
  const auto* value = object.if_contains(name);
  return value != nullptr && value->is_bool() && value->get_bool();
}

const json::object& object_of(const json::object& object, std::string_view name) {
  static const json::object none;
  const auto* value = object.if_contains(name);
  return value != nullptr && value->is_object() ? value->get_object() : none;
}

const json::array& array_of(const json::object& object, std::string_view name) {
  static const json::array none;
  const auto* value = object.if_contains(name);
  return value != nullptr && value->is_array() ? value->get_array() : none;
}

std::vector<std::string> strings_of(const json::object& object, std::string_view name) {
  std::vector<std::string> out;
  for (const auto& value : array_of(object, name))
    if (value.is_string()) out.emplace_back(value.get_string());
  return out;
}

std::vector<json::object> objects_of(const json::array& array) {
  std::vector<json::object> out;
  out.reserve(array.size());
  for (const auto& value : array)
    if (value.is_object()) out.push_back(value.get_object());
  return out;
}

json::object only_fields(const json::object& object, std::initializer_list<std::string_view> names) {
  json::object out;
  for (auto name : names)
    if (const auto* value = object.if_contains(name)) out[name] = *value;
  return out;
}

json::object& map_in(json::object& object, std::string_view name) {
  auto& value = object[name];
  if (!value.is_object()) value = json::object();
  return value.get_object();
}

}  // namespace virga::cli
