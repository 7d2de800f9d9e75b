#include "model/network.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "base/units.h"
#include "model/name.h"

namespace virga {

Result<> check_dns_domain(std::string_view value) {
  bool ok = value.size() <= 190;
  std::size_t at = 0;
  while (ok && at <= value.size()) {
    const auto end = std::min(value.find('.', at), value.size());
    const auto label = value.substr(at, end - at);
    ok = !label.empty() && label.size() <= 63 && label.front() != '-' && label.back() != '-' &&
         label.find_first_not_of("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-") == std::string_view::npos;
    at = end + 1;
  }
  return ok ? Result<>{} : fail(ErrorKind::invalid, "write a DNS domain as lab.example");
}

namespace {

Result<> boolean(std::string_view value) {
  auto r = parse_bool(value);
  return r ? Result<>{} : fail(std::move(r).error());
}

Result<> own_address(std::string_view value, bool v6) {
  if (value == "auto" || value == "none") return {};
  VIRGA_TRY(auto cidr, parse_cidr(value));
  const std::string_view example = v6 ? "fd42:1:2:3::1/64" : "10.1.2.1/24";
  if (cidr.address.v6 != v6)
    return fail(ErrorKind::invalid, fmt::format("write the bridge's own address as {}, or 'auto' or 'none'", example));
  const auto& b = cidr.address.bytes;
  if (cidr == cidr.subnet())
    return fail(ErrorKind::invalid,
                fmt::format("'{}' is a whole subnet: give the bridge one of its addresses, as {}", value, example));
  if (v6) {
    if (cidr.prefix != 64)
      return fail(ErrorKind::invalid, "guests give themselves IPv6 addresses in a subnet of 64 bits: use a prefix length of 64");
    if (b[0] == 0xff || (b[0] == 0xfe && (b[1] & 0xc0) == 0x80) || b[0] == 0)
      return fail(ErrorKind::invalid, "multicast, link-local and reserved IPv6 addresses do not make a network");
  } else {
    if (cidr.prefix < 8 || cidr.prefix > 29) return fail(ErrorKind::invalid, "use a prefix length of 8 to 29");
    if (b[0] == 0 || b[0] == 127 || b[0] >= 224 || (b[0] == 169 && b[1] == 254))
      return fail(ErrorKind::invalid, "loopback, link-local and multicast addresses do not make a network");
    if (cidr.address == cidr.host(cidr.size() - 1)) return fail(ErrorKind::invalid, "that is the subnet's broadcast address");
  }
  return {};
}
Result<> own_ipv4(std::string_view value) {
  return own_address(value, false);
}
Result<> own_ipv6(std::string_view value) {
  return own_address(value, true);
}

Result<> mtu(std::string_view value) {
  auto r = parse_integer(value, 1280, 65535);
  return r ? Result<>{} : fail(std::move(r).error());
}

Result<> free_text(std::string_view value) {
  if (value.size() > 65536 || value.find('\0') != std::string_view::npos)
    return fail(ErrorKind::invalid, "the value is longer than 64 KiB or holds a NUL");
  return {};
}

constexpr std::array<NetworkKeyRule, 9> rules{{
    {"bridge.mtu", "integer", "1500", "largest packet on the bridge and its NICs, in bytes", mtu},
    {"dns.domain", "string", "virga", "domain of the guests' names", check_dns_domain},
    {"ipv4.address", "string", "auto when created", "the bridge's IPv4 address with prefix length, 'auto' or 'none'", own_ipv4},
    {"ipv4.dhcp", "bool", "true", "whether guests get their IPv4 addresses by DHCP", boolean},
    {"ipv4.nat", "bool", "false (true when the address was chosen automatically)",
     "whether guests reach other networks under the host's address", boolean},
    {"ipv6.address", "string", "auto when created", "the bridge's IPv6 address with prefix length, 'auto' or 'none'", own_ipv6},
    {"ipv6.dhcp", "bool", "true", "whether guests get DNS and other settings by DHCPv6", boolean},
    {"ipv6.nat", "bool", "false (true when the address was chosen automatically)",
     "whether guests reach other networks under the host's address", boolean},
    {"user.*", "string", "", "free for the user", free_text},
}};

std::string value_of(const Config& config, const char* key, std::string fallback) {
  auto it = config.find(key);
  return it == config.end() || it->second.empty() ? fallback : it->second;
}

}  // namespace

std::string_view to_string(NetworkStatus status) noexcept {
  return status == NetworkStatus::created ? "Created" : "Errored";
}

std::span<const NetworkKeyRule> network_keys() {
  return rules;
}

json::object encode(const Network& network) {
  return {
      {"name", network.name}, {"type", network.type}, {"description", network.description}, {"config", to_json(network.config)}};
}

Result<Network> decode_network(const json::object& document) {
  Fields f(document);
  Network out;
  VIRGA_TRY(out.name, f.string("name"));
  VIRGA_TRY(out.type, f.string("type", "bridge"));
  VIRGA_TRY(out.description, f.string("description"));
  VIRGA_TRY(out.config, f.string_map("config"));
  return out;
}

Result<> check(const Network& network) {
  VIRGA_CHECK(check_interface_name("name", network.name));
  for (std::string_view taken : {"all", "default", "lo"})  // these two name all interfaces at once below /proc/sys/net
    if (network.name == taken) return invalid("name", fmt::format("a network cannot be named '{}'", taken));
  VIRGA_CHECK(check_description(network.description));
  if (network.type != "bridge")
    return fail(Error(ErrorKind::unsupported,
                      fmt::format("networks of type '{}' are not supported yet: use bridge", network.type.substr(0, 40)))
                    .with_field("type"));
  for (const auto& [key, value] : network.config) {
    const auto shown = key.substr(0, 100);
    for (char c : key)
      if (static_cast<unsigned char>(c) <= 0x20 || c == 0x7f || c == '=' || c == '"')
        return invalid("config", "a configuration key holds a blank, a quote, '=' or a control character");
    auto rule = std::find_if(rules.begin(), rules.end(), [&name = key](const NetworkKeyRule& r) {
      if (!r.key.ends_with('*')) return r.key == name;
      return name.size() >= r.key.size() && name.starts_with(r.key.substr(0, r.key.size() - 1));
    });
    if (rule == rules.end()) {
      auto error = Error(ErrorKind::invalid, fmt::format("network configuration key '{}' is unknown or not supported yet", shown))
                       .with_field("config." + shown);
      auto near = nearest(
          key, {"bridge.mtu", "dns.domain", "ipv4.address", "ipv4.dhcp", "ipv4.nat", "ipv6.address", "ipv6.dhcp", "ipv6.nat"});
      if (!near.empty()) error = std::move(error).with_hint(fmt::format("did you mean '{}'?", near));
      return fail(std::move(error));
    }
    if (value.empty()) continue;
    if (auto ok = rule->check(value); !ok)
      return fail(std::move(ok).error().with_field("config." + shown).wrap(fmt::format("invalid value for 'config.{}'", shown)));
  }
  return {};
}

Result<NetworkSettings> settings(const Network& network) {
  NetworkSettings out;
  const auto& c = network.config;
  const auto address = [&](const char* key) -> Result<std::optional<Cidr>> {
    const auto text = value_of(c, key, "none");
    if (text == "none") return std::optional<Cidr>{};
    VIRGA_TRY(auto cidr, parse_cidr(text));
    return std::optional<Cidr>(cidr);
  };
  VIRGA_TRY(out.ipv4, address("ipv4.address"));
  VIRGA_TRY(out.ipv6, address("ipv6.address"));
  VIRGA_TRY(out.ipv4_nat, parse_bool(value_of(c, "ipv4.nat", "false")));
  VIRGA_TRY(out.ipv6_nat, parse_bool(value_of(c, "ipv6.nat", "false")));
  VIRGA_TRY(out.ipv4_dhcp, parse_bool(value_of(c, "ipv4.dhcp", "true")));
  VIRGA_TRY(out.ipv6_dhcp, parse_bool(value_of(c, "ipv6.dhcp", "true")));
  out.dns_domain = value_of(c, "dns.domain", "virga");
  VIRGA_TRY(auto mtu_value, parse_integer(value_of(c, "bridge.mtu", "1500"), 1280, 65535));
  out.mtu = static_cast<std::uint32_t>(mtu_value);
  return out;
}

}  // namespace virga
