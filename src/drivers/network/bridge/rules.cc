#include "drivers/network/bridge/rules.h"

#include <fmt/format.h>

#include <array>

#include "model/name.h"

namespace virga::network {
namespace {

constexpr std::array<std::string_view, 6> nic_sets{"nics", "macs", "arps", "ip4s", "ip6s", "targets"};

/// 128 bits as one number, as nft writes what it knows no type for.
std::string number(const IpAddress& address) {
  std::string out = "0x";
  for (auto byte : address.bytes) out += fmt::format("{:02x}", byte);
  return out;
}

std::string quoted(std::string_view name) {
  return fmt::format("\"{}\"", name);  // InterfaceName holds no quote or backslash
}

}  // namespace

Result<InterfaceName> InterfaceName::parse(std::string_view text) {
  VIRGA_CHECK(check_interface_name("name", text));
  return InterfaceName(std::string(text));
}

Result<> check_tag(std::string_view tag) {
  const bool ok =
      !tag.empty() && tag.size() <= 12 && tag.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789") == std::string_view::npos;
  return ok ? Result<>{}
            : fail(ErrorKind::invalid, fmt::format("'{}' is not a tag: use 1 to 12 lower-case letters and digits", tag));
}

std::string RuleWriter::base() const {
  constexpr std::string_view text = R"(add table bridge TABLE
add set bridge TABLE nics { type ifname; }
add set bridge TABLE macs { type ifname . ether_addr; }
add set bridge TABLE arps { type ifname . ether_addr . ipv4_addr; }
add set bridge TABLE ip4s { type ifname . ipv4_addr; }
add set bridge TABLE ip6s { type ifname . ipv6_addr; }
add set bridge TABLE targets { typeof iifname . @th,64,128; }
add chain bridge TABLE ingress { type filter hook prerouting priority -200; policy accept; }
add chain bridge TABLE guest
add chain bridge TABLE guest_arp
add chain bridge TABLE guest_ip4
add chain bridge TABLE guest_ip6
flush chain bridge TABLE ingress
flush chain bridge TABLE guest
flush chain bridge TABLE guest_arp
flush chain bridge TABLE guest_ip4
flush chain bridge TABLE guest_ip6
add rule bridge TABLE ingress iifname @nics goto guest
add rule bridge TABLE guest iifname . ether saddr != @macs drop
add rule bridge TABLE guest ether type vmap { arp : goto guest_arp, ip : goto guest_ip4, ip6 : goto guest_ip6 }
add rule bridge TABLE guest drop
add rule bridge TABLE guest_arp iifname . arp saddr ether . arp saddr ip @arps accept
add rule bridge TABLE guest_arp arp saddr ip 0.0.0.0 arp operation request iifname . arp saddr ether @macs accept
add rule bridge TABLE guest_arp drop
add rule bridge TABLE guest_ip4 udp sport 67 drop
add rule bridge TABLE guest_ip4 udp dport 68 drop
add rule bridge TABLE guest_ip4 iifname . ip saddr @ip4s accept
add rule bridge TABLE guest_ip4 ip saddr 0.0.0.0 ip daddr 255.255.255.255 udp sport 68 udp dport 67 accept
add rule bridge TABLE guest_ip4 drop
add rule bridge TABLE guest_ip6 icmpv6 type { nd-router-advert, nd-redirect } drop
add rule bridge TABLE guest_ip6 udp sport 547 drop
add rule bridge TABLE guest_ip6 udp dport 546 drop
add rule bridge TABLE guest_ip6 ip6 saddr fe80::/10 exthdr frag exists drop
add rule bridge TABLE guest_ip6 icmpv6 type nd-neighbor-advert iifname . @th,64,128 != @targets drop
add rule bridge TABLE guest_ip6 ip6 saddr :: icmpv6 type nd-neighbor-solicit iifname . @th,64,128 @targets accept
add rule bridge TABLE guest_ip6 ip6 saddr :: icmpv6 type { nd-router-solicit, mld-listener-report, mld-listener-done, mld2-listener-report } accept
add rule bridge TABLE guest_ip6 iifname . ip6 saddr @ip6s accept
add rule bridge TABLE guest_ip6 drop
add table inet TABLE
add set inet TABLE bridges { type ifname; }
add map inet TABLE inputs { type ifname : verdict; }
add map inet TABLE nats { type ifname : verdict; }
add chain inet TABLE input { type filter hook input priority -200; policy accept; }
add chain inet TABLE forwarding { type filter hook forward priority -1; policy accept; }
add chain inet TABLE postrouting { type nat hook postrouting priority 100; policy accept; }
flush chain inet TABLE input
flush chain inet TABLE forwarding
flush chain inet TABLE postrouting
add rule inet TABLE input iifname vmap @inputs
add rule inet TABLE forwarding iifname @bridges accept
add rule inet TABLE forwarding oifname @bridges accept
add rule inet TABLE postrouting iifname vmap @nats
)";
  std::string out(text);
  for (std::size_t at = 0; (at = out.find("TABLE", at)) != std::string::npos; at += table_.size()) out.replace(at, 5, table_);
  return out;
}

std::string RuleWriter::bridge(const BridgeRules& rules) const {
  const auto& name = rules.bridge.text();
  const auto in = "in_" + name, nat = "nat_" + name;
  std::string out;
  for (const auto& chain : {in, nat}) out += fmt::format("add chain inet {0} {1}\nflush chain inet {0} {1}\n", table_, chain);
  const auto allow = [&](const std::string& what) { out += fmt::format("add rule inet {} {} {} accept\n", table_, in, what); };
  allow("ct state established,related");
  if (rules.ipv4) {
    const auto own = "ip daddr " + rules.ipv4->address.text();
    if (rules.ipv4_dhcp) allow("meta nfproto ipv4 udp dport 67");
    allow(own + " udp dport 53");
    allow(own + " tcp dport 53");
    allow(own + " icmp type echo-request");
  }
  if (rules.ipv6) {
    const auto own = fmt::format("ip6 daddr {{ {}, fe80::/10 }}", rules.ipv6->address.text());
    if (rules.ipv6_dhcp) allow("meta nfproto ipv6 udp dport 547");
    allow(own + " udp dport 53");
    allow(own + " tcp dport 53");
    allow(own + " icmpv6 type echo-request");
    allow(
        "icmpv6 type { nd-router-solicit, nd-neighbor-solicit, nd-neighbor-advert, mld-listener-report, mld-listener-done, "
        "mld2-listener-report }");
  }
  out += fmt::format("add rule inet {} {} drop\n", table_, in);
  const auto masquerade = [&](std::string_view family, const Cidr& own) {
    const auto subnet = own.subnet().text();
    out += fmt::format("add rule inet {0} {1} {2} saddr {3} {2} daddr != {3} masquerade\n", table_, nat, family, subnet);
  };
  if (rules.ipv4 && rules.ipv4_nat) masquerade("ip", *rules.ipv4);
  if (rules.ipv6 && rules.ipv6_nat) masquerade("ip6", *rules.ipv6);
  out += fmt::format("add element inet {} bridges {{ {} }}\n", table_, quoted(name));
  out += fmt::format("add element inet {} inputs {{ {} : goto {} }}\n", table_, quoted(name), in);
  out += fmt::format("add element inet {} nats {{ {} : goto {} }}\n", table_, quoted(name), nat);
  return out;
}

std::string RuleWriter::remove_bridge(const InterfaceName& bridge) const {
  const auto& name = bridge.text();
  const auto in = "in_" + name, nat = "nat_" + name;
  std::string out;
  // What is added first exists, and so can be deleted whether or not it was there.
  for (const auto& chain : {in, nat}) out += fmt::format("add chain inet {} {}\n", table_, chain);
  out += fmt::format("add element inet {0} bridges {{ {1} }}\ndelete element inet {0} bridges {{ {1} }}\n", table_, quoted(name));
  out += fmt::format("add element inet {0} inputs {{ {1} : goto {2} }}\ndelete element inet {0} inputs {{ {1} : goto {2} }}\n",
                     table_, quoted(name), in);
  out += fmt::format("add element inet {0} nats {{ {1} : goto {2} }}\ndelete element inet {0} nats {{ {1} : goto {2} }}\n", table_,
                     quoted(name), nat);
  for (const auto& chain : {in, nat}) out += fmt::format("flush chain inet {0} {1}\ndelete chain inet {0} {1}\n", table_, chain);
  return out;
}

std::string RuleWriter::elements(std::string_view verb, const NicRules& rules) const {
  const auto name = quoted(rules.interface.text());
  const auto mac = rules.mac.text();
  std::string out;
  const auto element = [&](std::string_view set, const std::string& value) {
    out += fmt::format("{} element bridge {} {} {{ {} }}\n", verb, table_, set, value);
  };
  element("nics", name);
  element("macs", fmt::format("{} . {}", name, mac));
  if (rules.ipv4) {
    element("arps", fmt::format("{} . {} . {}", name, mac, rules.ipv4->text()));
    element("ip4s", fmt::format("{} . {}", name, rules.ipv4->text()));
  }
  std::vector<IpAddress> v6{link_local(rules.mac)};
  if (rules.ipv6) v6.push_back(*rules.ipv6);
  for (const auto& address : v6) {
    element("ip6s", fmt::format("{} . {}", name, address.text()));
    element("targets", fmt::format("{} . {}", name, number(address)));
  }
  return out;
}

std::string RuleWriter::nic(const NicRules& rules) const {
  return elements("add", rules);
}

std::string RuleWriter::remove_nic(const NicRules& rules) const {
  return elements("add", rules) + elements("delete", rules);
}

std::string RuleWriter::clear_nics() const {
  std::string out;
  for (auto set : nic_sets) out += fmt::format("flush set bridge {} {}\n", table_, set);
  return out;
}

std::string RuleWriter::remove_all() const {
  return fmt::format("add table bridge {0}\ndelete table bridge {0}\nadd table inet {0}\ndelete table inet {0}\n", table_);
}

}  // namespace virga::network
