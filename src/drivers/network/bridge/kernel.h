// The part of the bridge driver that talks to the kernel: interfaces, addresses, sysctls, rules. Synchronous and for one thread at
// a time: the driver runs it in a BlockingPool of one thread. It remembers what it applied so that rules that somebody flushed can
// be put back.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "drivers/network/bridge/nft.h"
#include "drivers/network/bridge/rules.h"
#include "drivers/network/driver.h"
#include "io/netlink.h"

namespace virga::network {

using NicTarget = std::variant<TapTarget, NamespaceTarget>;

/// Checks every value against its grammar. Errors: invalid, naming the field.
Result<BridgeRules> check_spec(const BridgeSpec& spec);
Result<NicRules> check_spec(const NicSpec& spec);

class BridgeKernel {
 public:
  explicit BridgeKernel(std::string tag);

  Result<> apply(const BridgeSpec& spec);
  Result<> remove(const BridgeSpec& spec);
  Result<> plug(const NicSpec& spec, const NicTarget& target);
  Result<> unplug(const std::string& host_name);
  /// The same in parts, for who deletes the interface elsewhere, which takes the kernel some 20 ms: true where there is one to
  /// delete.
  Result<bool> begin_unplug(const std::string& host_name);
  Result<> end_unplug(const std::string& host_name);
  Result<BridgeState> observe(const std::string& bridge);
  Result<std::vector<std::string>> subnets();
  Result<bool> interface_exists(const std::string& name);
  Result<std::vector<std::string>> nics();
  /// Puts the tables back where they should be there and are not. True where it did.
  Result<bool> repair();
  const RuleWriter& writer() const noexcept { return writer_; }

 private:
  Result<> open();
  Result<> install();
  Result<> run(const std::string& commands);
  std::string everything() const;
  Result<> drop_empty_tables();
  bool owned(const io::Link& link) const;
  std::string network_alias(const std::string& id) const;
  Result<std::string> nic_alias(const NicSpec& spec, const NicTarget& target) const;
  std::optional<NicRules> nic_of(const io::Link& link) const;

  std::string prefix_;   ///< of every alias of ours: "virga:TAG:"
  std::uint32_t group_;  ///< of interfaces of ours that have no alias yet
  RuleWriter writer_;
  std::optional<io::Netlink> netlink_;
  std::unique_ptr<Nft> nft_;
  bool installed_ = false;
  std::map<std::string, BridgeRules> bridges_;
  std::map<std::string, NicRules> nics_;
};

}  // namespace virga::network
