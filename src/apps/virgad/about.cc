#include "apps/virgad/about.h"

#include <sys/utsname.h>

#include <cstdlib>
#include <map>
#include <set>
#include <string_view>

#include "base/version.h"
#include "io/file.h"

namespace virga::virgad {
namespace {

std::vector<std::string_view> lines_of(std::string_view text) {
  std::vector<std::string_view> out;
  while (!text.empty()) {
    const auto end = std::min(text.find('\n'), text.size());
    out.push_back(text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return out;
}

/// "key : value" or "KEY=value" lines; quotes around the value go.
std::pair<std::string_view, std::string_view> split(std::string_view line, char by) {
  const auto at = line.find(by);
  if (at == std::string_view::npos) return {line, {}};
  auto trim = [](std::string_view s) {
    while (!s.empty() && (s.front() == ' ' || s.front() == '\t' || s.front() == '"')) s.remove_prefix(1);
    while (!s.empty() && (s.back() == ' ' || s.back() == '\t' || s.back() == '"')) s.remove_suffix(1);
    return s;
  };
  return {trim(line.substr(0, at)), trim(line.substr(at + 1))};
}

json::object memory() {
  std::map<std::string_view, std::uint64_t> values;
  const auto text = io::read_file("/proc/meminfo").value_or("");
  for (auto line : lines_of(text)) {
    auto [key, value] = split(line, ':');
    values[key] = std::strtoull(std::string(value).c_str(), nullptr, 10) * 1024;
  }
  const auto total = values["MemTotal"], available = values["MemAvailable"];
  return {{"total", total},
          {"used", total > available ? total - available : 0},
          {"hugepages_size", values["Hugepagesize"]},
          {"hugepages_total", values["HugePages_Total"] / 1024 * values["Hugepagesize"]},
          {"hugepages_used", 0},
          {"nodes", json::array{}}};
}

json::object processors(const std::string& architecture) {
  struct Socket {
    std::string vendor, name;
    std::map<std::uint64_t, std::set<std::uint64_t>> cores;  // core id to thread numbers
  };
  std::map<std::uint64_t, Socket> sockets;
  std::uint64_t thread = 0, core = 0, socket = 0, total = 0;
  std::string vendor, name;
  auto close = [&] {
    if (name.empty() && vendor.empty()) return;
    auto& s = sockets[socket];
    s.vendor = vendor, s.name = name;
    s.cores[core].insert(thread);
    ++total;
    vendor.clear(), name.clear(), core = socket = 0;
  };
  const auto text = io::read_file("/proc/cpuinfo").value_or("");
  for (auto line : lines_of(text)) {
    auto [key, value] = split(line, ':');
    const auto number = std::strtoull(std::string(value).c_str(), nullptr, 10);
    if (key == "processor") close(), thread = number;
    if (key == "vendor_id") vendor = value;
    if (key == "model name") name = value;
    if (key == "core id") core = number;
    if (key == "physical id") socket = number;
  }
  close();
  json::array list;
  for (const auto& [number, s] : sockets) {
    json::array cores;
    for (const auto& [id, threads] : s.cores) {
      json::array numbers;
      for (auto t : threads)
        numbers.push_back({{"id", t}, {"thread", numbers.size()}, {"online", true}, {"numa_node", 0}, {"isolated", false}});
      cores.push_back({{"core", id}, {"die", 0}, {"threads", std::move(numbers)}});
    }
    list.push_back({{"socket", number}, {"vendor", s.vendor}, {"name", s.name}, {"cores", std::move(cores)}});
  }
  return {{"architecture", architecture}, {"sockets", std::move(list)}, {"total", total}};
}

}  // namespace

api::About describe_host(std::vector<std::pair<std::string, std::string>> drivers) {
  api::About about;
  about.version = version;
  utsname host{};
  if (::uname(&host) == 0) {
    about.server_name = host.nodename;
    about.kernel = host.sysname;
    about.kernel_version = host.release;
    about.kernel_architecture = host.machine;
  }
  const auto release = io::read_file("/etc/os-release").value_or("");
  for (auto line : lines_of(release)) {
    auto [key, value] = split(line, '=');
    if (key == "NAME") about.os_name = value;
    if (key == "VERSION_ID") about.os_version = value;
  }
  about.compute_drivers = std::move(drivers);
  about.resources = [architecture = about.kernel_architecture] {
    return json::object{{"cpu", processors(architecture)}, {"memory", memory()}};
  };
  return about;
}

}  // namespace virga::virgad
