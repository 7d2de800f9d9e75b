#include "engine/url.h"

namespace virga::engine {

std::string url_encode(std::string_view text) {
  static constexpr char digits[] = "0123456789ABCDEF";
  std::string out;
  out.reserve(text.size());
  for (const char c : text) {
    const bool plain =
        (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '.' || c == '_' || c == '~';
    if (plain) {
      out += c;
    } else {
      const auto byte = static_cast<unsigned char>(c);
      out += '%';
      out += digits[byte >> 4];
      out += digits[byte & 15];
    }
  }
  return out;
}

std::string url(std::initializer_list<std::string_view> parts, std::string_view project) {
  std::string out = "/1.0";
  for (auto part : parts) {
    out += '/';
    out += url_encode(part);
  }
  if (!project.empty() && project != "default") {
    out += "?project=";
    out += url_encode(project);
  }
  return out;
}

std::string describe_url(std::string_view url) {
  std::string_view path = url.substr(0, url.find('?'));
  if (path.starts_with("/1.0/")) path.remove_prefix(5);
  const auto slash = path.rfind('/');
  if (slash == std::string_view::npos || slash == 0) return "'" + std::string(url) + "'";
  const std::string_view name = path.substr(slash + 1);
  std::string_view noun = path.substr(0, slash);
  if (const auto before = noun.rfind('/'); before != std::string_view::npos) noun.remove_prefix(before + 1);
  if (noun.ends_with('s')) noun.remove_suffix(1);
  std::string words(noun);
  for (char& c : words)
    if (c == '-') c = ' ';
  return words + " '" + std::string(name) + "'";
}

}  // namespace virga::engine
