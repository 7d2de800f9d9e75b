// Taking fields out of the server's answers: what is absent or of another type reads as empty, since a display must not fail on it.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"

namespace virga::cli {

std::string text_of(const json::object& object, std::string_view name);
std::int64_t integer_of(const json::object& object, std::string_view name);
bool boolean_of(const json::object& object, std::string_view name);
const json::object& object_of(const json::object& object, std::string_view name);
const json::array& array_of(const json::object& object, std::string_view name);
std::vector<std::string> strings_of(const json::object& object, std::string_view name);
/// The objects of an array; other entries are left out.
std::vector<json::object> objects_of(const json::array& array);
/// The named fields of `object` in this order; absent ones are left out.
json::object only_fields(const json::object& object, std::initializer_list<std::string_view> names);
/// The object's editable map below `name`, made when absent.
json::object& map_in(json::object& object, std::string_view name);

}  // namespace virga::cli
