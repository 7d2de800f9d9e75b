// How long something is good: "2H 30M", "1d", "3w". S seconds, M minutes, H hours, d days, w weeks, m months, y years, as Incus
// writes it. Pure.
#pragma once

#include <string_view>

#include "base/error.h"
#include "base/units.h"

namespace virga {

/// The moment that lies so far behind `from`; months and years go by the calendar. Errors: invalid.
Result<WallTime> parse_expiry(std::string_view text, WallTime from);

}  // namespace virga
