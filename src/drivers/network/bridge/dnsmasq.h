// DHCP, router advertisements and DNS of one bridge: one dnsmasq, which belongs to nobody once it runs, so that it outlives the
// daemon. It is found again by its pid file, and only believed when its command line is exactly the one we would give it: another
// command line with our pid file is an older configuration and is replaced. Values pass the driver's grammars before they come
// here.
#pragma once

#include <string>
#include <vector>

#include "base/task.h"
#include "drivers/network/driver.h"
#include "io/fd.h"

namespace virga::network {

/// Whom dnsmasq becomes once it has its sockets.
struct DnsmasqUser {
  std::string user = "root";
  std::string group = "root";
  gid_t gid = 0;
};
/// "dnsmasq" or "nobody" where that user can reach `state_dir`, otherwise root.
DnsmasqUser choose_dnsmasq_user(const std::string& state_dir);

// Pure.
std::vector<std::string> dnsmasq_command(const BridgeSpec& spec, const std::string& program, const DnsmasqUser& user);
/// "MAC,ADDRESS,NAME" lines: who gets which address.
std::string dnsmasq_hosts(const BridgeSpec& spec);
/// "ADDRESS NAME.DOMAIN NAME" lines: what DNS answers.
std::string dnsmasq_names(const BridgeSpec& spec);
/// What dnsmasq may still hold for guests that are gone: from its lease file, and from the hosts file that was in force until now
/// (a lease may not have reached the lease file yet).
struct HeldLease {
  std::string mac, address;
  bool operator==(const HeldLease&) const = default;
};
std::vector<HeldLease> stale_leases(std::string_view lease_file, std::string_view old_hosts, const BridgeSpec& spec);

class Dnsmasq {
 public:
  Dnsmasq(BlockingPool& pool, std::string program) : pool_(pool), program_(std::move(program)) {}
  /// Runs, with this configuration; one that does so already is told to read its lists again where they changed.
  /// The process as a pidfd, to be told of its end. Errors: unavailable (not installed, or it does not start: with its words).
  Task<Result<io::UniqueFd>> ensure(BridgeSpec spec);
  /// Not there any more, nor its files. Absent is success.
  Task<Result<>> remove(BridgeSpec spec);

 private:
  Task<Result<>> start(const BridgeSpec& spec, std::vector<std::string> argv);
  BlockingPool& pool_;
  std::string program_;
};

}  // namespace virga::network
