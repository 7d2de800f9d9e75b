// Networks on Linux bridges: addresses by rtnetlink, filters and NAT by nftables, DHCP and DNS by dnsmasq. Everything it makes
// carries the daemon's tag (interfaces in their alias, tables in their name), so that several daemons in one network namespace
// leave each other alone, and so that a restarted daemon finds its own by asking the kernel: the driver keeps no file of its own.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "drivers/network/driver.h"
#include "io/fd.h"

namespace virga::network {

struct Finding {
  std::string name;  ///< "nftables"
  bool ok = false;
  std::string detail;
  std::string remedy;  ///< empty where ok
};

class BridgeDriver final : public Driver {
 public:
  struct Options {
    std::string tag;  ///< 1 to 12 lower-case letters and digits; the same at each start of a daemon, different between daemons
    std::string dnsmasq = "dnsmasq";  ///< a program in PATH, or a path
  };
  /// Errors: invalid (the tag).
  static Result<std::unique_ptr<BridgeDriver>> create(Executor executor, Options options);
  ~BridgeDriver() override;

  bool has_ipv6() const override;
  Task<Result<>> apply(BridgeSpec spec) override;
  Task<Result<>> remove(BridgeSpec spec) override;
  Task<Result<>> plug_tap(NicSpec nic, TapTarget target) override;
  Task<Result<>> plug_namespace(NicSpec nic, NamespaceTarget target) override;
  Task<Result<>> unplug(std::string host_name) override;
  Task<Result<BridgeState>> observe(std::string bridge) override;
  Task<Result<std::vector<std::string>>> host_subnets() override;
  Task<Result<bool>> interface_exists(std::string name) override;
  Task<Result<std::vector<std::string>>> list_nics() override;
  void on_repair(std::function<void(Repair)> call) override;
  Task<> shut_down() override;

  /// What this host can do, for `admin doctor`. Tries the rules in a network namespace of its own; touches nothing.
  Task<std::vector<Finding>> probe();

 private:
  struct Impl;
  explicit BridgeDriver(std::unique_ptr<Impl> impl);
  Task<Result<>> serve(BridgeSpec spec);
  Task<> watch_service(std::string bridge, io::UniqueFd pidfd);
  void forget_service(const std::string& bridge);
  std::unique_ptr<Impl> impl_;
};

}  // namespace virga::network
