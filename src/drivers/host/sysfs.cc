#include "drivers/host/sysfs.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <cstdlib>
#include <filesystem>

#include "io/file.h"

namespace virga::host {

namespace fs = std::filesystem;

std::string text(const std::string& path) {
  auto out = io::read_file(path, 1u << 20).value_or("");
  while (!out.empty() && (std::isspace(static_cast<unsigned char>(out.back())) != 0 || out.back() == '\0')) out.pop_back();
  const auto begin = std::find_if(out.begin(), out.end(), [](char c) { return std::isspace(static_cast<unsigned char>(c)) == 0; });
  out.erase(out.begin(), begin);
  // What hardware says of itself need not be UTF-8; JSON must be.
  for (char& c : out)
    if (static_cast<unsigned char>(c) >= 0x80 || (static_cast<unsigned char>(c) < 0x20 && c != '\n')) c = '?';
  return out;
}

std::optional<std::int64_t> number(const std::string& path) {
  const auto value = text(path);
  char* end = nullptr;
  const auto out = std::strtoll(value.c_str(), &end, value.starts_with("0x") ? 16 : 10);
  return end == value.c_str() ? std::nullopt : std::optional<std::int64_t>(out);
}

std::uint64_t number_or(const std::string& path, std::uint64_t fallback) {
  const auto value = number(path);
  return value && *value >= 0 ? static_cast<std::uint64_t>(*value) : fallback;
}

std::string hex_id(const std::string& path) {
  auto out = text(path);
  return out.starts_with("0x") ? out.substr(2) : out;
}

std::vector<std::string> names(const std::string& directory) {
  std::vector<std::string> out;
  std::error_code ec;
  for (fs::directory_iterator it(directory, ec), end; !ec && it != end; it.increment(ec)) out.push_back(it->path().filename());
  std::sort(out.begin(), out.end());
  return out;
}

bool is_there(const std::string& path) {
  std::error_code ec;
  return fs::exists(path, ec);
}

std::string link_name(const std::string& path) {
  std::error_code ec;
  const auto target = fs::read_symlink(path, ec);
  return ec ? std::string() : target.filename().string();
}

std::string real_path(const std::string& path) {
  std::error_code ec;
  const auto out = fs::canonical(path, ec);
  return ec ? std::string() : out.string();
}

std::vector<std::uint64_t> number_list(std::string_view list) {
  std::vector<std::uint64_t> out;
  while (!list.empty()) {
    const auto comma = std::min(list.find(','), list.size());
    const std::string item(list.substr(0, comma));
    char* end = nullptr;
    const auto first = std::strtoull(item.c_str(), &end, 10);
    if (end == item.c_str()) return out;
    const auto last = *end == '-' ? std::strtoull(end + 1, nullptr, 10) : first;
    for (auto n = first; n <= last && out.size() < 65'536; ++n) out.push_back(n);
    list.remove_prefix(std::min(comma + 1, list.size()));
  }
  return out;
}

std::string pci_address(const std::string& real_device) {
  std::string out;
  for (const auto& part : fs::path(real_device)) {
    const auto name = part.string();
    if (name.size() == 12 && name[4] == ':' && name[7] == ':' && name[10] == '.') out = name;
  }
  return out;
}

std::string usb_address(const std::string& real_device) {
  for (fs::path at(real_device); at.has_relative_path(); at = at.parent_path()) {
    const auto bus = number(at / "busnum"), device = number(at / "devnum");
    if (bus && device) return fmt::format("{}:{}", *bus, *device);
  }
  return {};
}

std::uint64_t numa_node(const std::string& device) {
  return number_or(device + "/numa_node", 0);
}

}  // namespace virga::host
