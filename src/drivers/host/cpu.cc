#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <set>
#include <tuple>

#include "drivers/host/resources.h"
#include "io/file.h"

namespace virga::host {
namespace {

/// One logical processor of /proc/cpuinfo.
struct Info {
  std::string vendor, name;
  std::vector<std::string> flags;
  std::uint64_t mhz = 0, physical_bits = 0, virtual_bits = 0;
};

std::vector<std::string> words(std::string_view line) {
  std::vector<std::string> out;
  while (!line.empty()) {
    const auto blank = std::min(line.find(' '), line.size());
    if (blank > 0) out.emplace_back(line.substr(0, blank));
    line.remove_prefix(std::min(blank + 1, line.size()));
  }
  return out;
}

std::map<std::uint64_t, Info> read_cpuinfo(const Host& host) {
  std::map<std::uint64_t, Info> out;
  Info* current = nullptr;
  const auto all = io::read_file(host.roots.proc + "/cpuinfo").value_or("");
  for (std::string_view rest = all; !rest.empty();) {
    const auto end = std::min(rest.find('\n'), rest.size());
    const auto line = rest.substr(0, end);
    rest.remove_prefix(std::min(end + 1, rest.size()));
    const auto colon = line.find(':');
    if (colon == std::string_view::npos) continue;
    auto key = line.substr(0, line.find_last_not_of(" \t", colon - 1) + 1);
    const std::string value(line.substr(std::min(line.size(), colon + 2)));
    if (key == "processor") current = &out[std::strtoull(value.c_str(), nullptr, 10)];
    if (current == nullptr) continue;
    if (key == "vendor_id" || key == "CPU implementer") current->vendor = value;
    if (key == "model name" || key == "cpu") current->name = value;
    if (key == "flags" || key == "Features") current->flags = words(value);
    if (key == "cpu MHz") current->mhz = static_cast<std::uint64_t>(std::strtod(value.c_str(), nullptr));
    if (key == "address sizes") {
      char* bits = nullptr;
      current->physical_bits = std::strtoull(value.c_str(), &bits, 10);
      if (const auto comma = value.find(", "); comma != std::string::npos)
        current->virtual_bits = std::strtoull(value.c_str() + comma + 2, nullptr, 10);
    }
  }
  return out;
}

std::uint64_t size_of(std::string value) {
  std::uint64_t factor = 1;
  if (value.ends_with('K')) factor = 1u << 10;
  if (value.ends_with('M')) factor = 1u << 20;
  return std::strtoull(value.c_str(), nullptr, 10) * factor;
}

/// As the first processor of a socket sees its caches.
json::array caches(const std::string& directory) {
  json::array out;
  for (const auto& name : names(directory + "/cache")) {
    if (!name.starts_with("index")) continue;
    const auto at = directory + "/cache/" + name;
    out.push_back({{"level", number_or(at + "/level", 0)}, {"type", text(at + "/type")}, {"size", size_of(text(at + "/size"))}});
  }
  return out;
}

/// NUMA node by processor.
std::map<std::uint64_t, std::uint64_t> nodes(const Host& host) {
  std::map<std::uint64_t, std::uint64_t> out;
  const auto directory = host.roots.sys + "/devices/system/node";
  for (const auto& name : names(directory)) {
    if (!name.starts_with("node") || name.find_first_not_of("0123456789", 4) != std::string::npos) continue;
    for (auto cpu : number_list(text(directory + "/" + name + "/cpulist"))) out[cpu] = std::strtoull(name.c_str() + 4, nullptr, 10);
  }
  return out;
}

struct Core {
  json::array threads;
  std::vector<std::string> flags;
  std::uint64_t mhz = 0;
};
struct Socket {
  std::string first;  ///< directory of its first processor
  std::uint64_t first_id = 0;
  std::map<std::tuple<std::uint64_t, std::uint64_t, std::uint64_t>, Core> cores;  ///< die, cluster, core
};

std::uint64_t mhz_of(const std::string& file) {
  return number_or(file, 0) / 1000;
}

json::object socket_json(std::uint64_t id, Socket& socket, const std::map<std::uint64_t, Info>& info) {
  json::object out{{"socket", id}};
  const auto known = info.find(socket.first_id);
  const Info none;
  const auto& first = known == info.end() ? none : known->second;
  out["name"] = first.name;
  out["vendor"] = first.vendor;
  if (first.physical_bits != 0)
    out["address_sizes"] = json::object{{"physical_bits", first.physical_bits}, {"virtual_bits", first.virtual_bits}};
  out["cache"] = caches(socket.first);
  json::array cores;
  std::uint64_t sum = 0;
  for (auto& [key, core] : socket.cores) {
    json::object one{{"core", std::get<2>(key)}, {"die", std::get<0>(key)}, {"cluster", std::get<1>(key)}};
    one["threads"] = std::move(core.threads);
    one["flags"] = json::value_from(core.flags);
    if (core.mhz != 0) one["frequency"] = core.mhz;
    sum += core.mhz;
    cores.push_back(std::move(one));
  }
  const auto scaling = socket.first + "/cpufreq/";
  if (sum != 0) out["frequency"] = sum / std::max<std::size_t>(1, cores.size());
  if (auto least = mhz_of(scaling + "cpuinfo_min_freq"); least != 0) out["frequency_minimum"] = least;
  if (auto most = mhz_of(scaling + "cpuinfo_max_freq"); most != 0) out["frequency_turbo"] = most;
  out["cores"] = std::move(cores);
  return out;
}

}  // namespace

json::object cpu(const Host& host) {
  const auto info = read_cpuinfo(host);
  const auto node_of = nodes(host);
  const auto directory = host.roots.sys + "/devices/system/cpu";
  const auto isolated = number_list(text(directory + "/isolated"));
  std::map<std::uint64_t, Socket> sockets;
  std::uint64_t total = 0;
  for (auto id : number_list(text(directory + "/present"))) {
    const auto at = fmt::format("{}/cpu{}", directory, id);
    const auto topology = at + "/topology/";
    const bool online = number(at + "/online").value_or(1) != 0;
    auto& socket = sockets[number_or(topology + "physical_package_id", 0)];
    if (socket.first.empty()) {
      socket.first = at;
      socket.first_id = id;
    }
    auto cluster = number_or(topology + "cluster_id", 0);
    if (cluster == 65'535) cluster = 0;  // the kernel's word for "none"
    auto& core = socket.cores[{number_or(topology + "die_id", 0), cluster, number_or(topology + "core_id", id)}];
    if (const auto known = info.find(id); known != info.end()) {
      core.flags = known->second.flags;
      if (core.mhz == 0) core.mhz = known->second.mhz;
    }
    if (auto now = mhz_of(at + "/cpufreq/scaling_cur_freq"); now != 0) core.mhz = now;
    const auto node = node_of.find(id);
    core.threads.push_back({{"id", id},
                            {"numa_node", node == node_of.end() ? 0 : node->second},
                            {"thread", core.threads.size()},
                            {"online", online},
                            {"isolated", std::find(isolated.begin(), isolated.end(), id) != isolated.end()}});
    ++total;
  }
  json::array list;
  for (auto& [id, socket] : sockets) list.push_back(socket_json(id, socket, info));
  return {{"architecture", host.architecture}, {"sockets", std::move(list)}, {"total", total}};
}

}  // namespace virga::host
