// The one table of configuration keys of projects: what exists and what a value may be. A key that is known to Incus and cannot
// work here yet is refused by name; one that nobody knows is refused with the nearest that exists.
#pragma once

#include <span>
#include <string>
#include <string_view>

#include "base/error.h"

namespace virga {

struct ProjectKeyRule {
  std::string_view key;  ///< ends with '*': any key that begins so
  std::string_view type;
  std::string_view default_value;
  std::string_view description;
  Result<> (*check)(std::string_view value);
};

/// All rules, in the order of the reference.
std::span<const ProjectKeyRule> project_keys();
const ProjectKeyRule* find_project_key(std::string_view key);
/// Errors: invalid, unsupported; field "config.<key>".
Result<> check_project_key(bool default_project, const std::string& key, const std::string& value);

}  // namespace virga
