#include "apps/virga/text.h"

#include <fmt/format.h>
#include <wchar.h>

#include <array>
#include <ctime>

namespace virga::cli {
namespace {

struct Decoded {
  char32_t character = 0;
  std::size_t size = 0;  ///< 0: not UTF-8
};

Decoded decode(std::string_view text) {
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned char first = byte(0);
  if (first < 0x80) return {first, 1};
  const std::size_t size = first >= 0xf0 && first < 0xf5 ? 4 : first >= 0xe0 ? 3 : first >= 0xc2 ? 2 : 0;
  if (size == 0 || first >= 0xf5 || text.size() < size) return {};
  char32_t c = first & (0x7fu >> size);
  for (std::size_t i = 1; i < size; ++i) {
    if ((byte(i) & 0xc0) != 0x80) return {};
    c = (c << 6) | (byte(i) & 0x3f);
  }
  constexpr std::array<char32_t, 5> least{0, 0, 0x80, 0x800, 0x10000};
  if (c < least[size] || (c >= 0xd800 && c < 0xe000) || c > 0x10ffff) return {};
  return {c, size};
}

/// C0, DEL, C1, and the invisible marks that reorder or hide text.
bool must_be_escaped(char32_t c) {
  return c < 0x20 || (c >= 0x7f && c < 0xa0) || (c >= 0x200b && c <= 0x200f) || (c >= 0x2028 && c <= 0x202e) ||
         (c >= 0x2060 && c <= 0x206f) || c == 0xfeff || (c >= 0xfff9 && c <= 0xfffb) || (c >= 0xe0000 && c <= 0xe007f);
}

std::string escape(std::string_view text, bool keep_lines) {
  std::string out;
  out.reserve(text.size());
  while (!text.empty()) {
    const auto [c, size] = decode(text);
    if (size == 0) {
      out += fmt::format("\\x{:02x}", static_cast<unsigned char>(text[0]));
      text.remove_prefix(1);
      continue;
    }
    if (!must_be_escaped(c) || (keep_lines && (c == '\n' || c == '\t'))) {
      out.append(text.substr(0, size));
    } else if (c == '\n') {
      out += "\\n";
    } else if (c == '\t') {
      out += "\\t";
    } else if (c == '\r') {
      out += "\\r";
    } else if (c < 0x80) {
      out += fmt::format("\\x{:02x}", static_cast<unsigned>(c));
    } else {
      out += fmt::format("\\u{:04x}", static_cast<unsigned>(c));
    }
    text.remove_prefix(size);
  }
  return out;
}

std::string scaled(std::int64_t bytes, double base, const std::array<std::string_view, 6>& units) {
  auto value = static_cast<double>(bytes);
  if (value < base) return fmt::format("{}B", bytes);
  std::size_t unit = 0;
  for (value /= base; value >= base && unit + 1 < units.size(); value /= base) ++unit;
  return fmt::format("{:.2f}{}", value, units[unit]);
}

bool is_digit(char c) {
  return c >= '0' && c <= '9';
}

}  // namespace

std::string escaped(std::string_view text) {
  return escape(text, true);
}
std::string escaped_line(std::string_view text) {
  return escape(text, false);
}

std::string json_quoted(std::string_view text) {
  std::string out = "\"";
  while (!text.empty()) {
    const auto [c, size] = decode(text);
    if (size == 0) {
      out += "\\ufffd";
    } else if (c == '"' || c == '\\') {
      out += '\\';
      out += static_cast<char>(c);
    } else if (c == '\n') {
      out += "\\n";
    } else if (c == '\t') {
      out += "\\t";
    } else if (c == '\r') {
      out += "\\r";
    } else if (c >= 0x10000 && must_be_escaped(c)) {
      out +=
          fmt::format("\\u{:04x}\\u{:04x}", 0xd7c0 + (static_cast<unsigned>(c) >> 10), 0xdc00 + (static_cast<unsigned>(c) & 0x3ff));
    } else if (must_be_escaped(c)) {
      out += fmt::format("\\u{:04x}", static_cast<unsigned>(c));
    } else {
      out.append(text.substr(0, size));
    }
    text.remove_prefix(size == 0 ? 1 : size);
  }
  return out + "\"";
}

std::size_t display_width(std::string_view text) {
  std::size_t width = 0;
  while (!text.empty()) {
    const auto [c, size] = decode(text);
    const int columns = size == 0 ? 1 : ::wcwidth(static_cast<wchar_t>(c));
    width += columns < 0 ? 1 : static_cast<std::size_t>(columns);
    text.remove_prefix(size == 0 ? 1 : size);
  }
  return width;
}

std::size_t bytes_that_fit(std::string_view text, std::size_t columns) {
  std::size_t bytes = 0, width = 0;
  while (bytes < text.size()) {
    std::size_t size = 1;
    while (bytes + size < text.size() && (static_cast<unsigned char>(text[bytes + size]) & 0xc0) == 0x80) ++size;
    width += display_width(text.substr(bytes, size));
    if (width > columns && bytes > 0) break;
    bytes += size;
  }
  return bytes;
}

std::vector<std::string> wrapped(std::string_view text, std::size_t columns) {
  std::vector<std::string> out;
  while (display_width(text) > columns) {
    auto bytes = bytes_that_fit(text, columns);
    const auto space = bytes < text.size() && text[bytes] == ' ' ? bytes : text.rfind(' ', bytes - 1);
    const bool at_space = space != std::string_view::npos && space > 0;
    if (at_space) bytes = space;
    out.emplace_back(text.substr(0, bytes));
    text.remove_prefix(at_space ? bytes + 1 : bytes);
  }
  out.emplace_back(text);
  return out;
}

std::string upper(std::string_view text) {
  std::string out(text);
  for (char& c : out)
    if (c >= 'a' && c <= 'z') c = static_cast<char>(c - 'a' + 'A');
  return out;
}

bool natural_less(std::string_view a, std::string_view b) {
  while (!a.empty() && !b.empty()) {
    if (is_digit(a[0]) && is_digit(b[0])) {
      auto number = [](std::string_view& text) {
        std::size_t n = 0;
        while (n < text.size() && is_digit(text[n])) ++n;
        auto digits = text.substr(0, n);
        text.remove_prefix(n);
        while (digits.size() > 1 && digits[0] == '0') digits.remove_prefix(1);
        return digits;
      };
      auto x = number(a), y = number(b);
      if (x.size() != y.size()) return x.size() < y.size();
      if (x != y) return x < y;
      continue;
    }
    if (a[0] != b[0]) return static_cast<unsigned char>(a[0]) < static_cast<unsigned char>(b[0]);
    a.remove_prefix(1);
    b.remove_prefix(1);
  }
  return a.size() < b.size();
}

std::vector<std::string> split(std::string_view text, char separator) {
  std::vector<std::string> out;
  for (;;) {
    auto end = text.find(separator);
    out.emplace_back(text.substr(0, end));
    if (end == std::string_view::npos) return out;
    text.remove_prefix(end + 1);
  }
}

std::string local_time(WallTime time) {
  const std::time_t t = std::chrono::system_clock::to_time_t(time);
  std::tm tm{};
  ::localtime_r(&t, &tm);
  char zone[16] = {};
  std::strftime(zone, sizeof zone, "%Z", &tm);
  return fmt::format("{:04}/{:02}/{:02} {:02}:{:02} {}", tm.tm_year + 1900, tm.tm_mon + 1, tm.tm_mday, tm.tm_hour, tm.tm_min, zone);
}

std::string local_time(std::string_view api_time, std::string_view never) {
  if (api_time.starts_with("0001-01-01T") || api_time.starts_with("1970-01-01T00:00:00")) return std::string(never);
  auto time = parse_time(api_time);
  return time ? local_time(*time) : std::string(never);
}

std::string binary_size(std::int64_t bytes) {
  return scaled(bytes, 1024, {"KiB", "MiB", "GiB", "TiB", "PiB", "EiB"});
}
std::string decimal_size(std::int64_t bytes) {
  return scaled(bytes, 1000, {"kB", "MB", "GB", "TB", "PB", "EB"});
}

}  // namespace virga::cli
