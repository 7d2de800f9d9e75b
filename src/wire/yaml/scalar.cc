#include "wire/yaml/scalar.h"

#include <fmt/format.h>

#include <array>
#include <charconv>
#include <cmath>
#include <string>
#include <system_error>

namespace virga::yaml {
namespace {

bool digit(char c) noexcept {
  return c >= '0' && c <= '9';
}

template <std::size_t N>
bool one_of(std::string_view s, const std::array<std::string_view, N>& words) noexcept {
  for (auto w : words)
    if (s == w) return true;
  return false;
}

constexpr std::array<std::string_view, 5> nulls = {"", "~", "null", "Null", "NULL"};
constexpr std::array<std::string_view, 11> trues = {"y", "Y", "yes", "Yes", "YES", "true", "True", "TRUE", "on", "On", "ON"};
constexpr std::array<std::string_view, 11> falses = {"n", "N", "no", "No", "NO", "false", "False", "FALSE", "off", "Off", "OFF"};
constexpr std::array<std::string_view, 12> not_finite = {".inf",  ".Inf",  ".INF",  "+.inf", "+.Inf", "+.INF",
                                                         "-.inf", "-.Inf", "-.INF", ".nan",  ".NaN",  ".NAN"};

bool all(std::string_view s, bool (*accept)(char)) noexcept {
  if (s.empty()) return false;
  for (char c : s)
    if (!accept(c)) return false;
  return true;
}

/// [-+]? (digits with '_' | 0x... | 0b... | 0o...)
bool integer(std::string_view s) noexcept {
  if (!s.empty() && (s[0] == '-' || s[0] == '+')) s.remove_prefix(1);
  if (s.empty() || !digit(s[0])) return false;
  std::string bare;  // '_' may stand anywhere behind the first digit
  for (char c : s)
    if (c != '_') bare += c;
  std::string_view b(bare);
  if (b.size() > 2 && b[0] == '0' && b[1] == 'x')
    return all(b.substr(2), [](char c) { return digit(c) || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F'); });
  if (b.size() > 2 && b[0] == '0' && b[1] == 'b') return all(b.substr(2), [](char c) { return c == '0' || c == '1'; });
  if (b.size() > 2 && b[0] == '0' && b[1] == 'o') return all(b.substr(2), [](char c) { return c >= '0' && c <= '7'; });
  return all(b, [](char c) { return digit(c); });
}

/// [-+]? (digits [. digits?] | . digits) ([eE] [-+]? digits)?, with '_' among the digits
bool decimal(std::string_view s) noexcept {
  if (!s.empty() && (s[0] == '-' || s[0] == '+')) s.remove_prefix(1);
  std::size_t i = 0, digits = 0;
  auto run = [&](bool underscores) {
    std::size_t n = 0;
    for (; i < s.size() && (digit(s[i]) || (underscores && n > 0 && s[i] == '_')); ++i) ++n;
    return n;
  };
  digits += run(true);
  if (i < s.size() && s[i] == '.') {
    ++i;
    digits += run(true);
  }
  if (digits == 0) return false;
  if (i < s.size() && (s[i] == 'e' || s[i] == 'E')) {
    ++i;
    if (i < s.size() && (s[i] == '-' || s[i] == '+')) ++i;
    if (run(false) == 0) return false;
  }
  return i == s.size();
}

/// 2001-01-01, and the same with a time of day behind it.
bool date(std::string_view s) noexcept {
  std::size_t i = 0;
  auto number = [&](std::size_t least, std::size_t most) {
    std::size_t n = 0;
    for (; i < s.size() && n < most && digit(s[i]); ++i) ++n;
    return n >= least;
  };
  auto is = [&](char c) { return i < s.size() && s[i] == c ? (++i, true) : false; };
  if (!number(4, 4) || !is('-') || !number(1, 2) || !is('-') || !number(1, 2)) return false;
  if (i == s.size()) return true;
  if (!is('T') && !is('t') && !is(' ')) return false;
  return number(1, 2) && is(':') && number(1, 2) && is(':') && number(1, 2);
}

}  // namespace

Meaning meaning_of(std::string_view s) noexcept {
  if (one_of(s, nulls)) return Meaning::null;
  if (one_of(s, trues) || one_of(s, falses)) return Meaning::boolean;
  if (one_of(s, not_finite)) return Meaning::not_finite;
  if (integer(s) || decimal(s)) return Meaning::number;
  if (date(s)) return Meaning::time;
  return Meaning::text;
}

bool looks_like_base60(std::string_view s) noexcept {
  if (!s.empty() && (s[0] == '-' || s[0] == '+')) s.remove_prefix(1);
  if (s.empty() || !digit(s[0]) || s.find(':') == std::string_view::npos) return false;
  std::size_t i = 0;
  while (i < s.size() && (digit(s[i]) || s[i] == '_')) ++i;
  bool groups = false;
  while (i + 1 < s.size() && s[i] == ':' && digit(s[i + 1])) {
    const bool two = i + 2 < s.size() && digit(s[i + 2]);
    if (two && s[i + 1] > '5') return false;
    i += two ? 3 : 2;
    groups = true;
  }
  if (i < s.size() && s[i] == '.')
    for (++i; i < s.size() && (digit(s[i]) || s[i] == '_');) ++i;
  return groups && i == s.size();
}

Result<json::value> typed(std::string_view s) {
  switch (meaning_of(s)) {
    case Meaning::null:
      return json::value(nullptr);
    case Meaning::boolean:
      // A lone letter is more often a name than an answer.
      if (s.size() == 1) return json::value(json::string(s));
      return json::value(one_of(s, trues));
    case Meaning::not_finite:
      return fail(ErrorKind::invalid, fmt::format("number '{}' is not finite", s));
    case Meaning::number: {
      std::string_view digits = s;
      const bool negative = digits[0] == '-';
      if (negative || digits[0] == '+') digits.remove_prefix(1);
      const bool hex = digits.starts_with("0x");
      if (!hex && digits.size() > 1 && digits[0] == '0' && digits[1] != '.' && digits[1] != 'e')
        break;  // 0755, 0b1: readers disagree
      if (digits.find('_') != std::string_view::npos) break;
      if (hex || digits.find_first_of(".eE") == std::string_view::npos) {
        if (hex) digits.remove_prefix(2);
        std::string text = (negative ? "-" : "") + std::string(digits);
        std::int64_t value = 0;
        auto [end, ec] = std::from_chars(text.data(), text.data() + text.size(), value, hex ? 16 : 10);
        if (ec != std::errc() || end != text.data() + text.size())
          return fail(ErrorKind::invalid, fmt::format("number '{}' does not fit 64 bits", s.substr(0, 40)));
        return json::value(value);
      }
      std::string text = (negative ? "-" : "") + std::string(digits);
      double value = 0;
      auto [end, ec] = std::from_chars(text.data(), text.data() + text.size(), value);
      if (ec != std::errc() || end != text.data() + text.size() || !std::isfinite(value))
        return fail(ErrorKind::invalid, fmt::format("number '{}' does not fit", s.substr(0, 40)));
      return json::value(value);
    }
    case Meaning::time:
    case Meaning::text:
      break;
  }
  return json::value(json::string(s));
}

}  // namespace virga::yaml
