// What virga asks of something that makes virtual switches. Desired-state calls: apply() makes the host match, whatever was there
// before, so that recovery and change are the same code. Event loop only.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/task.h"

namespace virga::network {

struct StaticLease {  ///< an address virga gave to a NIC
  std::string mac;
  std::string ipv4;       ///< empty: none
  std::string ipv6;       ///< empty: none
  std::string host_name;  ///< instance name; answered by DNS
};

struct BridgeSpec {
  std::string id;         ///< names the network's resources in tables: project-free network name
  std::string bridge;     ///< interface name, at most 15 bytes
  std::string ipv4_cidr;  ///< the bridge's own address "10.1.2.1/24"; empty: no IPv4
  bool ipv4_nat = true;
  bool ipv4_dhcp = true;
  std::string ipv6_cidr;  ///< "fd42:...::1/64"; empty: no IPv6
  bool ipv6_nat = true;
  bool ipv6_dhcp = true;  ///< router advertisements with stateless DHCPv6
  std::string dns_domain = "virga";
  std::uint32_t mtu = 1500;
  std::string state_dir;            ///< exists; dnsmasq's files go here
  std::vector<StaticLease> leases;  ///< all NICs on the network, running or not
};

/// Where a NIC goes.
struct TapTarget {
  uid_t owner = 0;
};  ///< a persistent tap that QEMU, running as `owner`, opens by name
struct NamespaceTarget {
  pid_t pid = -1;
  std::string guest_name;
};  ///< a veth pair with its other end in that process's network namespace

struct NicSpec {
  std::string guest_id;   ///< UUID of the instance
  std::string host_name;  ///< interface name on the host; unique; at most 15 bytes
  std::string mac;
  std::string ipv4;  ///< its addresses; empty: none. Only these may be used as source (filters on by default)
  std::string ipv6;
  std::uint32_t mtu = 1500;
  std::string bridge;
};

struct InterfaceCounters {
  std::uint64_t bytes_received = 0, bytes_sent = 0, packets_received = 0, packets_sent = 0;
};

struct BridgeState {
  bool up = false;
  std::string mac;
  std::uint32_t mtu = 0;
  InterfaceCounters counters;
  struct Address {
    std::string family, address, netmask, scope;
  };
  std::vector<Address> addresses;
  std::vector<std::string> ports;
};

class Driver {
 public:
  virtual ~Driver() = default;
  /// Whether this host has IPv6 at all; where not, networks are made without.
  virtual bool has_ipv6() const { return true; }
  /// Makes bridge, addresses, NAT, filter rules, DHCP and DNS match. Leases are taken up without interrupting service.
  /// Errors: exists (the interface is there and is not ours), invalid, unavailable.
  virtual Task<Result<>> apply(BridgeSpec spec) = 0;
  /// Takes the bridge and all that belongs to it away. Absent is success.
  virtual Task<Result<>> remove(BridgeSpec spec) = 0;
  /// Creates the NIC and its anti-spoofing rules (rules before link up) and puts it on the bridge. An equal one that is there:
  /// success.
  virtual Task<Result<>> plug_tap(NicSpec nic, TapTarget target) = 0;
  virtual Task<Result<>> plug_namespace(NicSpec nic, NamespaceTarget target) = 0;
  /// Absent is success.
  virtual Task<Result<>> unplug(std::string host_name) = 0;
  virtual Task<Result<BridgeState>> observe(std::string bridge) = 0;
  /// Interfaces of the host that carry an address, as "a.b.c.d/n" or IPv6 CIDRs: subnets to avoid.
  virtual Task<Result<std::vector<std::string>>> host_subnets() = 0;
  virtual Task<Result<bool>> interface_exists(std::string name) = 0;
  /// Names of all NICs this driver made that exist now (for the orphan scan).
  virtual Task<Result<std::vector<std::string>>> list_nics() = 0;
  /// Something had to be repaired: firewall rules that somebody removed (`bridge` is empty), or a bridge's DHCP and DNS service
  /// that ended.
  struct Repair {
    std::string bridge, what;
  };
  /// Called on the event loop.
  virtual void on_repair(std::function<void(Repair)> /*call*/) {}
  /// Lets go of connections and watchers; bridges, dnsmasq and NICs stay.
  virtual Task<> shut_down() = 0;
};

}  // namespace virga::network
