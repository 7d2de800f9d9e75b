#include "drivers/network/bridge/kernel.h"

#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>

#include "base/random.h"
#include "io/file.h"
#include "model/name.h"
#include "model/network.h"

namespace virga::network {
namespace {

std::vector<std::string> words(const std::string& text) {
  std::vector<std::string> out;
  for (std::size_t at = 0; at < text.size();) {
    const auto end = std::min(text.find(' ', at), text.size());
    if (end > at) out.push_back(text.substr(at, end - at));
    at = end + 1;
  }
  return out;
}

Result<> set_sysctl(const std::string& name, std::string_view value) {
  const auto file = "/proc/sys/net/" + name;
  if (auto now = io::read_file(file, 64); now && now->starts_with(value) && now->size() <= value.size() + 1) return {};
  return io::write_control(file, value);
}

/// A host that forwards IPv6 no longer takes its own default route from router advertisements, unless told to (accept_ra = 2).
Result<> forward_ipv6(const std::vector<io::Link>& links) {
  auto now = io::read_file("/proc/sys/net/ipv6/conf/all/forwarding", 64);
  if (now && now->starts_with("1")) return {};
  for (const auto& link : links) {
    const auto name = fmt::format("ipv6/conf/{}/accept_ra", link.name);
    if (auto value = io::read_file("/proc/sys/net/" + name, 64); value && value->starts_with("1"))
      VIRGA_CHECK(set_sysctl(name, "2"));
  }
  return set_sysctl("ipv6/conf/all/forwarding", "1");
}

Result<> check_lease(const StaticLease& lease) {
  VIRGA_CHECK(parse_mac(lease.mac));
  for (const auto* text : {&lease.ipv4, &lease.ipv6}) {
    if (text->empty()) continue;
    VIRGA_TRY(auto address, parse_ip(*text));
    if (address.v6 != (text == &lease.ipv6))
      return fail(ErrorKind::invalid, fmt::format("'{}' is an address of the other family", *text));
  }
  return lease.host_name.empty() ? Result<>{} : check_dns_domain(lease.host_name);
}

/// The bridge's MAC: always the same for the same network of the same daemon, so that guests' ARP caches survive its re-creation.
std::string bridge_mac(const std::string& tag, const std::string& id) {
  const auto hash = sha256_hex(tag + "/" + id);
  return fmt::format("0a:{}:{}:{}:{}:{}", hash.substr(0, 2), hash.substr(2, 2), hash.substr(4, 2), hash.substr(6, 2),
                     hash.substr(8, 2));
}

}  // namespace

Result<BridgeRules> check_spec(const BridgeSpec& spec) {
  VIRGA_TRY(auto name, InterfaceName::parse(spec.bridge));
  VIRGA_CHECK(check_object_name("network", spec.id));
  BridgeRules out{.bridge = std::move(name),
                  .ipv4 = {},
                  .ipv4_nat = spec.ipv4_nat,
                  .ipv4_dhcp = spec.ipv4_dhcp,
                  .ipv6 = {},
                  .ipv6_nat = spec.ipv6_nat,
                  .ipv6_dhcp = spec.ipv6_dhcp};
  const auto own = [](const std::string& text, bool v6) -> Result<std::optional<Cidr>> {
    if (text.empty()) return std::optional<Cidr>{};
    VIRGA_TRY(auto cidr, parse_cidr(text));
    if (cidr.address.v6 != v6) return fail(ErrorKind::invalid, fmt::format("'{}' is an address of the other family", text));
    return std::optional<Cidr>(cidr);
  };
  VIRGA_TRY(out.ipv4, own(spec.ipv4_cidr, false));
  VIRGA_TRY(out.ipv6, own(spec.ipv6_cidr, true));
  VIRGA_CHECK(check_dns_domain(spec.dns_domain));
  if (spec.mtu < 576 || spec.mtu > 65535) return invalid("mtu", fmt::format("{} is no MTU", spec.mtu));
  if (!spec.state_dir.starts_with('/')) return invalid("state_dir", "the state directory is no absolute path");
  for (char c : spec.state_dir)
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f)
      return invalid("state_dir", "the state directory's path holds a control character");
  for (const auto& lease : spec.leases)
    if (auto ok = check_lease(lease); !ok)
      return fail(std::move(ok).error().wrap(fmt::format("address of '{}'", lease.mac.substr(0, 20))));
  return out;
}

Result<NicRules> check_spec(const NicSpec& spec) {
  VIRGA_TRY(auto name, InterfaceName::parse(spec.host_name));
  VIRGA_CHECK(InterfaceName::parse(spec.bridge));
  VIRGA_TRY(auto mac, parse_mac(spec.mac));
  NicRules out{.interface = std::move(name), .mac = mac, .ipv4 = {}, .ipv6 = {}};
  if (!spec.ipv4.empty()) {
    VIRGA_TRY(out.ipv4, parse_ip(spec.ipv4));
  }
  if (!spec.ipv6.empty()) {
    VIRGA_TRY(out.ipv6, parse_ip(spec.ipv6));
  }
  if ((out.ipv4 && out.ipv4->v6) || (out.ipv6 && !out.ipv6->v6))
    return fail(ErrorKind::invalid, "a NIC's address is of the other family");
  if (spec.guest_id.empty() || spec.guest_id.size() > 64 ||
      spec.guest_id.find_first_not_of("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.") != std::string::npos)
    return invalid("guest_id", "a NIC needs the id of its guest");
  if (spec.mtu < 576 || spec.mtu > 65535) return invalid("mtu", fmt::format("{} is no MTU", spec.mtu));
  return out;
}

BridgeKernel::BridgeKernel(std::string tag)
    : prefix_("virga:" + tag + ":"),
      group_(0x76000000u | static_cast<std::uint32_t>(std::stoul(sha256_hex(tag).substr(0, 6), nullptr, 16))),
      writer_(tag) {}

Result<> BridgeKernel::open() {
  if (netlink_) return {};
  VIRGA_TRY(auto netlink, io::Netlink::open());
  netlink_ = std::move(netlink);
  nft_ = std::make_unique<Nft>();
  return {};
}

bool BridgeKernel::owned(const io::Link& link) const {
  return link.alias.starts_with(prefix_) || (link.alias.empty() && link.group == group_);
}

std::string BridgeKernel::network_alias(const std::string& id) const {
  return prefix_ + "network " + id;
}

Result<std::string> BridgeKernel::nic_alias(const NicSpec& spec, const NicTarget& target) const {
  std::string where;
  if (const auto* tap = std::get_if<TapTarget>(&target)) {
    where = fmt::format("tap:{}", tap->owner);
  } else {
    const auto pid = std::get<NamespaceTarget>(target).pid;
    struct stat st{};
    if (pid <= 0 || ::stat(fmt::format("/proc/{}/ns/net", pid).c_str(), &st) != 0)
      return fail(ErrorKind::not_found, fmt::format("process {} does not exist", pid));
    where = fmt::format("net:{}", st.st_ino);
  }
  const auto word = [](const std::string& text) { return text.empty() ? std::string("-") : text; };
  return fmt::format("{}nic {} {} {} {} {} {}", prefix_, spec.guest_id, spec.bridge, spec.mac, word(spec.ipv4), word(spec.ipv6),
                     where);
}

/// The rules of a NIC as its alias tells them: "nic GUEST BRIDGE MAC IPV4 IPV6 WHERE".
std::optional<NicRules> BridgeKernel::nic_of(const io::Link& link) const {
  if (!link.alias.starts_with(prefix_)) return {};
  const auto w = words(link.alias.substr(prefix_.size()));
  if (w.size() != 7 || w[0] != "nic") return {};
  NicSpec spec;
  spec.guest_id = w[1];
  spec.host_name = link.name;
  spec.bridge = w[2];
  spec.mac = w[3];
  if (w[4] != "-") spec.ipv4 = w[4];
  if (w[5] != "-") spec.ipv6 = w[5];
  auto rules = check_spec(spec);
  if (!rules) return {};
  return std::move(*rules);
}

std::string BridgeKernel::everything() const {
  std::string out = writer_.base() + writer_.clear_nics();
  for (const auto& [name, rules] : bridges_) out += writer_.bridge(rules);
  for (const auto& [name, rules] : nics_) out += writer_.nic(rules);
  return out;
}

/// The first use: NICs that an earlier daemon plugged are known by their aliases, what it left of others is cleared.
Result<> BridgeKernel::install() {
  if (installed_) return {};
  VIRGA_TRY(auto links, netlink_->links());
  nics_.clear();
  for (const auto& link : links)
    if (auto rules = nic_of(link)) nics_.emplace(link.name, std::move(*rules));
  VIRGA_CHECK(nft_->run(everything()));
  installed_ = true;
  return {};
}

Result<> BridgeKernel::run(const std::string& commands) {
  VIRGA_CHECK(install());
  auto done = nft_->run(commands);
  if (done || done.error().kind() != ErrorKind::not_found) return done;
  VIRGA_CHECK(nft_->run(everything()));  // somebody flushed them
  return nft_->run(commands);
}

Result<bool> BridgeKernel::repair() {
  if (!installed_) return false;
  VIRGA_TRY(auto tables, nft_->list("list tables"));
  const auto there = [&](std::string_view family) {
    return tables.find(fmt::format("table {} {}\n", family, writer_.table())) != std::string::npos;
  };
  if (there("bridge") && there("inet")) return false;
  VIRGA_CHECK(nft_->run(everything()));
  return true;
}

Result<> BridgeKernel::drop_empty_tables() {
  if (!bridges_.empty() || !nics_.empty()) return {};
  VIRGA_TRY(auto links, netlink_->links());
  for (const auto& link : links)
    if (owned(link)) return {};
  installed_ = false;
  return nft_->run(writer_.remove_all());
}

Result<> BridgeKernel::apply(const BridgeSpec& spec) {
  VIRGA_TRY(auto rules, check_spec(spec));
  VIRGA_CHECK(open());
  const bool has_ipv6 = io::exists("/proc/sys/net/ipv6");
  if (rules.ipv6 && !has_ipv6)
    return fail(Error(ErrorKind::unsupported, "this host has no IPv6")
                    .with_field("config.ipv6.address")
                    .with_hint("set ipv6.address=none"));
  const auto alias = network_alias(spec.id);
  VIRGA_TRY(auto link, netlink_->find_link(spec.bridge));
  if (link && (!owned(*link) || link->kind != "bridge" || (!link->alias.empty() && link->alias != alias)))
    return fail(
        Error(ErrorKind::exists, fmt::format("interface '{}' exists and does not belong to network '{}'", spec.bridge, spec.id))
            .with_hint("choose another name for the network"));
  if (!link) VIRGA_CHECK(netlink_->create_bridge(spec.bridge, bridge_mac(prefix_, spec.id), group_));
  VIRGA_CHECK(netlink_->set_link(spec.bridge, {.mtu = spec.mtu, .alias = alias, .no_ipv6_address = has_ipv6}));
  VIRGA_CHECK(run(writer_.bridge(rules)));
  bridges_.insert_or_assign(spec.bridge, rules);
  if (has_ipv6) {
    VIRGA_CHECK(set_sysctl(fmt::format("ipv6/conf/{}/disable_ipv6", spec.bridge), rules.ipv6 ? "0" : "1"));
    VIRGA_CHECK(set_sysctl(fmt::format("ipv6/conf/{}/accept_ra", spec.bridge), "0"));
  }
  if (rules.ipv4) VIRGA_CHECK(set_sysctl("ipv4/ip_forward", "1"));
  if (rules.ipv6) {
    VIRGA_TRY(auto links, netlink_->links());
    VIRGA_CHECK(forward_ipv6(links));
  }
  std::vector<std::string> addresses;
  for (const auto* cidr : {&spec.ipv4_cidr, &spec.ipv6_cidr})
    if (!cidr->empty()) addresses.push_back(*cidr);
  // Router advertisements must come from a link-local address. The kernel's own would be unusable until some time after the first
  // guest is there, and that guest would wait for its next solicitation.
  VIRGA_TRY(const auto mac, parse_mac(bridge_mac(prefix_, spec.id)));
  if (rules.ipv6) addresses.push_back(link_local(mac).text() + "/64");
  VIRGA_CHECK(netlink_->set_addresses(spec.bridge, addresses));
  return netlink_->set_link(spec.bridge, {.up = true});
}

Result<> BridgeKernel::remove(const BridgeSpec& spec) {
  VIRGA_TRY(auto name, InterfaceName::parse(spec.bridge));
  VIRGA_CHECK(open());
  VIRGA_TRY(auto link, netlink_->find_link(spec.bridge));
  const bool ours = link && owned(*link) && (link->alias.empty() || link->alias == network_alias(spec.id));
  if (link && !ours && !bridges_.contains(spec.bridge)) return {};  // never made: the name belongs to somebody else
  if (ours) VIRGA_CHECK(netlink_->delete_link(spec.bridge));
  // With the tables gone there is nothing to take out, and they need not come back for that.
  if (auto done = nft_->run(writer_.remove_bridge(name)); !done && done.error().kind() != ErrorKind::not_found) return done;
  bridges_.erase(spec.bridge);
  return drop_empty_tables();
}

Result<> BridgeKernel::plug(const NicSpec& spec, const NicTarget& target) {
  VIRGA_TRY(auto rules, check_spec(spec));
  VIRGA_CHECK(open());
  VIRGA_TRY(auto alias, nic_alias(spec, target));
  VIRGA_TRY(auto bridge, netlink_->find_link(spec.bridge));
  if (!bridge) return fail(ErrorKind::not_found, fmt::format("bridge '{}' does not exist", spec.bridge));
  VIRGA_TRY(auto link, netlink_->find_link(spec.host_name));
  if (link) {
    const auto w = words(link->alias);
    if (!owned(*link) || (!link->alias.empty() && (w.size() < 2 || w[1] != spec.guest_id)))
      return fail(ErrorKind::exists, fmt::format("interface '{}' exists and does not belong to this guest", spec.host_name));
    if (link->alias != alias) {
      VIRGA_CHECK(unplug(spec.host_name));
      link.reset();
    }
  }
  if (!link) {
    if (const auto* tap = std::get_if<TapTarget>(&target)) {
      VIRGA_CHECK(netlink_->create_tap(spec.host_name, tap->owner, alias));
    } else {
      const auto& space = std::get<NamespaceTarget>(target);
      VIRGA_CHECK(netlink_->create_veth({.host_name = spec.host_name,
                                         .peer_name = space.guest_name,
                                         .peer_mac = spec.mac,
                                         .peer_pid = space.pid,
                                         .mtu = spec.mtu,
                                         .group = group_}));
    }
  }
  auto joined = [&]() -> Result<> {
    if (!link) VIRGA_CHECK(netlink_->set_link(spec.host_name, {.alias = alias}));
    VIRGA_CHECK(run(writer_.nic(rules)));  // before the link is up
    nics_.insert_or_assign(spec.host_name, rules);
    return netlink_->set_link(
        spec.host_name, {.up = true, .mtu = spec.mtu, .master = spec.bridge, .no_ipv6_address = io::exists("/proc/sys/net/ipv6")});
  }();
  if (!joined) (void)unplug(spec.host_name);
  return joined;
}

Result<> BridgeKernel::unplug(const std::string& host_name) {
  VIRGA_TRY(const bool there, begin_unplug(host_name));
  if (there) VIRGA_CHECK(netlink_->delete_link(host_name));
  return end_unplug(host_name);
}

// The link goes first: it is never up without its rules. Rules of a link that is gone hurt nobody, and the next start clears them.
Result<bool> BridgeKernel::begin_unplug(const std::string& host_name) {
  VIRGA_CHECK(InterfaceName::parse(host_name));
  VIRGA_CHECK(open());
  VIRGA_TRY(auto link, netlink_->find_link(host_name));
  if (!link || !owned(*link)) return false;
  if (auto rules = nic_of(*link)) nics_.insert_or_assign(host_name, std::move(*rules));
  return true;
}

Result<> BridgeKernel::end_unplug(const std::string& host_name) {
  if (auto it = nics_.find(host_name); it != nics_.end()) {
    if (auto done = nft_->run(writer_.remove_nic(it->second)); !done && done.error().kind() != ErrorKind::not_found) return done;
    nics_.erase(it);
  }
  return drop_empty_tables();
}

Result<BridgeState> BridgeKernel::observe(const std::string& bridge) {
  VIRGA_CHECK(open());
  VIRGA_TRY(auto links, netlink_->links());
  auto link = std::find_if(links.begin(), links.end(), [&](const io::Link& l) { return l.name == bridge; });
  if (link == links.end()) return fail(ErrorKind::not_found, fmt::format("bridge '{}' does not exist", bridge));
  BridgeState out;
  out.up = link->up;
  out.mac = link->mac;
  out.mtu = link->mtu;
  out.counters = {.bytes_received = link->counters.rx_bytes,
                  .bytes_sent = link->counters.tx_bytes,
                  .packets_received = link->counters.rx_packets,
                  .packets_sent = link->counters.tx_packets};
  VIRGA_TRY(auto addresses, netlink_->addresses(link->index));
  for (auto& a : addresses)
    out.addresses.push_back({a.v6 ? "inet6" : "inet", std::move(a.address), std::to_string(a.prefix), std::move(a.scope)});
  for (const auto& port : links)
    if (port.master == link->index) out.ports.push_back(port.name);
  return out;
}

Result<std::vector<std::string>> BridgeKernel::subnets() {
  VIRGA_CHECK(open());
  VIRGA_TRY(auto addresses, netlink_->addresses());
  std::vector<std::string> out;
  for (const auto& a : addresses)
    if (a.scope == "global") out.push_back(fmt::format("{}/{}", a.address, a.prefix));
  return out;
}

Result<bool> BridgeKernel::interface_exists(const std::string& name) {
  VIRGA_CHECK(open());
  VIRGA_TRY(auto link, netlink_->find_link(name));
  return link.has_value();
}

Result<std::vector<std::string>> BridgeKernel::nics() {
  VIRGA_CHECK(open());
  VIRGA_TRY(auto links, netlink_->links());
  std::vector<std::string> out;
  for (const auto& link : links)
    if (owned(link) && link.kind != "bridge") out.push_back(link.name);
  return out;
}

}  // namespace virga::network
