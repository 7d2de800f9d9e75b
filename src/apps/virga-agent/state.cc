// The guest's state, from /proc, /sys and netlink.
#include <arpa/inet.h>
#include <dirent.h>
#include <fcntl.h>
#include <ifaddrs.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "guest.h"

namespace virga::agent {
namespace {

std::size_t read_small(const char* path, char* buffer, std::size_t size) {
  buffer[0] = 0;
  const int fd = ::open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return 0;
  std::size_t filled = 0;
  for (ssize_t n; filled < size - 1 && (n = ::read(fd, buffer + filled, size - 1 - filled)) > 0;)
    filled += static_cast<std::size_t>(n);
  ::close(fd);
  buffer[filled] = 0;
  return filled;
}

std::uint64_t number_behind(const char* text, const char* key) {
  const char* at = ::strstr(text, key);
  return at != nullptr ? ::strtoull(at + ::strlen(key), nullptr, 10) : 0;
}

std::uint64_t count_processes() {
  DIR* proc = ::opendir("/proc");
  std::uint64_t n = 0;
  if (proc == nullptr) return 0;
  while (const dirent* e = ::readdir(proc))
    if (e->d_name[0] >= '1' && e->d_name[0] <= '9') ++n;
  ::closedir(proc);
  return n;
}

/// User, nice, system, irq, softirq time of all processors; not idle, iowait, or what the host took.
std::uint64_t cpu_nanoseconds() {
  char text[512];
  read_small("/proc/stat", text, sizeof text);
  unsigned long long t[8] = {};
  ::sscanf(text, "cpu %llu %llu %llu %llu %llu %llu %llu", &t[0], &t[1], &t[2], &t[3], &t[4], &t[5], &t[6]);
  const auto ticks = static_cast<std::uint64_t>(::sysconf(_SC_CLK_TCK));
  return (t[0] + t[1] + t[2] + t[5] + t[6]) * (1000000000ull / (ticks > 0 ? ticks : 100));
}

/// NAME="Debian GNU/Linux" in os-release: the value without its quotes.
void os_release(const char* text, const char* key, char* value, std::size_t size) {
  value[0] = 0;
  const std::size_t n = ::strlen(key);
  for (const char* line = text; line != nullptr && *line != 0;) {
    if (::strncmp(line, key, n) == 0 && line[n] == '=') {
      const char* from = line + n + 1;
      std::size_t length = ::strcspn(from, "\n");
      if (length >= 2 && (*from == '"' || *from == '\'')) {
        ++from;
        length -= 2;
      }
      if (length >= size) length = size - 1;
      ::memcpy(value, from, length);
      value[length] = 0;
      return;
    }
    line = ::strchr(line, '\n');
    if (line != nullptr) ++line;
  }
}

std::uint64_t link_counter(const char* interface, const char* name) {
  char path[128], text[32];
  ::snprintf(path, sizeof path, "/sys/class/net/%s/statistics/%s", interface, name);
  read_small(path, text, sizeof text);
  return ::strtoull(text, nullptr, 10);
}

bool write_address(Writer& w, const struct ifaddrs* a) {
  const bool v6 = a->ifa_addr->sa_family == AF_INET6;
  char shown[INET6_ADDRSTRLEN];
  const Byte* address;
  const Byte* mask = nullptr;
  if (v6) {
    address = reinterpret_cast<const sockaddr_in6*>(a->ifa_addr)->sin6_addr.s6_addr;
    if (a->ifa_netmask != nullptr) mask = reinterpret_cast<const sockaddr_in6*>(a->ifa_netmask)->sin6_addr.s6_addr;
  } else {
    address = reinterpret_cast<const Byte*>(&reinterpret_cast<const sockaddr_in*>(a->ifa_addr)->sin_addr);
    if (a->ifa_netmask != nullptr)
      mask = reinterpret_cast<const Byte*>(&reinterpret_cast<const sockaddr_in*>(a->ifa_netmask)->sin_addr);
  }
  if (::inet_ntop(v6 ? AF_INET6 : AF_INET, address, shown, sizeof shown) == nullptr) return false;
  unsigned prefix = 0;
  for (unsigned i = 0; mask != nullptr && i < (v6 ? 16u : 4u); ++i)
    for (unsigned bit = 0x80; bit != 0; bit >>= 1) prefix += (mask[i] & bit) != 0;
  const bool local = (a->ifa_flags & IFF_LOOPBACK) != 0;
  const bool link = v6 ? address[0] == 0xfe && (address[1] & 0xc0) == 0x80 : address[0] == 169 && address[1] == 254;
  w.u8(v6 ? 6 : 4);
  w.u8(static_cast<std::uint8_t>(prefix));
  w.u8(local ? 2 : link ? 1 : 0);
  w.text(shown);
  return true;
}

void write_interface(Writer& w, const struct ifaddrs* all, const struct ifaddrs* link) {
  char mac[24] = "", path[128], text[32];
  const auto* l = reinterpret_cast<const sockaddr_ll*>(link->ifa_addr);
  if (l->sll_halen == 6)
    ::snprintf(mac, sizeof mac, "%02x:%02x:%02x:%02x:%02x:%02x", l->sll_addr[0], l->sll_addr[1], l->sll_addr[2], l->sll_addr[3],
               l->sll_addr[4], l->sll_addr[5]);
  ::snprintf(path, sizeof path, "/sys/class/net/%s/mtu", link->ifa_name);
  read_small(path, text, sizeof text);
  w.text(link->ifa_name);
  w.text(mac);
  w.text((link->ifa_flags & IFF_UP) != 0 ? "up" : "down");
  w.text((link->ifa_flags & IFF_LOOPBACK) != 0      ? "loopback"
         : (link->ifa_flags & IFF_POINTOPOINT) != 0 ? "point-to-point"
                                                    : "broadcast");
  w.u32(static_cast<std::uint32_t>(::strtoul(text, nullptr, 10)));
  static const char* const counters[] = {"rx_bytes",  "tx_bytes",  "rx_packets", "tx_packets",
                                         "rx_errors", "tx_errors", "rx_dropped", "tx_dropped"};
  for (const char* counter : counters) w.u64(link_counter(link->ifa_name, counter));
  const std::size_t count_at = w.size();
  std::uint16_t count = 0;
  w.u16(0);
  for (const auto* a = all; a != nullptr && count < max_addresses; a = a->ifa_next) {
    if (a->ifa_addr == nullptr || (a->ifa_addr->sa_family != AF_INET && a->ifa_addr->sa_family != AF_INET6) ||
        ::strcmp(a->ifa_name, link->ifa_name) != 0)
      continue;
    if (write_address(w, a)) ++count;
  }
  if (w.ok()) w.patch_u16(count_at, count);
}

}  // namespace

void write_state(Writer& w) {
  static char text[4096];
  char value[128];
  read_small("/proc/meminfo", text, sizeof text);
  const std::uint64_t total = number_behind(text, "MemTotal:") * 1024, available = number_behind(text, "MemAvailable:") * 1024;
  w.u64(count_processes());
  w.u64(total);
  w.u64(total > available ? total - available : 0);
  w.u64(cpu_nanoseconds());
  if (read_small("/etc/os-release", text, sizeof text) == 0) read_small("/usr/lib/os-release", text, sizeof text);
  os_release(text, "NAME", value, sizeof value);
  w.text(value);
  os_release(text, "VERSION_ID", value, sizeof value);
  w.text(value);
  struct utsname names = {};
  ::uname(&names);
  w.text(names.release);
  w.text(names.nodename);
  const std::size_t count_at = w.size();
  std::uint16_t count = 0;
  w.u16(0);
  struct ifaddrs* all = nullptr;
  if (::getifaddrs(&all) != 0) return;
  for (const auto* a = all; a != nullptr && count < max_interfaces; a = a->ifa_next) {
    if (a->ifa_addr == nullptr || a->ifa_addr->sa_family != AF_PACKET) continue;
    const std::size_t before = w.size();
    write_interface(w, all, a);
    if (!w.ok()) {
      w.rewind(before);
      break;
    }
    ++count;
  }
  ::freeifaddrs(all);
  w.patch_u16(count_at, count);
}

}  // namespace virga::agent
