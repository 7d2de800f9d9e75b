// Counters: QEMU's own from /proc, the guest's view from its agent where that answers in time.
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>

#include "drivers/compute/qemu/guest.h"
#include "io/file.h"
#include "io/netlink.h"

namespace virga::compute::qemu_driver {
namespace {

constexpr Milliseconds agent_time{1'000};
constexpr Milliseconds monitor_time{1'000};
constexpr std::size_t max_disks = 64;

struct HostSide {
  std::uint64_t user_ns = 0, system_ns = 0;
  Bytes resident = 0;
  Bytes peak = 0;
  std::vector<io::Link> links;
};

std::uint64_t number(std::string_view text) {
  std::uint64_t v = 0;
  text.remove_prefix(std::min(text.find_first_not_of(" \t"), text.size()));
  std::from_chars(text.data(), text.data() + text.size(), v);
  return v;
}

/// Fields 14 and 15 of /proc/PID/stat, behind the name in parentheses.
void read_ticks(std::string_view stat, HostSide& into) {
  const auto close = stat.rfind(')');
  if (close == std::string_view::npos) return;
  stat.remove_prefix(close + 1);
  const auto tick = 1'000'000'000ull / static_cast<std::uint64_t>(::sysconf(_SC_CLK_TCK));
  for (int field = 3; field <= 15; ++field) {
    stat.remove_prefix(std::min(stat.find_first_not_of(' '), stat.size()));
    const auto end = std::min(stat.find(' '), stat.size());
    if (field == 14) into.user_ns = number(stat.substr(0, end)) * tick;
    if (field == 15) into.system_ns = number(stat.substr(0, end)) * tick;
    stat.remove_prefix(end);
  }
}

Bytes status_field(std::string_view status, std::string_view name) {
  const auto at = status.find(name);
  return at == std::string_view::npos ? 0 : number(status.substr(at + name.size())) * 1024;
}

HostSide read_host_side(pid_t pid, bool nics) {
  HostSide h;
  const auto stat = io::read_file(fmt::format("/proc/{}/stat", pid)).value_or("");
  const auto status = io::read_file(fmt::format("/proc/{}/status", pid)).value_or("");
  read_ticks(stat, h);
  h.resident = status_field(status, "VmRSS:");
  h.peak = status_field(status, "VmHWM:");
  if (!nics) return h;
  if (auto netlink = io::Netlink::open()) h.links = netlink->links().value_or(std::vector<io::Link>{});
  return h;
}

const Nic* nic_of(const Guest& guest, std::string_view mac) {
  for (const auto& nic : guest.nics)
    if (nic.mac.size() == mac.size() &&
        std::equal(mac.begin(), mac.end(), nic.mac.begin(), [](char a, char b) { return std::tolower(a) == std::tolower(b); }))
      return &nic;
  return nullptr;
}

std::string netmask(const agent::GuestState::Address& a) {
  return std::to_string(a.prefix);
}

GuestStats::Interface from_agent(const Guest& guest, agent::GuestState::Interface&& i) {
  GuestStats::Interface out;
  if (const auto* nic = nic_of(guest, i.mac)) out.host_name = nic->host_name;
  out.name = std::move(i.name);
  out.mac = std::move(i.mac);
  out.state = std::move(i.state);
  out.type = std::move(i.type);
  out.mtu = i.mtu;
  out.bytes_in = i.bytes_in;
  out.bytes_out = i.bytes_out;
  out.packets_in = i.packets_in;
  out.packets_out = i.packets_out;
  out.errors_in = i.errors_in;
  out.errors_out = i.errors_out;
  out.dropped_in = i.dropped_in;
  out.dropped_out = i.dropped_out;
  for (auto& a : i.addresses) out.addresses.push_back({a.ipv6 ? "inet6" : "inet", a.address, netmask(a), a.scope});
  return out;
}

/// What the host sees of a NIC whose guest tells nothing: the tap's counters, the other way round.
GuestStats::Interface from_host(const Nic& nic, const std::vector<io::Link>& links) {
  GuestStats::Interface out;
  out.name = nic.device;
  out.host_name = nic.host_name;
  out.mac = nic.mac;
  out.mtu = nic.mtu;
  out.type = "broadcast";
  for (const auto& link : links) {
    if (link.name != nic.host_name) continue;
    out.state = link.up ? "up" : "down";
    out.bytes_in = link.counters.tx_bytes;
    out.bytes_out = link.counters.rx_bytes;
    out.packets_in = link.counters.tx_packets;
    out.packets_out = link.counters.rx_packets;
  }
  return out;
}

std::uint64_t counter(const json::object& object, std::string_view name) {
  const auto* value = object.if_contains(name);
  if (value == nullptr) return 0;
  return value->is_uint64() ? value->get_uint64()
                            : static_cast<std::uint64_t>(value->is_int64() ? std::max<std::int64_t>(0, value->get_int64()) : 0);
}

/// QEMU's own counts of each disk of the guest. One that does not answer soon is not waited for.
Task<std::vector<GuestStats::Disk>> disk_counters(GuestPtr guest) {
  std::vector<GuestStats::Disk> out;
  auto answer = co_await command(guest, "query-blockstats", {}, monitor_time);
  if (!answer || !answer->is_array()) co_return out;
  for (const auto& item : answer->get_array()) {
    const auto* object = item.if_object();
    const auto* stats = object != nullptr ? object->if_contains("stats") : nullptr;
    if (stats == nullptr || !stats->is_object()) continue;
    std::string name;
    for (const char* key : {"device", "qdev", "node-name"})
      if (const auto* value = object->if_contains(key); name.empty() && value != nullptr && value->is_string())
        name = value->get_string();
    // A device that is plugged by its id is shown by its path: "/machine/peripheral/root/virtio-backend".
    if (name.ends_with("/virtio-backend")) name.resize(name.size() - 15);
    name.erase(0, name.rfind('/') + 1);
    if (name.empty() || out.size() >= max_disks) continue;
    const auto& s = stats->get_object();
    out.push_back({std::move(name), counter(s, "rd_bytes"), counter(s, "wr_bytes"), counter(s, "rd_operations"),
                   counter(s, "wr_operations")});
  }
  co_return out;
}

}  // namespace

Task<Result<GuestStats>> guest_stats(CorePtr core, GuestPtr guest) {
  const bool ask = guest->state == State::running && guest->agent && guest->agent->ready();
  std::optional<agent::GuestState> told;
  if (ask)
    if (auto answer = co_await guest->agent->state(agent_time)) told = std::move(*answer);
  std::vector<GuestStats::Disk> disks;
  if (guest->state == State::running) disks = co_await disk_counters(guest);
  auto host = co_await core->options.pool.run(
      [pid = guest->pid, nics = !told && !guest->nics.empty()] { return read_host_side(pid, nics); });
  GuestStats stats;
  stats.cpu_ns = host.user_ns + host.system_ns;
  stats.cpu_user_ns = host.user_ns;
  stats.cpu_system_ns = host.system_ns;
  stats.cpus = guest->cpus;
  stats.disks = std::move(disks);
  stats.memory_peak = host.peak;
  stats.memory_used = host.resident;
  stats.memory_total = guest->memory_mib << 20;
  if (told) {
    stats.processes = static_cast<std::int64_t>(std::min<std::uint64_t>(told->processes, 1u << 30));
    // A guest that claims more than it has is not believed.
    stats.memory_used = std::min(told->memory_used, stats.memory_total);
    stats.os_name = std::move(told->os_name);
    stats.os_version = std::move(told->os_version);
    stats.kernel_version = std::move(told->kernel);
    stats.host_name = std::move(told->host_name);
    for (auto& i : told->interfaces) stats.interfaces.push_back(from_agent(*guest, std::move(i)));
  } else {
    for (const auto& nic : guest->nics) stats.interfaces.push_back(from_host(nic, host.links));
  }
  co_return stats;
}

}  // namespace virga::compute::qemu_driver
