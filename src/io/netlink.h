// Network interfaces through rtnetlink (libmnl). Everything here is synchronous: a request is microseconds of work, but the
// kernel's rtnl lock in front of it is shared with whoever tears a network namespace down, which can take a second. So callers run
// these functions in a BlockingPool and never on the event loop. One Netlink serves one thread at a time; it talks to the network
// namespace that its thread was in when it was opened.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/error.h"

struct mnl_socket;

namespace virga::io {

struct LinkCounters {
  std::uint64_t rx_bytes = 0, tx_bytes = 0, rx_packets = 0, tx_packets = 0;
};

struct Link {
  int index = 0;
  std::string name;
  std::string kind;   ///< "bridge", "veth", "tun"; empty for hardware
  std::string alias;  ///< the interface's ifalias
  std::string mac;    ///< "00:16:3e:..", empty where it has none
  std::uint32_t mtu = 0;
  std::uint32_t group = 0;
  int master = 0;        ///< index of the bridge it is a port of, or 0
  bool up = false;       ///< administratively
  bool running = false;  ///< carrier
  bool loopback = false;
  LinkCounters counters;  ///< as the host sees them
};

struct LinkAddress {
  int index = 0;  ///< of the interface
  bool v6 = false;
  std::string address;
  unsigned prefix = 0;
  std::string scope;  ///< "global", "link", "local" (the loopback's)
};

/// What set_link changes; what is not set stays. Applied in one request.
struct LinkChange {
  std::optional<bool> up{};
  std::optional<std::uint32_t> mtu{};
  std::optional<std::string> mac{};
  std::optional<std::string> alias{};
  std::optional<std::string> master{};  ///< empty: out of its bridge
  bool no_ipv6_address = false;         ///< the kernel gives it no link-local address (bridge ports)
};

/// A pair whose host end stays down and outside any bridge until set_link says otherwise. The other end is in the target namespace,
/// under its own name, and up when create_veth returns.
struct VethSpec {
  std::string host_name;
  std::string peer_name;
  std::string peer_mac;
  pid_t peer_pid = -1;  ///< the process whose network namespace takes the peer
  std::uint32_t mtu = 1500;
  std::uint32_t group = 0;  ///< marks the host end as ours before it has its alias
};

class Netlink {
 public:
  static Result<Netlink> open();
  /// One that talks to the network namespace of that process. Errors: not_found (no such process), denied.
  static Result<Netlink> open_in(pid_t pid);
  Netlink(Netlink&&) noexcept;
  Netlink& operator=(Netlink&&) noexcept;
  ~Netlink();

  Result<std::vector<Link>> links();
  Result<std::optional<Link>> find_link(const std::string& name);
  /// Addresses of one interface, or of all (index 0).
  Result<std::vector<LinkAddress>> addresses(int index = 0);

  /// Errors: exists. `mac` is set from the start, so that the bridge does not take over those of its ports; `group` marks it as
  /// ours.
  Result<> create_bridge(const std::string& name, const std::string& mac, std::uint32_t group);
  /// Errors: exists, not_found (no such process).
  Result<> create_veth(const VethSpec& spec);
  /// A persistent tap that `owner` may open. It has its alias before it becomes persistent: one without never survives. Errors:
  /// exists.
  Result<> create_tap(const std::string& name, uid_t owner, const std::string& alias);
  /// Errors: not_found.
  Result<> set_link(const std::string& name, const LinkChange& change);
  /// Absent is success.
  Result<> delete_link(const std::string& name);

  /// Makes the interface's global addresses exactly these ("10.1.2.1/24", "fd42::1/64"), touching only what differs; a
  /// link-local one is added where it is named, never removed. New IPv6 addresses are usable at once (no duplicate detection: a
  /// bridge without ports would never finish it).
  Result<> set_addresses(const std::string& name, const std::vector<std::string>& cidrs);

 private:
  explicit Netlink(mnl_socket* socket) : socket_(socket) {}
  friend struct NetlinkCalls;
  mnl_socket* socket_ = nullptr;
  unsigned sequence_ = 1;
};

/// 1 to 15 bytes, none of them '/', blank or control: what the kernel takes. What users name is held to a stricter grammar before.
bool is_interface_name(std::string_view name) noexcept;

}  // namespace virga::io
