// Which HTTP proxy, if any, a request to a host goes through. Pure.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "base/error.h"
#include "wire/http/url.h"

namespace virga::http {

struct Proxies {
  std::string http;          ///< for http:// URLs: "http://proxy:3128"; empty: none
  std::string https;         ///< for https:// URLs
  std::string ignore_hosts;  ///< hosts without proxy: "localhost,.example.org,10.0.0.0/8", or "*"
};

struct Proxy {
  std::string host;
  std::uint16_t port = 0;
};

/// "http://host:port" or "host:port". Errors: invalid (another scheme, a path, a user name).
Result<Proxy> parse_proxy(std::string_view text);
/// Absent: the host is spoken to directly; this machine always is. Errors: invalid (the proxy's URL).
Result<std::optional<Proxy>> proxy_for(const Url& url, const Proxies& proxies);

}  // namespace virga::http
