#include "model/name.h"

#include <fmt/format.h>

#include <algorithm>
#include <vector>

namespace virga {
namespace {

bool letter(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}
bool digit(char c) {
  return c >= '0' && c <= '9';
}
bool one_of(char c, std::string_view set) {
  return set.find(c) != std::string_view::npos;
}

/// Characters that make a text look like another one: controls beyond ASCII (U+0080 to U+009F), marks that turn the direction of
/// writing, and what has no width. In UTF-8.
bool deceives(std::string_view text) {
  for (std::size_t i = 0; i + 1 < text.size(); ++i) {
    const auto a = static_cast<unsigned char>(text[i]), b = static_cast<unsigned char>(text[i + 1]);
    const auto c = i + 2 < text.size() ? static_cast<unsigned char>(text[i + 2]) : 0;
    if (a == 0xc2 && b < 0xa0) return true;
    if (a == 0xe2 && b == 0x80 && ((c >= 0x8b && c <= 0x8f) || (c >= 0xa8 && c <= 0xae))) return true;
    if (a == 0xe2 && b == 0x81 && c >= 0xa0 && c <= 0xaf) return true;
    if (a == 0xef && b == 0xbb && c == 0xbf) return true;
  }
  return false;
}

/// A stranger's text inside an error message: short, and without characters that play tricks on a terminal.
std::string shown(std::string_view text) {
  std::string out;
  for (char c : text.substr(0, 80)) out += static_cast<unsigned char>(c) < 0x20 || c == 0x7f ? '?' : c;
  if (text.size() > 80) out += "...";
  return out;
}

}  // namespace

Result<> check_instance_name(std::string_view name) {
  const bool ok = !name.empty() && name.size() <= 63 && letter(name.front()) && name.back() != '-' &&
                  std::all_of(name.begin(), name.end(), [](char c) { return letter(c) || digit(c) || c == '-'; });
  if (ok) return {};
  return invalid(
      "name",
      fmt::format(
          "invalid instance name '{}': use 1 to 63 letters, digits and dashes, begin with a letter and do not end with a dash",
          shown(name)));
}

Result<> check_object_name(std::string_view noun, std::string_view name) {
  const bool ok = !name.empty() && name.size() <= 63 && (letter(name.front()) || digit(name.front())) &&
                  std::all_of(name.begin(), name.end(), [](char c) { return letter(c) || digit(c) || one_of(c, "._-"); });
  if (ok) return {};
  return invalid(
      "name", fmt::format("invalid {} name '{}': use 1 to 63 letters, digits, '.', '_' and '-', and begin with a letter or digit",
                          noun, shown(name)));
}

Result<> check_interface_name(std::string_view field, std::string_view name) {
  const bool ok = name.size() >= 2 && name.size() <= 15 && letter(name.front()) &&
                  std::all_of(name.begin(), name.end(), [](char c) { return letter(c) || digit(c) || one_of(c, "._-"); });
  if (ok) return {};
  return invalid(std::string(field),
                 fmt::format("invalid interface name '{}': use 2 to 15 letters, digits, '.', '_' and '-', and begin with a letter",
                             shown(name)));
}

Result<> check_device_name(std::string_view name) {
  const bool ok = !name.empty() && name.size() <= 64 && name != "." && name != ".." && name.front() != '-' &&
                  std::all_of(name.begin(), name.end(), [](char c) { return letter(c) || digit(c) || one_of(c, "._-:"); });
  if (ok) return {};
  return invalid(
      "devices",
      fmt::format("invalid device name '{}': use 1 to 64 letters, digits, '.', '_', '-' and ':', and do not begin with '-'",
                  shown(name)));
}

Result<> check_alias_name(std::string_view name) {
  bool ok =
      !name.empty() && name.size() <= 200 && name.front() != '/' && name.back() != '/' && name.front() != '-' && !deceives(name);
  for (char c : name) ok = ok && static_cast<unsigned char>(c) > 0x20 && c != 0x7f && !one_of(c, "\"'\\`$%?#&;<>|*");
  std::size_t at = 0;
  while (ok && at <= name.size()) {
    auto end = std::min(name.find('/', at), name.size());
    auto part = name.substr(at, end - at);
    ok = !part.empty() && part != "." && part != "..";
    at = end + 1;
  }
  if (ok) return {};
  return invalid(
      "name",
      fmt::format("invalid name '{}' of an image alias: use 1 to 200 characters such as 'debian/12', without blanks or quotes",
                  shown(name)));
}

Result<> check_description(std::string_view text) {
  bool ok = text.size() <= 1024 && !deceives(text);
  for (char c : text) ok = ok && (static_cast<unsigned char>(c) >= 0x20 || c == '\t' || c == '\n') && c != 0x7f;
  if (ok) return {};
  return invalid("description", "a description has at most 1024 bytes and no control characters");
}

std::string nearest(std::string_view word, std::initializer_list<std::string_view> candidates) {
  std::string_view best;
  std::size_t best_distance = std::max<std::size_t>(2, word.size() / 3) + 1;
  for (auto c : candidates) {
    std::vector<std::size_t> row(c.size() + 1);
    for (std::size_t j = 0; j <= c.size(); ++j) row[j] = j;
    for (std::size_t i = 1; i <= word.size(); ++i) {
      std::size_t diagonal = row[0];
      row[0] = i;
      for (std::size_t j = 1; j <= c.size(); ++j) {
        const std::size_t up = row[j];
        row[j] = std::min({row[j] + 1, row[j - 1] + 1, diagonal + (word[i - 1] == c[j - 1] ? 0 : 1)});
        diagonal = up;
      }
    }
    if (row[c.size()] < best_distance) {
      best_distance = row[c.size()];
      best = c;
    }
  }
  return std::string(best);
}

std::string project_prefixed(std::string_view project, std::string_view name) {
  if (project == "default") return std::string(name);
  return fmt::format("{}_{}", project, name);
}

}  // namespace virga
