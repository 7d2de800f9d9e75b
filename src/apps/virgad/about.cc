#include "apps/virgad/about.h"

#include <sys/utsname.h>

#include <algorithm>
#include <string_view>

#include "base/version.h"
#include "drivers/host/resources.h"
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
  about.resources =
      [host = host::Host{.roots = {}, .architecture = about.kernel_architecture, .kernel_version = about.kernel_version}] {
        return host::resources(host);
      };
  return about;
}

}  // namespace virga::virgad
