#include <fmt/format.h>

#include <map>

#include "drivers/host/resources.h"
#include "io/file.h"

namespace virga::host {
namespace {

/// "MemTotal:  123 kB" or "Node 0 MemTotal:  123 kB" in bytes; counts as they are.
std::map<std::string, std::uint64_t> read_meminfo(const std::string& path) {
  std::map<std::string, std::uint64_t> out;
  const auto all = io::read_file(path).value_or("");
  for (std::string_view rest = all; !rest.empty();) {
    const auto end = std::min(rest.find('\n'), rest.size());
    const auto line = rest.substr(0, end);
    rest.remove_prefix(std::min(end + 1, rest.size()));
    const auto colon = line.find(':');
    if (colon == std::string_view::npos) continue;
    const auto blank = line.rfind(' ', colon);
    const auto key =
        line.substr(blank == std::string_view::npos ? 0 : blank + 1, colon - (blank == std::string_view::npos ? 0 : blank + 1));
    const std::string value(line.substr(colon + 1));
    out[std::string(key)] = std::strtoull(value.c_str(), nullptr, 10) * (value.ends_with("kB") ? 1024 : 1);
  }
  return out;
}

/// What is plugged in: more than what the kernel leaves to others.
std::uint64_t installed(const std::string& directory) {
  const auto size = text(directory + "/block_size_bytes");
  const auto block = std::strtoull(size.c_str(), nullptr, 16);
  std::uint64_t sum = 0;
  for (const auto& name : names(directory))
    if (name.starts_with("memory") && name.size() > 6 && number(directory + "/" + name + "/online").value_or(0) != 0) sum += block;
  return sum;
}

std::uint64_t installed_in(const std::string& node, std::uint64_t block) {
  std::uint64_t sum = 0;
  for (const auto& name : names(node))
    if (name.starts_with("memory") && name.size() > 6 && name.find_first_not_of("0123456789", 6) == std::string::npos) sum += block;
  return sum;
}

}  // namespace

json::object memory(const Host& host) {
  auto all = read_meminfo(host.roots.proc + "/meminfo");
  const auto blocks = host.roots.sys + "/devices/system/memory";
  const auto present = installed(blocks);
  const auto total = std::max(present, all["MemTotal"]);
  const auto available = all["MemAvailable"];
  const auto page = all["Hugepagesize"];
  const auto block = std::strtoull(text(blocks + "/block_size_bytes").c_str(), nullptr, 16);
  json::array nodes;
  const auto directory = host.roots.sys + "/devices/system/node";
  for (const auto& name : names(directory)) {
    if (!name.starts_with("node") || name.find_first_not_of("0123456789", 4) != std::string::npos) continue;
    auto node = read_meminfo(directory + "/" + name + "/meminfo");
    const auto free_pages = node["HugePages_Free"], all_pages = node["HugePages_Total"];
    nodes.push_back({{"numa_node", std::strtoull(name.c_str() + 4, nullptr, 10)},
                     {"total", std::max(installed_in(directory + "/" + name, block), node["MemTotal"])},
                     {"used", node["MemUsed"]},
                     {"hugepages_total", all_pages * page},
                     {"hugepages_used", (all_pages - std::min(all_pages, free_pages)) * page}});
  }
  const auto free_pages = all["HugePages_Free"], all_pages = all["HugePages_Total"];
  return {{"total", total},
          {"used", all["MemTotal"] > available ? all["MemTotal"] - available : 0},
          {"hugepages_size", page},
          {"hugepages_total", all_pages * page},
          {"hugepages_used", (all_pages - std::min(all_pages, free_pages)) * page},
          {"nodes", std::move(nodes)}};
}

}  // namespace virga::host
