#include "engine/server/address.h"

#include <arpa/inet.h>

#include "base/units.h"

namespace virga::engine {
namespace {

bool is_v4(const std::string& host) {
  in_addr out{};
  return ::inet_pton(AF_INET, host.c_str(), &out) == 1;
}
bool is_v6(const std::string& host) {
  in6_addr out{};
  return ::inet_pton(AF_INET6, host.c_str(), &out) == 1;
}

}  // namespace

Result<ListenAddress> parse_listen_address(std::string_view text) {
  const auto wrong = [&] {
    std::string shown(text.substr(0, 80));
    for (char& c : shown)
      if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) c = '?';
    return fail(ErrorKind::invalid, "'" + shown + "' is not an IP address with port, as in '[::]:8443'");
  };
  if (text.empty() || text.find('\0') != std::string_view::npos) return wrong();
  std::string_view host = text, port;
  if (text.front() == '[') {
    const auto close = text.find(']');
    if (close == std::string_view::npos) return wrong();
    host = text.substr(1, close - 1);
    const auto rest = text.substr(close + 1);
    if (!rest.empty() && (rest.front() != ':' || rest.size() == 1)) return wrong();
    if (!rest.empty()) port = rest.substr(1);
    if (!is_v6(std::string(host))) return wrong();
  } else if (const auto colon = text.find(':'); colon != std::string_view::npos && colon == text.rfind(':')) {
    host = text.substr(0, colon);
    port = text.substr(colon + 1);
    if (port.empty() || (!host.empty() && !is_v4(std::string(host)))) return wrong();
  } else if (!is_v4(std::string(host)) && !is_v6(std::string(host))) {
    return wrong();
  }
  ListenAddress out;
  out.host = std::string(host);
  if (!port.empty()) {
    const auto number = parse_integer(port, 1, 65535);
    if (!number) return wrong();
    out.port = static_cast<std::uint16_t>(*number);
  }
  return out;
}

std::string to_string(const ListenAddress& a) {
  const std::string host = a.host.find(':') != std::string::npos ? "[" + a.host + "]" : a.host;
  return host + ":" + std::to_string(a.port);
}

}  // namespace virga::engine
