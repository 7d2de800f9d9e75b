#include "base/units.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <ctime>
#include <limits>

#include "base/unix_time.h"

namespace virga {
namespace {

struct Unit {
  std::string_view name;
  Bytes factor;
};
constexpr Bytes kilo = 1000;
constexpr Bytes kibi = 1024;
constexpr std::array<Unit, 15> units{{{"", 1},
                                      {"B", 1},
                                      {"kB", kilo},
                                      {"KB", kilo},
                                      {"KiB", kibi},
                                      {"MB", kilo* kilo},
                                      {"MiB", kibi* kibi},
                                      {"GB", kilo* kilo* kilo},
                                      {"GiB", kibi* kibi* kibi},
                                      {"TB", kilo* kilo* kilo* kilo},
                                      {"TiB", kibi* kibi* kibi* kibi},
                                      {"PB", kilo* kilo* kilo* kilo* kilo},
                                      {"PiB", kibi* kibi* kibi* kibi* kibi},
                                      {"EB", kilo* kilo* kilo* kilo* kilo* kilo},
                                      {"EiB", kibi* kibi* kibi* kibi* kibi* kibi}}};

std::string lower(std::string_view text) {
  std::string out(text);
  for (char& c : out)
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  return out;
}

}  // namespace

Result<Bytes> parse_bytes(std::string_view text) {
  Bytes number = 0;
  auto [end, ec] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (ec != std::errc{} || end == text.data())
    return fail(ErrorKind::invalid, fmt::format("'{}' is not a size: write a whole number and a unit, such as 512MiB", text));
  std::string_view unit(end, static_cast<std::size_t>(text.data() + text.size() - end));
  for (const auto& u : units) {
    if (u.name != unit) continue;
    if (number != 0 && u.factor > static_cast<Bytes>(std::numeric_limits<std::int64_t>::max()) / number)
      return fail(ErrorKind::invalid, fmt::format("size '{}' is larger than 8 EiB", text));
    return number * u.factor;
  }
  return fail(ErrorKind::invalid, fmt::format("size '{}' has an unknown unit: use B, kB, MB, GB, TB or KiB, MiB, GiB, TiB", text));
}

std::string format_bytes(Bytes bytes) {
  static constexpr std::array<std::string_view, 7> names{"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
  if (bytes < kibi) return fmt::format("{}B", bytes);
  auto value = static_cast<double>(bytes);
  std::size_t n = 0;
  while (value >= 1024 && n + 1 < names.size()) {
    value /= 1024;
    ++n;
  }
  return fmt::format("{:.2f}{}", value, names[n]);
}

Result<std::int64_t> parse_integer(std::string_view text, std::int64_t min, std::int64_t max) {
  std::int64_t number = 0;
  auto [end, ec] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (ec != std::errc{} || end != text.data() + text.size())
    return fail(ErrorKind::invalid, fmt::format("'{}' is not a whole number", text));
  if (number < min || number > max) return fail(ErrorKind::invalid, fmt::format("{} is not between {} and {}", number, min, max));
  return number;
}

Result<bool> parse_bool(std::string_view text) {
  auto t = lower(text);
  if (t == "true" || t == "1" || t == "yes" || t == "on") return true;
  if (t == "false" || t == "0" || t == "no" || t == "off") return false;
  return fail(ErrorKind::invalid, fmt::format("'{}' is neither true nor false", text));
}

WallTime time_of_unix(std::int64_t seconds) {
  // The clock counts nanoseconds in 64 bits; some room is left for fractions and for arithmetic.
  constexpr std::int64_t furthest = 9'223'372'000;
  return WallTime(std::chrono::seconds(std::clamp(seconds, -furthest, furthest)));
}

std::string format_time(WallTime time) {
  if (time == WallTime{}) return "0001-01-01T00:00:00Z";
  auto since = time.time_since_epoch();
  auto seconds = std::chrono::floor<std::chrono::seconds>(since);
  auto nanos = std::chrono::duration_cast<std::chrono::nanoseconds>(since - seconds).count();
  std::time_t t = seconds.count();
  std::tm tm{};
  gmtime_r(&t, &tm);
  auto text = fmt::format("{:04}-{:02}-{:02}T{:02}:{:02}:{:02}", tm.tm_year + 1900, tm.tm_mon + 1, tm.tm_mday, tm.tm_hour,
                          tm.tm_min, tm.tm_sec);
  if (nanos != 0) {
    auto fraction = fmt::format(".{:09}", nanos);
    while (fraction.back() == '0') fraction.pop_back();
    text += fraction;
  }
  return text + "Z";
}

Result<WallTime> parse_time(std::string_view text) {
  auto bad = [&] { return fail(ErrorKind::invalid, fmt::format("'{}' is not a time: write it as 2026-01-31T12:00:00Z", text)); };
  if (text == "0001-01-01T00:00:00Z") return WallTime{};
  auto number = [&](std::size_t at, std::size_t size) -> int {
    int n = -1;
    if (at + size > text.size()) return -1;
    auto [end, ec] = std::from_chars(text.data() + at, text.data() + at + size, n);
    return ec == std::errc{} && end == text.data() + at + size ? n : -1;
  };
  if (text.size() < 20 || text[4] != '-' || text[7] != '-' || (text[10] != 'T' && text[10] != 't') || text[13] != ':' ||
      text[16] != ':')
    return bad();
  std::tm tm{};
  const int year = number(0, 4), month = number(5, 2), day = number(8, 2), hour = number(11, 2), minute = number(14, 2),
            second = number(17, 2);
  if (year < 1 || month < 1 || month > 12 || day < 1 || day > 31 || hour < 0 || hour > 23 || minute < 0 || minute > 59 ||
      second < 0 || second > 60)
    return bad();
  tm.tm_year = year - 1900, tm.tm_mon = month - 1, tm.tm_mday = day, tm.tm_hour = hour, tm.tm_min = minute;
  const std::int64_t unix_time = std::int64_t{timegm(&tm)} + second;
  if (tm.tm_mday != day) return bad();  // the 31st of a shorter month
  std::chrono::nanoseconds fraction{0};
  std::size_t at = 19;
  if (text[at] == '.') {
    std::int64_t nanos = 0, scale = 100'000'000;
    for (++at; at < text.size() && text[at] >= '0' && text[at] <= '9'; ++at) {
      nanos += (text[at] - '0') * scale;
      scale /= 10;
    }
    if (at == 20) return bad();
    fraction = std::chrono::nanoseconds(nanos);
  }
  if (at >= text.size()) return bad();
  const auto with_offset = [&](std::int64_t offset) { return time_of_unix(unix_time - offset) + fraction; };
  if (text[at] == 'Z' || text[at] == 'z') return at + 1 == text.size() ? Result<WallTime>(with_offset(0)) : bad();
  if ((text[at] != '+' && text[at] != '-') || text.size() != at + 6 || text[at + 3] != ':') return bad();
  const int oh = number(at + 1, 2), om = number(at + 4, 2);
  if (oh < 0 || oh > 23 || om < 0 || om > 59) return bad();
  const std::int64_t offset = (oh * 60 + om) * 60;
  return with_offset(text[at] == '+' ? offset : -offset);
}

}  // namespace virga
