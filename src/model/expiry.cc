#include "model/expiry.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>

namespace virga {
namespace {

using namespace std::chrono;

tl::unexpected<Error> bad(std::string_view text) {
  return fail(ErrorKind::invalid, fmt::format("'{}' is no length of time: write 30M, 2H, 1d, 3w, 1m or 1y", text.substr(0, 40)));
}

WallTime add_months(WallTime from, int count) {
  const auto day = floor<days>(from);
  year_month_day date{day};
  date += months(count);
  if (!date.ok()) date = date.year() / date.month() / last;  // the 31st of a shorter month
  return sys_days(date) + (from - day);
}

}  // namespace

Result<WallTime> parse_expiry(std::string_view text, WallTime from) {
  const auto whole = text;
  bool any = false;
  while (!text.empty()) {
    if (text.front() == ' ') {
      text.remove_prefix(1);
      continue;
    }
    const auto digits = std::min(text.find_first_not_of("0123456789"), text.size());
    if (digits == 0 || digits == text.size()) return bad(whole);
    const auto number = parse_integer(text.substr(0, digits), 0, 4'000'000'000);
    if (!number) return bad(whole);
    const char unit = text[digits];
    if (unit == 'm' || unit == 'y') {
      const auto count = *number * (unit == 'y' ? 12 : 1);
      if (count > 1200) return bad(whole);
      from = add_months(from, static_cast<int>(count));
    } else {
      const auto each = unit == 'S'   ? seconds(1)
                        : unit == 'M' ? seconds(60)
                        : unit == 'H' ? seconds(3600)
                        : unit == 'd' ? seconds(86'400)
                        : unit == 'w' ? seconds(604'800)
                                      : seconds(0);
      if (each == seconds(0) || *number > 36'500 * 86'400ll / each.count()) return bad(whole);
      from += *number * each;
    }
    text.remove_prefix(digits + 1);
    any = true;
    // Times are kept in nanoseconds, which end in 2262: one hundred years more is the most of one unit, two hundred of all.
    if (from > WallTime(hours(24 * 365 * 200))) return bad(whole);
  }
  return any ? Result<WallTime>(from) : bad(whole);
}

}  // namespace virga
