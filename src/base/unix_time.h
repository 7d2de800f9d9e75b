// Seconds since 1970, as certificates and images write times, and the clock's own.
#pragma once

#include <cstdint>

#include "base/units.h"

namespace virga {

/// What the clock cannot hold (years before 1678 and after 2261) becomes the furthest that it can.
WallTime time_of_unix(std::int64_t seconds);

}  // namespace virga
