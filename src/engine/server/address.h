// Where the daemon listens for HTTPS, as core.https_address says it.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/error.h"

namespace virga::engine {

struct ListenAddress {
  std::string host;  ///< an IP address without brackets; empty: all addresses, IPv6 and IPv4
  std::uint16_t port = 8443;
};

/// "10.0.0.1:8443", "[::1]:8443", "[::]", "::1", ":8443", "10.0.0.1". Errors: invalid.
Result<ListenAddress> parse_listen_address(std::string_view text);
/// "10.0.0.1:8443", "[::1]:8443", ":8443".
std::string to_string(const ListenAddress& address);

}  // namespace virga::engine
