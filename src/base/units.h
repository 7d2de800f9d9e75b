// Sizes, counts and times as people and the API write them.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>

#include "base/error.h"

namespace virga {

using Bytes = std::uint64_t;
using WallTime = std::chrono::system_clock::time_point;

/// "512MiB", "1GB", "10kB", "4096": kB, MB, GB, TB, PB, EB are powers of 1000, KiB .. EiB of 1024. Errors: invalid.
Result<Bytes> parse_bytes(std::string_view text);
/// "1.50GiB": two digits behind the point, as tables show sizes.
std::string format_bytes(Bytes bytes);
/// A whole number in [min, max]; no sign other than '-', no blanks. Errors: invalid.
Result<std::int64_t> parse_integer(std::string_view text, std::int64_t min, std::int64_t max);
/// true/false, 1/0, yes/no, on/off in any case. Errors: invalid.
Result<bool> parse_bool(std::string_view text);
/// "2026-01-31T12:00:00.123456789Z"; the zero time is "0001-01-01T00:00:00Z" as the API writes it.
std::string format_time(WallTime time);
/// RFC 3339 with offset or Z; what the clock cannot hold is as near as it can (unix_time.h). Errors: invalid.
Result<WallTime> parse_time(std::string_view text);

}  // namespace virga
