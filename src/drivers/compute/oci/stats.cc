// What the host knows of a running container: its cgroup, its network namespace, its root. The guest is not asked.
#include <fcntl.h>
#include <fmt/format.h>
#include <sched.h>
#include <sys/statvfs.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <thread>

#include "base/text.h"
#include "drivers/compute/oci/core.h"
#include "drivers/compute/oci/rootfs.h"
#include "io/fd.h"
#include "io/file.h"
#include "io/netlink.h"

namespace virga::compute::oci_driver {
namespace {

Bytes host_memory() {
  return static_cast<Bytes>(::sysconf(_SC_PHYS_PAGES)) * static_cast<Bytes>(::sysconf(_SC_PAGESIZE));
}

/// The name the guest gave itself; asked for by a thread that visits the guest's namespace and ends.
std::string host_name_of(pid_t pid) {
  auto ns = io::open_proc_link(fmt::format("/proc/{}/ns/uts", pid), O_RDONLY);
  std::string name;
  if (!ns) return name;
  std::thread visitor([&] {
    utsname uts{};
    if (::setns(ns->get(), CLONE_NEWUTS) != 0 || ::uname(&uts) != 0) return;
    for (const char* c = uts.nodename; *c != '\0'; ++c)
      if (static_cast<unsigned char>(*c) > 0x20 && static_cast<unsigned char>(*c) < 0x7f) name += *c;
  });
  visitor.join();
  return name;
}

GuestStats::Interface describe(const io::Link& link, const std::vector<io::LinkAddress>& addresses, const std::vector<Nic>& nics) {
  GuestStats::Interface out;
  out.name = printable_text(link.name, 64);  // the guest's choice, of nearly any bytes
  out.mac = link.mac;
  out.mtu = link.mtu;
  out.state = link.up ? "up" : "down";
  out.type = link.loopback ? "loopback" : "broadcast";
  out.bytes_in = link.counters.rx_bytes;
  out.bytes_out = link.counters.tx_bytes;
  out.packets_in = link.counters.rx_packets;
  out.packets_out = link.counters.tx_packets;
  for (const auto& nic : nics)
    if (nic.guest_name == link.name) out.host_name = nic.host_name;
  for (const auto& a : addresses)
    if (a.index == link.index) out.addresses.push_back({a.v6 ? "inet6" : "inet", a.address, std::to_string(a.prefix), a.scope});
  return out;
}

/// How many processors the limit leaves: cgroup limits are in time, the container sees all.
std::uint32_t processors() {
  return static_cast<std::uint32_t>(std::max(1l, ::sysconf(_SC_NPROCESSORS_ONLN)));
}

void add_detail(GuestStats& stats, const io::Cgroup& group, const std::string& rootfs) {
  auto detail = group.detail();
  stats.cpus = processors();
  stats.cpu_user_ns = detail.cpu_user_ns;
  stats.cpu_system_ns = detail.cpu_system_ns;
  stats.memory_parts = std::move(detail.memory);
  for (auto& d : detail.disks) stats.disks.push_back({std::move(d.device), d.read_bytes, d.written_bytes, d.reads, d.writes});
  struct statvfs fs{};
  if (::statvfs(rootfs.c_str(), &fs) == 0)
    stats.filesystems.push_back(
        {"overlay", "overlay", "/", fs.f_blocks * fs.f_frsize, fs.f_bfree * fs.f_frsize, fs.f_bavail * fs.f_frsize});
}

Result<GuestStats> collect(const io::Cgroup& group, const Remembered& remembered, pid_t pid) {
  GuestStats stats;
  VIRGA_TRY(auto usage, group.usage());
  stats.processes = static_cast<std::int64_t>(usage.processes);
  stats.cpu_ns = usage.cpu_ns;
  stats.memory_used = usage.memory;
  stats.memory_peak = usage.memory_peak;
  stats.memory_total = usage.memory_limit ? std::min(*usage.memory_limit, host_memory()) : host_memory();
  stats.swap_used = usage.swap;
  stats.oom_kills = usage.oom_kills;
  add_detail(stats, group, remembered.rootfs);
  if (auto netlink = io::Netlink::open_in(pid)) {
    auto links = netlink->links();
    auto addresses = netlink->addresses();
    constexpr std::size_t most = 256;  // a guest may make any number of interfaces
    if (links)
      for (std::size_t i = 0; i < links->size() && i < most; ++i) {
        auto one = describe((*links)[i], addresses.value_or(std::vector<io::LinkAddress>{}), remembered.nics);
        // A name is a key where states are shown.
        const bool again = std::any_of(stats.interfaces.begin(), stats.interfaces.end(),
                                       [&](const auto& other) { return other.name == one.name; });
        if (!again) stats.interfaces.push_back(std::move(one));
      }
  }
  auto os = read_os_release(remembered.rootfs);
  stats.os_name = os.name;
  stats.os_version = os.version;
  utsname uts{};
  if (::uname(&uts) == 0) stats.kernel_version = uts.release;
  stats.host_name = host_name_of(pid);
  return stats;
}

}  // namespace

Task<Result<GuestStats>> read_stats(CorePtr core, GuestPtr guest) {
  auto work = [group = core->cgroup(guest->id), remembered = guest->remembered, pid = guest->pid] {
    return collect(group, remembered, pid);
  };
  co_return co_await core->options.pool.run(std::move(work));
}

}  // namespace virga::compute::oci_driver
