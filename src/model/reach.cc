#include "model/reach.h"

#include <algorithm>
#include <array>

namespace virga {
namespace {

struct Range {
  std::string_view prefix;
  Reach reach;
};

// The first that holds the address decides; what none holds is global (IPv4) or refused (IPv6 outside 2000::/3).
constexpr std::array ranges_v4 = {
    Range{"0.0.0.0/8", Reach::never},
    Range{"10.0.0.0/8", Reach::private_network},
    Range{"100.64.0.0/10", Reach::private_network},
    Range{"127.0.0.0/8", Reach::loopback},
    Range{"169.254.0.0/16", Reach::never},
    Range{"172.16.0.0/12", Reach::private_network},
    Range{"192.0.0.0/24", Reach::never},
    Range{"192.168.0.0/16", Reach::private_network},
    Range{"198.18.0.0/15", Reach::private_network},
    Range{"224.0.0.0/3", Reach::never},
};
constexpr std::array ranges_v6 = {
    Range{"::1/128", Reach::loopback},
    Range{"fc00::/7", Reach::private_network},
    Range{"2000::/3", Reach::global},
};

bool holds(std::string_view prefix, const IpAddress& address) {
  const auto cidr = parse_cidr(prefix);
  return cidr && cidr->contains(address);
}

IpAddress embedded(const IpAddress& address, std::size_t offset) {
  IpAddress out;
  std::copy_n(address.bytes.begin() + static_cast<std::ptrdiff_t>(offset), 4, out.bytes.begin());
  return out;
}

}  // namespace

std::string_view to_string(Reach reach) noexcept {
  switch (reach) {
    case Reach::global:
      return "public";
    case Reach::private_network:
      return "private";
    case Reach::loopback:
      return "loopback";
    case Reach::never:
      break;
  }
  return "link-local or reserved";
}

Reach reach_of(const IpAddress& address) noexcept {
  if (!address.v6) {
    for (const auto& range : ranges_v4)
      if (holds(range.prefix, address)) return range.reach;
    return Reach::global;
  }
  if (holds("::ffff:0:0/96", address) || holds("64:ff9b::/96", address)) return reach_of(embedded(address, 12));
  if (holds("2002::/16", address)) return std::max(Reach::global, reach_of(embedded(address, 2)));
  for (const auto& range : ranges_v6)
    if (holds(range.prefix, address)) return range.reach;
  return Reach::never;
}

}  // namespace virga
