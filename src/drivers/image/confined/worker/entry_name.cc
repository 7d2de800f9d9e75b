#include "drivers/image/confined/worker/entry_name.h"

#include <fmt/format.h>

namespace virga::image {
namespace {

tl::unexpected<Error> refuse(std::string_view raw, std::string_view why) {
  return fail(ErrorKind::invalid, fmt::format("entry '{}': {}", printable(raw), why));
}

}  // namespace

std::string printable(std::string_view name) {
  std::string out(name.substr(0, 100));
  for (char& c : out)
    if (c < 0x20 || c == 0x7f || c == '\'') c = '?';
  if (name.size() > 100) out += "...";
  return out;
}

Result<std::string> clean_name(std::string_view raw) {
  if (raw.empty()) return refuse(raw, "the name is empty");
  if (raw.size() > 4095) return refuse(raw, "the name is longer than 4095 bytes");
  if (raw.find('\0') != std::string_view::npos) return refuse(raw, "the name holds a NUL");
  if (raw.front() == '/') return refuse(raw, "the name is absolute");
  std::string_view name = raw;
  if (name == "." || name == "./") return std::string();
  if (name.starts_with("./")) name.remove_prefix(2);
  if (name.ends_with('/')) name.remove_suffix(1);
  std::size_t depth = 0;
  for (std::string_view rest = name;;) {
    const auto slash = rest.find('/');
    const auto part = rest.substr(0, slash);
    if (part.empty()) return refuse(raw, "a part of the name is empty");
    if (part == "." || part == "..") return refuse(raw, "the name holds '.' or '..'");
    if (part.size() > 255) return refuse(raw, "a part of the name is longer than 255 bytes");
    if (++depth > max_entry_depth) return refuse(raw, fmt::format("deeper than {} directories", max_entry_depth));
    if (slash == std::string_view::npos) return std::string(name);
    rest.remove_prefix(slash + 1);
  }
}

std::pair<std::string_view, std::string_view> split_name(std::string_view clean) noexcept {
  const auto slash = clean.rfind('/');
  if (slash == std::string_view::npos) return {{}, clean};
  return {clean.substr(0, slash), clean.substr(slash + 1)};
}

}  // namespace virga::image
