// The PROXY protocol, versions 1 and 2: a header before the TLS handshake in which a proxy says whose connection it passes on. Only
// read from proxies that the administrator trusts. Internal to wire/http.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "base/error.h"
#include "base/task.h"

namespace virga::http {

class Transport;

struct ProxiedClient {
  std::string address;  ///< "192.0.2.1:4711", "[2001:db8::1]:4711"
  std::string host;     ///< without the port
};

/// A whole header of version 1, "PROXY TCP4 192.0.2.1 192.0.2.9 4711 8443\r\n". Absent: UNKNOWN, the proxy speaks for itself.
/// Errors: invalid.
Result<std::optional<ProxiedClient>> parse_proxy_line(std::string_view line);
/// A whole header of version 2, the 16 bytes and what they announce. Absent: LOCAL, or no address of the internet. Errors: invalid.
Result<std::optional<ProxiedClient>> parse_proxy_block(std::string_view block);

/// Reads a header off a connection on which nothing was read yet. Absent: there is none, as TLS begins at once, or it names nobody.
/// Errors: invalid, and those of Transport::read_some.
Task<Result<std::optional<ProxiedClient>>> read_proxy_header(Transport& transport);

}  // namespace virga::http
