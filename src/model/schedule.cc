#include "model/schedule.h"

#include <fmt/format.h>

#include <algorithm>
#include <ctime>
#include <span>

namespace virga {
namespace {

tl::unexpected<Error> bad(std::string_view text, std::string_view why) {
  return fail(
      Error(ErrorKind::invalid, fmt::format("'{}' is no schedule: {}", text.substr(0, 60), why))
          .with_hint(
              "write five fields (minute hour day month weekday), such as '0 4 * * *', or words such as '@daily, @startup'"));
}

std::vector<std::string_view> split(std::string_view text, std::string_view separators) {
  std::vector<std::string_view> out;
  while (!text.empty()) {
    const auto end = std::min(text.find_first_of(separators), text.size());
    if (end > 0) out.push_back(text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return out;
}

constexpr std::array<std::string_view, 12> month_names{"jan", "feb", "mar", "apr", "may", "jun",
                                                       "jul", "aug", "sep", "oct", "nov", "dec"};
constexpr std::array<std::string_view, 7> weekday_names{"sun", "mon", "tue", "wed", "thu", "fri", "sat"};

struct Field {
  int first;
  int last;
  std::span<const std::string_view> names;  ///< of first, first + 1, ...
};

Result<int> number(std::string_view text, const Field& field) {
  for (std::size_t i = 0; i < field.names.size(); ++i) {
    const bool same = std::equal(text.begin(), text.end(), field.names[i].begin(), field.names[i].end(),
                                 [](char a, char b) { return (a | 32) == b; });
    if (same) return field.first + static_cast<int>(i);
  }
  auto n = parse_integer(text, field.first, field.last);
  if (!n)
    return fail(ErrorKind::invalid,
                fmt::format("'{}' does not lie between {} and {}", text.substr(0, 20), field.first, field.last));
  return static_cast<int>(*n);
}

/// "*", "5", "1-5", "*/15", "10-40/10", and lists of these.
template <std::size_t N>
Result<> parse_field(std::string_view text, const Field& field, std::bitset<N>& out) {
  if (text.starts_with(',') || text.ends_with(',')) return fail(ErrorKind::invalid, "an empty part of a list");
  for (auto part : split(text, ",")) {
    std::int64_t step = 1;
    if (const auto slash = part.find('/'); slash != std::string_view::npos) {
      VIRGA_TRY(step, parse_integer(part.substr(slash + 1), 1, field.last));
      part = part.substr(0, slash);
    }
    int from = field.first, to = field.last;
    if (part != "*" && part != "?") {
      const auto dash = part.find('-');
      VIRGA_TRY(from, number(part.substr(0, dash), field));
      if (dash != std::string_view::npos) {
        VIRGA_TRY(to, number(part.substr(dash + 1), field));
        if (to < from) return fail(ErrorKind::invalid, fmt::format("'{}' ends before it begins", part.substr(0, 20)));
      } else if (step == 1) {
        to = from;
      }
    }
    for (std::int64_t n = from; n <= to; n += step) out.set(static_cast<std::size_t>(n) % N);
  }
  return {};
}

struct Word {
  std::string_view name;
  std::string_view rule;
};
constexpr std::array<Word, 7> words{{{"@hourly", "0 * * * *"},
                                     {"@daily", "0 0 * * *"},
                                     {"@midnight", "0 0 * * *"},
                                     {"@weekly", "0 0 * * 0"},
                                     {"@monthly", "0 0 1 * *"},
                                     {"@annually", "0 0 1 1 *"},
                                     {"@yearly", "0 0 1 1 *"}}};

}  // namespace

bool Schedule::Rule::day_fits(int day, int month, int weekday) const {
  if (!months.test(static_cast<std::size_t>(month))) return false;
  const bool by_day = days.test(static_cast<std::size_t>(day)), by_weekday = weekdays.test(static_cast<std::size_t>(weekday));
  return any_day || any_weekday ? by_day && by_weekday : by_day || by_weekday;
}

Result<Schedule::Rule> Schedule::parse_rule(std::string_view text) {
  const auto fields = split(text, " \t");
  if (fields.size() != 5) return fail(ErrorKind::invalid, fmt::format("it has {} fields instead of five", fields.size()));
  Rule rule;
  VIRGA_CHECK(parse_field(fields[0], {0, 59, {}}, rule.minutes));
  VIRGA_CHECK(parse_field(fields[1], {0, 23, {}}, rule.hours));
  VIRGA_CHECK(parse_field(fields[2], {1, 31, {}}, rule.days));
  VIRGA_CHECK(parse_field(fields[3], {1, 12, month_names}, rule.months));
  // 0 and 7 are both Sunday.
  VIRGA_CHECK(parse_field(fields[4], {0, 7, weekday_names}, rule.weekdays));
  rule.any_day = fields[2] == "*" || fields[2] == "?";
  rule.any_weekday = fields[4] == "*" || fields[4] == "?";
  return rule;
}

Result<Schedule> Schedule::parse(std::string_view text) {
  Schedule out;
  const auto whole = text;
  const auto begin = text.find_first_not_of(' ');
  if (begin == std::string_view::npos) return out;
  if (text[begin] != '@') {
    auto rule = parse_rule(text);
    if (!rule) return bad(whole, rule.error().chain());
    out.rules_.push_back(*rule);
    return out;
  }
  for (const auto word : split(text, ", ")) {
    if (word == "@never") continue;
    if (word == "@startup") {
      out.at_startup_ = true;
      continue;
    }
    const auto* known = std::find_if(words.begin(), words.end(), [&](const Word& w) { return w.name == word; });
    if (known == words.end()) return bad(whole, fmt::format("'{}' is no word of it", word.substr(0, 20)));
    out.rules_.push_back(parse_rule(known->rule).value());
  }
  return out;
}

std::optional<WallTime> Schedule::next(const Rule& rule, WallTime from) {
  const std::time_t start = std::chrono::system_clock::to_time_t(from) / 60 * 60 + 60;
  std::tm at{};
  if (::localtime_r(&start, &at) == nullptr) return std::nullopt;
  const int last_year = at.tm_year + 5;
  while (at.tm_year <= last_year) {
    // Days first, so that a rule for one day of the year takes some hundred steps.
    if (!rule.day_fits(at.tm_mday, at.tm_mon + 1, at.tm_wday)) {
      ++at.tm_mday;
      at.tm_hour = at.tm_min = 0;
    } else if (!rule.hours.test(static_cast<std::size_t>(at.tm_hour))) {
      ++at.tm_hour;
      at.tm_min = 0;
    } else if (!rule.minutes.test(static_cast<std::size_t>(at.tm_min))) {
      ++at.tm_min;
    } else {
      at.tm_isdst = -1;
      std::tm copy = at;
      const auto time = std::mktime(&copy);
      if (time == -1) return std::nullopt;
      const auto moment = std::chrono::system_clock::from_time_t(time);
      if (moment > from) return moment;
      ++at.tm_min;  // an hour that a change of clocks repeats
    }
    // Brings 61 minutes, 32 days into order, as if clocks were never changed: an hour that is left out that day is looked at, too.
    const auto time = ::timegm(&at);
    if (time == -1 || ::gmtime_r(&time, &at) == nullptr) return std::nullopt;
  }
  return std::nullopt;
}

std::optional<WallTime> Schedule::next(WallTime from) const {
  std::optional<WallTime> out;
  for (const auto& rule : rules_)
    if (auto moment = next(rule, from); moment && (!out || *moment < *out)) out = moment;
  return out;
}

}  // namespace virga
