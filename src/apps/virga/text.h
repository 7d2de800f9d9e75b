// Text for terminals: what a server, a guest or an image wrote cannot move the cursor, set the title or hide itself. Pure.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/units.h"

namespace virga::cli {

/// Control characters, direction overrides and bytes that are not UTF-8 become \x1b, \u202e and the like; newline and tab stay.
std::string escaped(std::string_view text);
/// The same, and newline and tab are escaped too: for one line of a list.
std::string escaped_line(std::string_view text);
/// A JSON string with its quotes; what escaped() would escape stands as \u202e.
std::string json_quoted(std::string_view text);
/// Terminal columns that valid UTF-8 takes.
std::size_t display_width(std::string_view text);
/// The longest part from the front that takes at most `columns`, at least one character.
std::size_t bytes_that_fit(std::string_view text, std::size_t columns);
/// Lines of at most `columns`, broken at spaces where there are some.
std::vector<std::string> wrapped(std::string_view text, std::size_t columns);
std::string upper(std::string_view text);
/// "c2" comes before "c10".
bool natural_less(std::string_view a, std::string_view b);
std::vector<std::string> split(std::string_view text, char separator);

/// "2026/01/31 12:00 UTC" in the zone of this machine.
std::string local_time(WallTime time);
/// local_time() of an API time; `never` where it is the zero time or the epoch or not a time at all.
std::string local_time(std::string_view api_time, std::string_view never);
/// Powers of 1024 with two digits: "1.50GiB"; of 1000: "1.72kB".
std::string binary_size(std::int64_t bytes);
std::string decimal_size(std::int64_t bytes);

}  // namespace virga::cli
