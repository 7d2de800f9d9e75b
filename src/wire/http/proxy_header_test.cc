#include "wire/http/proxy_header.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <poll.h>

#include <thread>
#include <vector>

#include "wire/http/fixture_test.h"

namespace virga::http {
namespace {

using namespace std::chrono_literals;
using testing::Done;
using testing::ServerFixture;

constexpr std::string_view signature("\r\n\r\n\0\r\nQUIT\n", 12);

std::string line(std::string text) {
  auto parsed = parse_proxy_line(text);
  return !parsed ? "wrong" : *parsed ? (*parsed)->address + " " + (*parsed)->host : "none";
}
std::string block(int command, int family, std::string_view body, int length = -1) {
  std::string text(signature);
  text.push_back(static_cast<char>(command));
  text.push_back(static_cast<char>(family));
  const auto n = length < 0 ? body.size() : static_cast<std::size_t>(length);
  text.push_back(static_cast<char>(n >> 8));
  text.push_back(static_cast<char>(n & 255));
  return text.append(body);
}
std::string read_block(const std::string& text) {
  auto parsed = parse_proxy_block(text);
  return !parsed ? "wrong" : *parsed ? (*parsed)->address : "none";
}

TEST(ProxyHeader, ALineNamesTheClient) {
  EXPECT_EQ(line("PROXY TCP4 192.0.2.7 192.0.2.9 4711 8443\r\n"), "192.0.2.7:4711 192.0.2.7");
  EXPECT_EQ(line("PROXY TCP6 2001:db8::7 2001:db8::9 4711 8443\r\n"), "[2001:db8::7]:4711 2001:db8::7");
  EXPECT_EQ(line("PROXY TCP6 ::ffff:192.0.2.7 2001:db8::9 4711 8443\r\n"), "192.0.2.7:4711 192.0.2.7");
  EXPECT_EQ(line("PROXY UNKNOWN\r\n"), "none");
  EXPECT_EQ(line("PROXY UNKNOWN anything at all\r\n"), "none");
  for (const char* text :
       {"", "PROXY\r\n", "PROXY \r\n", "PROXY TCP4 192.0.2.7 192.0.2.9 4711\r\n", "PROXY TCP4 192.0.2.7 192.0.2.9 4711 8443 1\r\n",
        "PROXY TCP4 192.0.2.7  192.0.2.9 4711 8443\r\n", "PROXY TCP4 192.0.2.7 192.0.2.9 4711 65536\r\n",
        "PROXY TCP4 192.0.2.7 192.0.2.9 -1 8443\r\n", "PROXY TCP4 2001:db8::7 192.0.2.9 4711 8443\r\n",
        "PROXY TCP4 localhost 192.0.2.9 4711 8443\r\n", "PROXY UDP4 192.0.2.7 192.0.2.9 4711 8443\r\n",
        "proxy TCP4 192.0.2.7 192.0.2.9 4711 8443\r\n", "PROXY TCP4 192.0.2.7 192.0.2.9 4711 8443\n", "PROXY UNKNOWNX\r\n"})
    EXPECT_EQ(line(text), "wrong") << text;
  EXPECT_EQ(line("PROXY UNKNOWN " + std::string(200, 'x') + "\r\n"), "wrong");
}

TEST(ProxyHeader, ABlockNamesTheClient) {
  const std::string v4("\xc0\x00\x02\x07\xc0\x00\x02\x09\x12\x67\x20\xfb", 12);
  std::string v6(36, '\0');
  v6[0] = 0x20;
  v6[1] = 0x01;
  v6[15] = 7;
  v6[32] = 0x12;
  v6[33] = 0x67;
  EXPECT_EQ(read_block(block(0x21, 0x11, v4)), "192.0.2.7:4711");
  EXPECT_EQ(read_block(block(0x21, 0x11, v4 + std::string("\x04\x00\x01x", 4))), "192.0.2.7:4711") << "more may follow";
  EXPECT_EQ(read_block(block(0x21, 0x21, v6)), "[2001::7]:4711");
  EXPECT_EQ(read_block(block(0x20, 0x11, v4)), "none") << "LOCAL";
  EXPECT_EQ(read_block(block(0x21, 0x31, std::string(216, 'x'))), "none") << "a unix socket";
  EXPECT_EQ(read_block(block(0x21, 0x00, "")), "none");
  EXPECT_EQ(read_block(block(0x11, 0x11, v4)), "wrong") << "version 1";
  EXPECT_EQ(read_block(block(0x22, 0x11, v4)), "wrong") << "no such command";
  EXPECT_EQ(read_block(block(0x21, 0x11, v4.substr(0, 11))), "wrong") << "too short";
  EXPECT_EQ(read_block(block(0x21, 0x21, v4)), "wrong") << "too short for IPv6";
  EXPECT_EQ(read_block(block(0x21, 0x11, v4, 13)), "wrong") << "the length is another";
  const auto good = block(0x21, 0x11, v4);
  for (std::size_t i = 0; i < good.size(); ++i) EXPECT_EQ(read_block(good.substr(0, i)), "wrong");
}

/// A server that answers with the address it sees, and the bytes that stand before TLS. TLS itself is not spoken: what matters is
/// whether the server goes on to the handshake, which answers nonsense with an alert, or hangs up without a word.
struct Proxied : ::testing::Test {
  explicit Proxied(Milliseconds handshake = 300ms) : fixture(answer, options(trusted, handshake)) {
    fixture.loop.call([&] {
      const auto identity = make_self_signed("test", {}).value();
      auto bound = fixture.server->listen_tls("127.0.0.1:0", identity);
      ASSERT_TRUE(bound) << bound.error().text();
      port = static_cast<std::uint16_t>(std::stoi(bound->substr(bound->rfind(':') + 1)));
    });
  }
  static Task<Response> answer(Request&) { co_return Response{}; }
  static ServerOptions options(bool& trusted, Milliseconds handshake) {
    ServerOptions out;
    out.limits.header_timeout = handshake;
    out.limits.max_connections_per_peer = 2;
    out.trusts_proxy = [&trusted](const std::string& host) { return trusted && host == "127.0.0.1"; };
    return out;
  }
  io::UniqueFd open(std::string_view bytes) const {
    io::UniqueFd fd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(port);
    ::inet_pton(AF_INET, "127.0.0.1", &address.sin_addr);
    timeval patience{20, 0};
    ::setsockopt(fd.get(), SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    EXPECT_EQ(::connect(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
    ServerFixture::send(fd, bytes);
    return fd;
  }
  /// "tls": the handshake has begun; "closed": not.
  std::string after(std::string_view bytes) const {
    const auto answer = ServerFixture::read_to_end(open(bytes));
    return answer.empty() ? "closed" : answer[0] == 0x15 ? "tls" : answer;
  }

  bool trusted = true;
  ServerFixture fixture;
  std::uint16_t port = 0;
};

constexpr std::string_view nonsense("\x16\x03\x01\x00\x05HELLO", 10);

TEST_F(Proxied, OnlyATrustedProxyIsListenedTo) {
  const std::string header = "PROXY TCP4 192.0.2.7 192.0.2.9 4711 8443\r\n";
  EXPECT_EQ(after(nonsense), "tls") << "it may speak for itself";
  EXPECT_EQ(after(header + std::string(nonsense)), "tls");
  EXPECT_EQ(after("PROXY UNKNOWN\r\n" + std::string(nonsense)), "tls") << "no byte of TLS is taken";
  EXPECT_EQ(after(block(0x20, 0, "") + std::string(nonsense)), "tls");
  EXPECT_EQ(after(block(0x21, 0x31, std::string(216, 'x')) + std::string(nonsense)), "tls");
  EXPECT_EQ(after("PROXY TCP4 192.0.2.7 nowhere 4711 8443\r\n" + std::string(nonsense)), "closed");
  EXPECT_EQ(after("PROXY TCP4 " + std::string(200, 'x')), "closed");
  EXPECT_EQ(after(block(0x21, 0x11, "", 0xffff)), "closed");
  EXPECT_EQ(after("GET / HTTP/1.1\r\nHost: x\r\n\r\n"), "closed");
  EXPECT_EQ(after("PROXY TCP4 192.0.2.7"), "closed") << "at the deadline";
  EXPECT_EQ(after(""), "closed") << "at the deadline";
  fixture.loop.call([&] { trusted = false; });
  EXPECT_EQ(after(nonsense), "tls");
  EXPECT_EQ(after(header + std::string(nonsense)), "closed") << "the header is nonsense to TLS";
}

struct ProxiedSlowly : Proxied {
  ProxiedSlowly() : Proxied(5s) {}
};

TEST_F(ProxiedSlowly, EachClientHasItsOwnShareOfTheConnections) {
  const auto from = [](const char* host) { return "PROXY TCP4 " + std::string(host) + " 192.0.2.9 4711 8443\r\n"; };
  std::vector<io::UniqueFd> connections;
  for (const char* host : {"192.0.2.1", "192.0.2.2", "192.0.2.1", "192.0.2.2", "192.0.2.1"})
    connections.push_back(open(from(host)));
  std::vector<pollfd> waiting;
  for (const auto& fd : connections) waiting.push_back({fd.get(), POLLIN, 0});
  EXPECT_EQ(::poll(waiting.data(), waiting.size(), 4'000), 1) << "one of the three of the first has no room";
  for (std::size_t i : {1u, 3u}) EXPECT_EQ(waiting[i].revents, 0);
  connections.clear();
  const auto count = [&] {
    std::size_t n = 0;
    fixture.loop.call([&] { n = fixture.server->connections(); });
    return n;
  };
  for (int i = 0; i < 2'000 && count() != 0; ++i) std::this_thread::sleep_for(10ms);
  EXPECT_EQ(count(), 0u);
  for (int i = 0; i < 3; ++i) EXPECT_EQ(after(from("192.0.2.1") + std::string(nonsense)), "tls") << "all were given back";
}

}  // namespace
}  // namespace virga::http
