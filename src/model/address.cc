#include "model/address.h"

#include <arpa/inet.h>
#include <fmt/format.h>

#include <cstring>

#include "base/units.h"

namespace virga {
namespace {

int hex(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

bool same_prefix(const IpAddress& a, const IpAddress& b, unsigned prefix) {
  if (a.v6 != b.v6) return false;
  const unsigned whole = prefix / 8, rest = prefix % 8;
  if (std::memcmp(a.bytes.data(), b.bytes.data(), whole) != 0) return false;
  return rest == 0 || (a.bytes[whole] >> (8 - rest)) == (b.bytes[whole] >> (8 - rest));
}

}  // namespace

std::string Mac::text() const {
  return fmt::format("{:02x}:{:02x}:{:02x}:{:02x}:{:02x}:{:02x}", bytes[0], bytes[1], bytes[2], bytes[3], bytes[4], bytes[5]);
}

Result<Mac> parse_mac(std::string_view text) {
  Mac out;
  bool ok = text.size() == 17;
  for (std::size_t i = 0; ok && i < 6; ++i) {
    const int high = hex(text[i * 3]), low = hex(text[i * 3 + 1]);
    ok = high >= 0 && low >= 0 && (i == 5 || text[i * 3 + 2] == ':');
    if (ok) out.bytes[i] = static_cast<std::uint8_t>(high * 16 + low);
  }
  if (!ok) return fail(ErrorKind::invalid, "write a MAC address as 00:16:3e:12:34:56");
  if (out.bytes[0] & 1) return fail(ErrorKind::invalid, "a multicast MAC address cannot be a NIC's own");
  if (out == Mac{}) return fail(ErrorKind::invalid, "the MAC address is zero");
  return out;
}

std::string IpAddress::text() const {
  char buffer[INET6_ADDRSTRLEN] = "";
  ::inet_ntop(v6 ? AF_INET6 : AF_INET, bytes.data(), buffer, sizeof buffer);
  return buffer;
}

Result<IpAddress> parse_ip(std::string_view text) {
  IpAddress out;
  out.v6 = text.find(':') != std::string_view::npos;
  if (text.size() >= INET6_ADDRSTRLEN || text.find('\0') != std::string_view::npos ||
      ::inet_pton(out.v6 ? AF_INET6 : AF_INET, std::string(text).c_str(), out.bytes.data()) != 1)
    return fail(ErrorKind::invalid, "write an address as 10.1.2.3 or fd42::3");
  return out;
}

std::string Cidr::text() const {
  return fmt::format("{}/{}", address.text(), prefix);
}

Cidr Cidr::subnet() const {
  Cidr out = *this;
  for (unsigned bit = prefix; bit < address.bits(); ++bit)
    out.address.bytes[bit / 8] = static_cast<std::uint8_t>(out.address.bytes[bit / 8] & ~(0x80u >> (bit % 8)));
  return out;
}

bool Cidr::contains(const IpAddress& other) const {
  return same_prefix(address, other, prefix);
}

bool Cidr::overlaps(const Cidr& other) const {
  return same_prefix(address, other.address, std::min(prefix, other.prefix));
}

IpAddress Cidr::host(std::uint64_t n) const {
  IpAddress out = subnet().address;
  for (int i = static_cast<int>(address.bits() / 8) - 1; i >= 0 && n != 0; --i, n >>= 8)
    out.bytes[static_cast<std::size_t>(i)] = static_cast<std::uint8_t>(out.bytes[static_cast<std::size_t>(i)] | (n & 0xff));
  return out;
}

std::uint64_t Cidr::size() const {
  return 1ull << std::min(address.bits() - prefix, 63u);
}

std::string Cidr::netmask() const {
  IpAddress mask;
  for (unsigned bit = 0; bit < prefix && bit < 32; ++bit)
    mask.bytes[bit / 8] = static_cast<std::uint8_t>(mask.bytes[bit / 8] | (0x80u >> (bit % 8)));
  return mask.text();
}

Result<Cidr> parse_cidr(std::string_view text) {
  const auto slash = text.find('/');
  if (slash == std::string_view::npos)
    return fail(ErrorKind::invalid, "write an address with its prefix length, as 10.1.2.1/24 or fd42::1/64");
  Cidr out;
  VIRGA_TRY(out.address, parse_ip(text.substr(0, slash)));
  VIRGA_TRY(auto prefix, parse_integer(text.substr(slash + 1), 0, out.address.bits()));
  out.prefix = static_cast<unsigned>(prefix);
  return out;
}

IpAddress eui64(const Cidr& subnet, const Mac& mac) {
  IpAddress out = subnet.subnet().address;
  const auto& m = mac.bytes;
  const std::uint8_t low[8] = {static_cast<std::uint8_t>(m[0] ^ 2), m[1], m[2], 0xff, 0xfe, m[3], m[4], m[5]};
  std::memcpy(out.bytes.data() + 8, low, 8);
  return out;
}

IpAddress link_local(const Mac& mac) {
  Cidr space;
  space.address.v6 = true;
  space.address.bytes[0] = 0xfe;
  space.address.bytes[1] = 0x80;
  space.prefix = 64;
  return eui64(space, mac);
}

}  // namespace virga
