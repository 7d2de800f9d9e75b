// How far inside a network an address lies, and how far a download may go: a server that a client names, a redirect, or a name
// whose address changes must not make the daemon speak to what only the daemon can reach. Pure.
#pragma once

#include <string_view>

#include "model/address.h"

namespace virga {

/// In the order of what is near: a limit allows itself and everything before it.
enum class Reach {
  global,           ///< addresses of the public network
  private_network,  ///< RFC 1918, unique local, shared address space
  loopback,         ///< this machine
  never,            ///< link-local (where clouds keep their secrets), multicast, unspecified, reserved
};

std::string_view to_string(Reach reach) noexcept;
/// An IPv4 address that is wrapped in an IPv6 one (mapped, NAT64, 6to4) counts as itself.
Reach reach_of(const IpAddress& address) noexcept;
inline bool may_reach(const IpAddress& address, Reach limit) noexcept {
  const auto reach = reach_of(address);
  return reach != Reach::never && reach <= limit;
}

}  // namespace virga
