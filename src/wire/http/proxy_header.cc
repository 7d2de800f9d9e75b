#include "wire/http/proxy_header.h"

#include <arpa/inet.h>
#include <sys/socket.h>

#include <array>
#include <cstring>
#include <vector>

#include "base/units.h"
#include "wire/http/address.h"
#include "wire/http/transport.h"

namespace virga::http {
namespace {

constexpr std::string_view signature("\r\n\r\n\0\r\nQUIT\n", 12);
constexpr std::size_t longest_line = 107;
constexpr std::size_t shortest_line = 15;  // "PROXY UNKNOWN\r\n"
constexpr std::size_t block_head = 16;
constexpr std::size_t longest_block = 4096;  // addresses, and whatever the proxy has to add
constexpr char tls_handshake = 0x16;

tl::unexpected<Error> wrong() {
  return fail(ErrorKind::invalid, "the proxy's header is malformed");
}

ProxiedClient client_of(const sockaddr* address) {
  return {format_address(address), host_of(address)};
}

/// From the bytes of an address and a port.
ProxiedClient client_of(bool v6, std::string_view raw, std::uint16_t port) {
  if (v6) {
    sockaddr_in6 address{};
    address.sin6_family = AF_INET6;
    std::memcpy(&address.sin6_addr, raw.data(), sizeof address.sin6_addr);
    address.sin6_port = htons(port);
    return client_of(reinterpret_cast<const sockaddr*>(&address));
  }
  sockaddr_in address{};
  address.sin_family = AF_INET;
  std::memcpy(&address.sin_addr, raw.data(), sizeof address.sin_addr);
  address.sin_port = htons(port);
  return client_of(reinterpret_cast<const sockaddr*>(&address));
}

}  // namespace

Result<std::optional<ProxiedClient>> parse_proxy_line(std::string_view line) {
  if (line.size() > longest_line || !line.starts_with("PROXY ") || !line.ends_with("\r\n")) return wrong();
  line = line.substr(6, line.size() - 8);
  if (line == "UNKNOWN" || line.starts_with("UNKNOWN ")) return std::optional<ProxiedClient>();
  std::vector<std::string> words(1);
  for (const char c : line) {
    if (c == ' ') {
      words.emplace_back();
    } else {
      words.back().push_back(c);
    }
  }
  if (words.size() != 5 || (words[0] != "TCP4" && words[0] != "TCP6")) return wrong();
  const bool v6 = words[0] == "TCP6";
  std::array<char, sizeof(in6_addr)> from{}, to{};
  const int family = v6 ? AF_INET6 : AF_INET;
  if (::inet_pton(family, words[1].c_str(), from.data()) != 1 || ::inet_pton(family, words[2].c_str(), to.data()) != 1)
    return wrong();
  const auto port = parse_integer(words[3], 0, 65'535), other = parse_integer(words[4], 0, 65'535);
  if (!port || !other) return wrong();
  return std::optional(client_of(v6, {from.data(), from.size()}, static_cast<std::uint16_t>(*port)));
}

Result<std::optional<ProxiedClient>> parse_proxy_block(std::string_view block) {
  if (block.size() < block_head || !block.starts_with(signature)) return wrong();
  const auto byte = [&](std::size_t at) { return static_cast<unsigned char>(block[at]); };
  if (block.size() != block_head + (static_cast<std::size_t>(byte(14)) << 8 | byte(15))) return wrong();
  const int version = byte(12) >> 4, command = byte(12) & 15, family = byte(13);
  if (version != 2 || command > 1) return wrong();
  constexpr int tcp4 = 0x11, tcp6 = 0x21;
  if (command == 0 || (family != tcp4 && family != tcp6)) return std::optional<ProxiedClient>();
  const std::size_t length = family == tcp6 ? 16 : 4;
  if (block.size() < block_head + 2 * length + 4) return wrong();
  const auto at = block_head + 2 * length;
  const auto port = static_cast<std::uint16_t>(byte(at) << 8 | byte(at + 1));
  return std::optional(client_of(family == tcp6, block.substr(block_head, length), port));
}

Task<Result<std::optional<ProxiedClient>>> read_proxy_header(Transport& transport) {
  char first = 0;
  VIRGA_CO_TRY(const bool some, co_await transport.peek(first));
  if (!some || first == tls_handshake) co_return std::optional<ProxiedClient>();
  std::string text;
  const auto read_until = [&](std::size_t size) -> Task<Result<>> {
    while (text.size() < size) {
      std::array<char, 512> piece{};
      VIRGA_CO_TRY(const auto n, co_await transport.read_some(piece.data(), std::min(piece.size(), size - text.size())));
      if (n == 0) co_return wrong();
      text.append(piece.data(), n);
    }
    co_return Result<>{};
  };
  // No byte behind the header may be taken: it belongs to TLS.
  VIRGA_CO_CHECK(co_await read_until(shortest_line));
  if (text.starts_with(signature)) {
    VIRGA_CO_CHECK(co_await read_until(block_head));
    const auto rest = static_cast<std::size_t>(static_cast<unsigned char>(text[14])) << 8 | static_cast<unsigned char>(text[15]);
    if (rest > longest_block) co_return wrong();
    VIRGA_CO_CHECK(co_await read_until(block_head + rest));
    co_return parse_proxy_block(text);
  }
  if (!text.starts_with("PROXY ")) co_return wrong();
  while (!text.ends_with("\r\n")) {
    if (text.size() >= longest_line) co_return wrong();
    VIRGA_CO_CHECK(co_await read_until(text.size() + 1));
  }
  co_return parse_proxy_line(text);
}

}  // namespace virga::http
