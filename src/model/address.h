// IP and MAC addresses as values: parsed once, compared and counted as numbers, written in one normal form.
#pragma once

#include <array>
#include <compare>
#include <cstdint>
#include <string>
#include <string_view>

#include "base/error.h"

namespace virga {

struct Mac {
  std::array<std::uint8_t, 6> bytes{};
  auto operator<=>(const Mac&) const = default;
  std::string text() const;  ///< "00:16:3e:0a:0b:0c"
};
/// Six pairs of hexadecimal digits with colons; not multicast, not zero. Errors: invalid.
Result<Mac> parse_mac(std::string_view text);

/// IPv4 or IPv6. The bytes are in network order; IPv4 uses the first four.
struct IpAddress {
  bool v6 = false;
  std::array<std::uint8_t, 16> bytes{};
  auto operator<=>(const IpAddress&) const = default;
  std::string text() const;
  unsigned bits() const { return v6 ? 128 : 32; }
};
/// Errors: invalid (no address, or with a zone or prefix length).
Result<IpAddress> parse_ip(std::string_view text);

/// An address with its prefix length: of a host ("10.1.2.1/24") or, when host bits are zero, of a subnet.
struct Cidr {
  IpAddress address;
  unsigned prefix = 0;
  auto operator<=>(const Cidr&) const = default;
  std::string text() const;
  Cidr subnet() const;  ///< the same with host bits zero
  bool contains(const IpAddress& other) const;
  bool overlaps(const Cidr& other) const;
  /// The n-th address of the subnet; only the low 64 bits count.
  IpAddress host(std::uint64_t n) const;
  /// How many addresses it has, at most 2^63.
  std::uint64_t size() const;
  std::string netmask() const;  ///< "255.255.255.0"; for IPv4
};
Result<Cidr> parse_cidr(std::string_view text);

/// What a guest with this MAC gives itself in a /64 (EUI-64): in `subnet`, or link-local.
IpAddress eui64(const Cidr& subnet, const Mac& mac);
IpAddress link_local(const Mac& mac);

}  // namespace virga
