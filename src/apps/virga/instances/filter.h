// Which instances `virga list` shows: names, name=value pairs and shorthands. Pure.
#pragma once

#include <string>
#include <vector>

#include "base/error.h"
#include "base/json.h"

namespace virga::cli {

/// Whether the instance meets all filters. A filter that is not a regular expression matches as plain text.
bool matches_filters(const json::object& instance, const std::vector<std::string>& filters);
/// Whether some filter looks at addresses, which are part of the state.
bool filters_need_state(const std::vector<std::string>& filters);
/// "u.blah" stands for "user.blah": each part may be cut short.
bool abbreviates(std::string_view short_key, std::string_view key);
/// An extended regular expression, anchored unless it holds an anchor; or the text itself.
bool matches_pattern(const std::string& text, const std::string& pattern);
/// Whether the address lies in "10.0.0.0/8", or is the address. An invalid network matches nothing.
bool address_matches(std::string_view address, std::string_view network);

}  // namespace virga::cli
