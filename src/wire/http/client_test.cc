// The client against the server: unix socket and TLS, uploads, downloads, WebSockets.
#include "wire/http/client.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <fstream>

#include "wire/http/fixture_test.h"

namespace virga::http {
namespace {

using namespace std::chrono_literals;
using testing::Done;
using testing::ServerFixture;

Task<> echo_socket(std::unique_ptr<WebSocket> socket) {
  while (true) {
    auto message = co_await socket->read();
    if (!message || message->kind == WebSocket::Kind::close) break;
    if (message->data == "bye") {
      co_await socket->close(1000, "as asked");
      break;
    }
    auto written = message->kind == WebSocket::Kind::text ? co_await socket->write_text(std::move(message->data))
                                                          : co_await socket->write_binary(std::move(message->data));
    if (!written) break;
  }
}

struct Site {
  std::string file;
  std::optional<PeerCertificate> certificate;

  Task<Response> operator()(Request& request) {
    certificate = request.peer->certificate;
    Response response;
    const std::string first = request.path.empty() ? "" : request.path[0];
    if (first == "ws") {
      response.body = UpgradeBody(echo_socket);
    } else if (first == "file") {
      FileBody body;
      body.fd.reset(::open(file.c_str(), O_RDONLY | O_CLOEXEC));
      struct stat st{};
      ::fstat(body.fd.get(), &st);
      body.length = static_cast<std::uint64_t>(st.st_size);
      response.body = std::move(body);
    } else if (first == "upload") {
      std::uint64_t total = 0;
      std::string buffer(70'000, '\0');
      while (true) {
        auto n = co_await request.body->read_some(buffer);
        if (!n || *n == 0) break;
        total += *n;
      }
      response.body = std::to_string(total);
    } else if (first == "refuse") {
      response.status = 403;
      response.body = R"({"type":"error","error":"not allowed here","error_code":403,"metadata":null})";
    } else if (first == "close") {
      response.close = true;
      response.body = "closed";
    } else {
      auto body = co_await request.body->read_all(1u << 20);
      response.body = body.value_or("?") + "|" + std::string(request.headers.get("content-type"));
    }
    co_return response;
  }
};

struct HttpClient : ::testing::Test {
  HttpClient() : fixture([this](Request& request) { return site(request); }) {
    unix_endpoint.unix_path = fixture.socket_path();
    server_identity = make_self_signed("server", {"localhost", "127.0.0.1"}).value();
    client_identity = make_self_signed("client", {}).value();
    fixture.loop.call([&] {
      auto address = fixture.server->listen_tls("127.0.0.1:0", server_identity);
      ASSERT_TRUE(address) << address.error().text();
      tls_endpoint.host = "127.0.0.1";
      tls_endpoint.port = static_cast<std::uint16_t>(std::stoi(address->substr(address->rfind(':') + 1)));
      tls_endpoint.identity = client_identity;
      tls_endpoint.server_fingerprint = describe_certificate(server_identity.certificate).value().fingerprint;
    });
  }

  Result<ClientResponse> request(Client& client, ClientRequest r) {
    return fixture.loop.run([&]() -> Task<Result<ClientResponse>> { co_return co_await client.request(std::move(r)); });
  }

  Site site;
  ServerFixture fixture;
  Endpoint unix_endpoint, tls_endpoint;
  Identity server_identity, client_identity;
};

ClientRequest post(std::string target, std::string body) {
  ClientRequest r;
  r.method = "POST";
  r.target = std::move(target);
  r.body = std::move(body);
  return r;
}

TEST_F(HttpClient, SpeaksOverTheUnixSocketAndKeepsTheConnection) {
  Client client(unix_endpoint);
  for (int i = 0; i < 3; ++i) {
    auto answer = request(client, post("/x", "{}"));
    ASSERT_TRUE(answer) << answer.error().text();
    EXPECT_EQ(answer->body, "{}|application/json");
  }
  std::size_t connections = 0;
  fixture.loop.call([&] { connections = fixture.server->connections(); });
  EXPECT_EQ(connections, 1u);
}

TEST_F(HttpClient, OpensAClosedConnectionAgain) {
  Client client(unix_endpoint);
  EXPECT_EQ(request(client, post("/close", "")).value().body, "closed");
  EXPECT_TRUE(request(client, post("/x", "{}")));
}

TEST_F(HttpClient, AnotherServerTakesTheAddressWhileConnectionsGoOn) {
  Client client(tls_endpoint);
  ASSERT_TRUE(request(client, post("/x", "{}")));
  const auto everywhere = "0.0.0.0:" + std::to_string(tls_endpoint.port);
  std::optional<Server> next;
  fixture.loop.call([&] {
    next.emplace(fixture.loop.executor(), [this](Request& r) { return site(r); });
    auto taken = next->listen_tls(everywhere, server_identity);
    EXPECT_EQ(taken.error().kind(), ErrorKind::exists) << taken.error().text();
    fixture.server->stop_listening();
    auto now = next->listen_tls(everywhere, server_identity);
    EXPECT_TRUE(now) << now.error().text();
  });
  EXPECT_TRUE(request(client, post("/x", "{}"))) << "the old connection goes on";
  Client other(tls_endpoint);
  EXPECT_TRUE(request(other, post("/x", "{}")));
  std::size_t connections = 0;
  fixture.loop.call([&] { connections = next->connections(); });
  EXPECT_EQ(connections, 1u);
  fixture.loop.run([&]() -> Task<testing::Done> {
    co_await next->stop();
    co_return testing::Done{};
  });
  fixture.loop.call([&] { next.reset(); });
}

TEST_F(HttpClient, TellsWhenNobodyListens) {
  Endpoint nowhere;
  nowhere.unix_path = "/nonexistent/socket";
  Client client(nowhere);
  auto answer = request(client, post("/x", ""));
  ASSERT_FALSE(answer);
  EXPECT_EQ(answer.error().kind(), ErrorKind::unavailable);
}

TEST_F(HttpClient, ShowsItsCertificateOverTlsAndPinsTheServers) {
  Client client(tls_endpoint);
  auto answer = request(client, post("/x", "{}"));
  ASSERT_TRUE(answer) << answer.error().text();
  EXPECT_EQ(answer->body, "{}|application/json");
  ASSERT_TRUE(site.certificate);
  EXPECT_EQ(site.certificate->fingerprint, describe_certificate(client_identity.certificate).value().fingerprint);
  EXPECT_EQ(site.certificate->pem, client_identity.certificate);
  EXPECT_GT(site.certificate->not_after, std::chrono::system_clock::now());

  auto other = tls_endpoint;
  other.server_fingerprint = std::string(64, '0');
  Client suspicious(other);
  auto refused = request(suspicious, post("/x", "{}"));
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().kind(), ErrorKind::denied);

  auto unpinned = tls_endpoint;
  unpinned.server_fingerprint.clear();
  Client strict(unpinned);
  EXPECT_FALSE(request(strict, post("/x", "{}"))) << "a self-signed certificate is no authority";

  auto anonymous = tls_endpoint;
  anonymous.identity.reset();
  Client stranger(anonymous);
  EXPECT_TRUE(request(stranger, post("/x", "{}")));
  EXPECT_FALSE(site.certificate);
}

TEST_F(HttpClient, StreamsUploadsWithAndWithoutALength) {
  for (auto& endpoint : {unix_endpoint, tls_endpoint}) {
    for (bool with_length : {true, false}) {
      Client client(endpoint);
      constexpr std::uint64_t size = 5'000'000;
      std::uint64_t left = size;
      ClientRequest r;
      r.method = "POST";
      r.target = "/upload";
      r.upload = [&left](std::span<char> into) -> Result<std::size_t> {
        const auto n = std::min<std::uint64_t>(left, into.size());
        std::fill_n(into.data(), n, 'x');
        left -= n;
        return static_cast<std::size_t>(n);
      };
      if (with_length) r.upload_length = size;
      auto answer = request(client, std::move(r));
      ASSERT_TRUE(answer) << answer.error().text();
      EXPECT_EQ(answer->body, std::to_string(size));
    }
  }
}

TEST_F(HttpClient, ARefusedUploadIsNotSent) {
  Client client(unix_endpoint);
  ClientRequest r;
  r.method = "POST";
  r.target = "/refuse";
  bool asked = false;
  r.upload = [&](std::span<char>) -> Result<std::size_t> {
    asked = true;
    return std::size_t(0);
  };
  auto answer = request(client, std::move(r));
  ASSERT_TRUE(answer) << answer.error().text();
  EXPECT_EQ(answer->status, 403);
  EXPECT_FALSE(asked);
}

TEST_F(HttpClient, DownloadsFiles) {
  site.file = fixture.directory.path() + "/f";
  {
    std::ofstream out(site.file, std::ios::binary);
    for (int i = 0; i < 300'000; ++i) out << "0123456789";
  }
  for (auto& endpoint : {unix_endpoint, tls_endpoint}) {
    Client client(endpoint);
    std::uint64_t got = 0;
    bool right = true;
    ClientRequest r;
    r.target = "/file";
    r.download = [&](std::string_view part) -> Result<> {
      for (char c : part) right = right && c == static_cast<char>('0' + got++ % 10);
      return {};
    };
    auto answer = request(client, std::move(r));
    ASSERT_TRUE(answer) << answer.error().text();
    EXPECT_EQ(got, 3'000'000u);
    EXPECT_TRUE(right);
  }
}

TEST_F(HttpClient, WebSocketsEchoAndClose) {
  for (auto& endpoint : {unix_endpoint, tls_endpoint}) {
    fixture.loop.run([&]() -> Task<Done> {
      Client client(endpoint);
      auto socket = co_await client.websocket("/ws");
      EXPECT_TRUE(socket) << (socket ? "" : socket.error().text());
      if (!socket) co_return Done{};
      for (std::size_t size : {0u, 1u, 125u, 126u, 65'535u, 65'536u, 1u << 20}) {
        EXPECT_TRUE(co_await (*socket)->write_binary(std::string(size, 'b')));
        auto message = co_await (*socket)->read();
        EXPECT_TRUE(message);
        if (!message) co_return Done{};
        EXPECT_EQ(message->kind, WebSocket::Kind::binary);
        EXPECT_EQ(message->data, std::string(size, 'b'));
      }
      EXPECT_TRUE(co_await (*socket)->write_text("bye"));
      auto last = co_await (*socket)->read();
      EXPECT_TRUE(last);
      if (!last) co_return Done{};
      EXPECT_EQ(last->kind, WebSocket::Kind::close);
      EXPECT_EQ(last->code, 1000);
      EXPECT_EQ(last->data, "as asked");
      EXPECT_FALSE((*socket)->is_open());
      co_return Done{};
    });
  }
}

TEST_F(HttpClient, ARefusedWebSocketCarriesTheServersWords) {
  fixture.loop.run([&]() -> Task<Done> {
    Client client(unix_endpoint);
    auto socket = co_await client.websocket("/refuse");
    EXPECT_FALSE(socket);
    if (socket) co_return Done{};
    EXPECT_EQ(socket.error().kind(), ErrorKind::denied);
    EXPECT_EQ(socket.error().message(), "not allowed here");
    co_return Done{};
  });
}

constexpr std::string_view handshake =
    "GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: "
    "dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

TEST_F(HttpClient, TheHandshakeAnswersTheKeyOfTheRfc) {
  auto fd = fixture.connect();
  fixture.send(fd, handshake);
  std::string got;
  EXPECT_TRUE(fixture.read_until(fd, got, "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n")) << got;
}

TEST_F(HttpClient, HostileFramesCloseTheSocketWithTheRightCode) {
  const std::string mask(4, '\0');
  struct Case {
    std::string frame;
    unsigned code;
  };
  for (const auto& c : {Case{std::string("\x81\x01") + "a", 1002},   // not masked
                        Case{std::string("\xc1\x80") + mask, 1002},  // reserved bit
                        Case{std::string("\x83\x80") + mask, 1002},  // unknown opcode
                        Case{std::string("\x80\x80") + mask, 1002},  // continues nothing
                        Case{std::string("\x09\x80") + mask, 1002},  // a control frame in pieces
                        Case{std::string("\x81\xff\xff\xff\xff\xff\xff\xff\xff\xff", 10) + mask, 1009},  // 16 EB
                        Case{std::string("\x81\xfe\x00\x01", 4) + mask + "a", 1002},  // a length that is not minimal
                        Case{std::string("\x81\x81") + mask + "\xff", 1007},          // not UTF-8
                        Case{std::string("\x88\x81") + mask + "x", 1002}}) {          // half a close code
    auto fd = fixture.connect();
    fixture.send(fd, handshake);
    std::string got;
    ASSERT_TRUE(fixture.read_until(fd, got, "\r\n\r\n"));
    fixture.send(fd, c.frame);
    const auto frame = fixture.read_to_end(fd);
    ASSERT_GE(frame.size(), 4u);
    EXPECT_EQ(frame[0], '\x88');
    EXPECT_EQ(static_cast<unsigned>(static_cast<unsigned char>(frame[2])) << 8 | static_cast<unsigned char>(frame[3]), c.code);
    EXPECT_EQ(frame.find("(no end)"), std::string::npos);
  }
}

}  // namespace
}  // namespace virga::http
