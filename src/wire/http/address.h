// Numeric socket addresses, "192.0.2.1:8443" or "[2001:db8::1]:8443". Internal to wire/http.
#pragma once

#include <netinet/in.h>
#include <sys/socket.h>

#include <string>

#include "base/error.h"

namespace virga::http {

struct SocketAddress {
  sockaddr_storage storage{};
  socklen_t size = 0;
  const sockaddr* get() const noexcept { return reinterpret_cast<const sockaddr*>(&storage); }
};

/// ":8443" is every address of both families. Errors: invalid.
Result<SocketAddress> parse_address(const std::string& text);
std::string format_address(const sockaddr* address);
/// Without the port, and an IPv4 address that came over IPv6 as IPv4: one peer, one name.
std::string host_of(const sockaddr* address);
/// For counting what one peer takes: of IPv6 the first 64 bits, since whoever has one address of such a network has them all.
std::string network_of(const std::string& host);

}  // namespace virga::http
