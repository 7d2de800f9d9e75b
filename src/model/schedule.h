// When something is to happen again and again: "30 4 * * 1-5" (minute, hour, day of the month, month, day of the week), or a list
// of words, "@daily, @startup". Times are the host's local ones. Pure, but for the host's time zone.
#pragma once

#include <array>
#include <bitset>
#include <optional>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "base/units.h"

namespace virga {

class Schedule {
 public:
  /// An empty text, and "@never", is never. Errors: invalid.
  static Result<Schedule> parse(std::string_view text);
  /// The first moment behind `from`, a full minute. Nothing where there is none within five years (30 February).
  std::optional<WallTime> next(WallTime from) const;
  /// "@startup": when the instance starts.
  bool at_startup() const noexcept { return at_startup_; }
  bool empty() const noexcept { return rules_.empty() && !at_startup_; }

 private:
  struct Rule {
    std::bitset<60> minutes;
    std::bitset<24> hours;
    std::bitset<32> days;
    std::bitset<13> months;
    std::bitset<7> weekdays;
    bool any_day = true;      ///< the day of the month is '*'
    bool any_weekday = true;  ///< where both are said, either is enough
    bool day_fits(int day, int month, int weekday) const;
  };
  static Result<Rule> parse_rule(std::string_view text);
  static std::optional<WallTime> next(const Rule& rule, WallTime from);
  std::vector<Rule> rules_;
  bool at_startup_ = false;
};

}  // namespace virga
