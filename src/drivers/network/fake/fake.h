// A network driver that keeps everything in memory: for tests of the engine and for a daemon without privileges. It holds to the
// same contract as the real ones, can be told to fail, and shows what it was asked for.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "drivers/network/driver.h"

namespace virga::network {

class FakeDriver final : public Driver {
 public:
  struct Nic {
    NicSpec spec;
    std::variant<TapTarget, NamespaceTarget> target;
  };

  Task<Result<>> apply(BridgeSpec spec) override;
  Task<Result<>> remove(BridgeSpec spec) override;
  Task<Result<>> plug_tap(NicSpec nic, TapTarget target) override;
  Task<Result<>> plug_namespace(NicSpec nic, NamespaceTarget target) override;
  Task<Result<>> unplug(std::string host_name) override;
  Task<Result<BridgeState>> observe(std::string bridge) override;
  Task<Result<std::vector<std::string>>> host_subnets() override;
  Task<Result<bool>> interface_exists(std::string name) override;
  Task<Result<std::vector<std::string>>> list_nics() override;
  Task<> shut_down() override;

  // For tests.
  std::map<std::string, BridgeSpec> bridges;  ///< by interface name
  std::map<std::string, Nic> nics;            ///< by interface name on the host
  std::vector<std::string> subnets;           ///< of the host's other interfaces
  std::vector<std::string> other_interfaces;  ///< names that are taken by others
  int applies = 0;
  /// The next call of that name ("apply", "plug") fails so.
  void fail_next(std::string call, Error error) { failures_.emplace(std::move(call), std::move(error)); }

 private:
  std::optional<Error> failure(const std::string& call);
  Result<> plug(NicSpec nic, std::variant<TapTarget, NamespaceTarget> target);
  std::multimap<std::string, Error> failures_;
};

}  // namespace virga::network
