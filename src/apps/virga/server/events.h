// Events as text. Pure.
#pragma once

#include <string>
#include <string_view>

#include "base/error.h"
#include "base/json.h"

namespace virga::cli {

struct EventFormat {
  enum Style { yaml, json, pretty };
  Style style = yaml;
  int lowest = 0;  ///< of logging events in the pretty style; from parse_log_level
};

/// "debug" is 0, "error" is 3. Errors: invalid.
Result<int> parse_log_level(std::string_view level);
/// Ends with a newline; empty for an event that is left out.
std::string render_event(const json::object& event, const EventFormat& format);

}  // namespace virga::cli
