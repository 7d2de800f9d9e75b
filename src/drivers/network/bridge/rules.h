// The nftables rules of a daemon's bridges and NICs as text for libnftables: the only place where such text is written. Values come
// in as types that passed their grammar (InterfaceName, Mac, IpAddress, Cidr), never as strings, so none can mean more than itself.
// Pure.
//
// Two tables that carry the daemon's tag, so that daemons in one network namespace never meet:
//
//   bridge virga_TAG                                       inet virga_TAG
//     ingress (prerouting) -> guest, for ports in @nics      input       -> in_BRIDGE   DHCP, DNS, ping, ND; the rest is dropped
//     guest: source MAC, then by type ARP, IPv4, IPv6;       forwarding  guests' bridges may forward
//            everything else is dropped                      postrouting -> nat_BRIDGE  masquerade
//
// A packet costs some hash look-ups, however many NICs and bridges there are.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "model/address.h"

namespace virga::network {

/// An interface's name that passed check_interface_name.
class InterfaceName {
 public:
  static Result<InterfaceName> parse(std::string_view text);
  const std::string& text() const noexcept { return text_; }

 private:
  explicit InterfaceName(std::string text) : text_(std::move(text)) {}
  std::string text_;
};

/// What a NIC may use as source.
struct NicRules {
  InterfaceName interface;
  Mac mac;
  std::optional<IpAddress> ipv4;
  std::optional<IpAddress> ipv6;  ///< beside the link-local address of its MAC
};

struct BridgeRules {
  InterfaceName bridge;
  std::optional<Cidr> ipv4;  ///< the bridge's own address
  bool ipv4_nat = false;
  bool ipv4_dhcp = false;
  std::optional<Cidr> ipv6;
  bool ipv6_nat = false;
  bool ipv6_dhcp = false;
};

/// 1 to 12 lower-case letters and digits.
Result<> check_tag(std::string_view tag);

/// Each function returns commands that succeed whatever was there before; join them and run them as one transaction.
class RuleWriter {
 public:
  /// `tag` passed check_tag.
  explicit RuleWriter(std::string_view tag) : table_("virga_" + std::string(tag)) {}
  const std::string& table() const noexcept { return table_; }

  /// Tables, sets and fixed chains. To come first where they may be missing; leaves bridges and NICs as they are.
  std::string base() const;
  std::string bridge(const BridgeRules& rules) const;
  std::string remove_bridge(const InterfaceName& bridge) const;
  std::string nic(const NicRules& rules) const;
  std::string remove_nic(const NicRules& rules) const;
  /// Forgets all NICs; in one transaction with nic() of those that live there is no moment without rules.
  std::string clear_nics() const;
  std::string remove_all() const;

 private:
  std::string elements(std::string_view verb, const NicRules& rules) const;
  std::string table_;
};

}  // namespace virga::network
