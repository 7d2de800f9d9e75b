// What S40 to S42 ask of the server, tried over raw sockets; and what well-behaved clients get.
#include "wire/http/server.h"

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include <atomic>
#include <chrono>

#include "wire/http/fixture_test.h"

namespace virga::http {
namespace {

using namespace std::chrono_literals;
using testing::Done;
using testing::ServerFixture;

std::string body_of(const std::string& answer) {
  const auto end = answer.find("\r\n\r\n");
  return end == std::string::npos ? "" : answer.substr(end + 4);
}

/// Echoes method, path and body; "/upload" counts bytes as they stream; "/wait" waits until cancelled; "/big" and "/file" answer
/// with much.
struct Echo {
  std::atomic<int> calls{0};
  std::atomic<std::uint64_t> streamed{0};
  std::atomic<bool> cancelled{false};
  std::string file;

  Task<Response> operator()(Request& request) {
    ++calls;
    Response response;
    response.content_type = "text/plain";
    const std::string first = request.path.empty() ? "" : request.path[0];
    if (first == "upload") {
      std::string buffer(10'000, '\0');
      while (true) {
        auto n = co_await request.body->read_some(buffer);
        if (!n) {
          response.status = 400;
          response.body = n.error().chain();
          co_return response;
        }
        if (*n == 0) break;
        streamed += *n;
      }
      response.body = std::to_string(streamed);
      co_return response;
    }
    if (first == "ignore") {
      response.body = "ignored";
      co_return response;
    }
    if (first == "wait") {
      request.cancel_on_hangup = true;
      cancelled = !co_await sleep_for(60s);
      co_return response;
    }
    if (first == "throw") throw std::runtime_error("a bug");
    if (first == "big") {
      response.body = std::string(32u << 20, 'x');
      co_return response;
    }
    if (first == "file") {
      FileBody body;
      body.fd.reset(::open(file.c_str(), O_RDONLY | O_CLOEXEC));
      struct stat st{};
      ::fstat(body.fd.get(), &st);
      body.length = static_cast<std::uint64_t>(st.st_size);
      response.body = std::move(body);
      co_return response;
    }
    if (first == "evil") response.headers.emplace_back("Location", "/x\r\nSet-Cookie: a=b");
    auto body = co_await request.body->read_all(1u << 20);
    if (!body) {
      response.status = request.body->too_large() ? 413 : 400;
      response.body = body.error().chain();
      response.close = true;
      co_return response;
    }
    std::string text = std::string(to_string(request.method));
    for (const auto& segment : request.path) text += "|" + segment;
    response.body = text + "|" + *body;
    co_return response;
  }
};

struct Server_ : ::testing::Test {
  void start(ServerOptions options = {}) {
    fixture.emplace([this](Request& request) { return echo(request); }, std::move(options));
  }
  Echo echo;
  std::optional<ServerFixture> fixture;
};
using HttpServer = Server_;

TEST_F(HttpServer, KeepsConnectionsAndAnswersPipelinedRequestsInOrder) {
  start();
  auto fd = fixture->connect();
  fixture->send(fd,
                "GET /a HTTP/1.1\r\nHost: x\r\n\r\nPOST /b HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nhi"
                "POST /c HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nyo\r\n0\r\n\r\nGET /d HTTP/1.1\r\nHost: "
                "x\r\nConnection: close\r\n\r\n");
  const auto all = fixture->read_to_end(fd);
  const auto a = all.find("GET|a|"), b = all.find("POST|b|hi"), c = all.find("POST|c|yo"), d = all.find("GET|d|");
  EXPECT_NE(d, std::string::npos) << all;
  EXPECT_TRUE(a < b && b < c && c < d) << all;
  EXPECT_EQ(echo.calls, 4);
}

TEST_F(HttpServer, RefusesSmugglingWithoutCallingTheHandler) {
  start();
  for (std::string_view bytes :
       {std::string_view("POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET "
                         "/admin HTTP/1.1\r\nHost: x\r\n\r\n"),
        std::string_view("POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nContent-Length: 5\r\n\r\nGET /"),
        std::string_view("GET /x HTTP/1.1\nHost: x\n\n"), std::string_view("GET /x HTTP/1.1\r\nHost: x\r\nA: b\r\n c\r\n\r\n"),
        std::string_view("GET http://evil/ HTTP/1.1\r\nHost: x\r\n\r\n"),
        std::string_view("GET /a%2f..%2fb HTTP/1.1\r\nHost: x\r\n\r\n"), std::string_view("GET /a//b HTTP/1.1\r\nHost: x\r\n\r\n"),
        std::string_view("GET /a/..;/b HTTP/1.1\r\nHost: x\r\n\r\n"), std::string_view("GET /a\0b HTTP/1.1\r\nHost: x\r\n\r\n", 30),
        std::string_view("GET /a%00 HTTP/1.1\r\nHost: x\r\n\r\n"), std::string_view("GET / HTTP/1.1\r\n\r\n"),
        std::string_view("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\n", 12)}) {
    const auto answer = fixture->raw(bytes);
    EXPECT_TRUE(answer.starts_with("HTTP/1.1 400 ")) << bytes << "\n-> " << answer;
    EXPECT_EQ(answer.find("HTTP/1.1", 1), std::string::npos) << "a second answer: " << answer;
    EXPECT_NE(answer.find("Connection: close"), std::string::npos);
  }
  EXPECT_EQ(echo.calls, 0);
}

TEST_F(HttpServer, RefusesMalformedChunks) {
  start();
  for (std::string_view chunks : {"2;a=b\r\nhi\r\n0\r\n\r\n", "fffffffffffffffff\r\nhi", "2\r\nhixx", "0\r\nTrailer: x\r\n\r\n"}) {
    const auto answer = fixture->raw("POST /x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" + std::string(chunks));
    EXPECT_TRUE(answer.starts_with("HTTP/1.1 400 ")) << chunks << "\n-> " << answer;
    EXPECT_EQ(answer.find("(no end)"), std::string::npos);
  }
}

TEST_F(HttpServer, BoundsTheHead) {
  start();
  EXPECT_TRUE(fixture->raw("GET /" + std::string(70'000, 'a') + " HTTP/1.1\r\nHost: x\r\n\r\n").starts_with("HTTP/1.1 431 "));
  std::string many = "GET / HTTP/1.1\r\nHost: x\r\n";
  for (int i = 0; i < 10'000; ++i) many += "A: b\r\n";
  EXPECT_TRUE(fixture->raw(many + "\r\n").starts_with("HTTP/1.1 431 "));
  EXPECT_EQ(echo.calls, 0);
}

TEST_F(HttpServer, RefusesLargeBodiesBeforeTheyAreSent) {
  start();
  EXPECT_TRUE(fixture->raw("POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 107374182400\r\n\r\n").starts_with("HTTP/1.1 413 "));
  auto fd = fixture->connect();
  fixture->send(fd, "POST /x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n");
  const std::string chunk = "10000\r\n" + std::string(65536, 'x') + "\r\n";
  for (int i = 0; i < 64 && fixture->send(fd, chunk); ++i) {
  }
  EXPECT_TRUE(fixture->read_to_end(fd).starts_with("HTTP/1.1 413 "));
}

TEST_F(HttpServer, StreamsUploadsOfAnySize) {
  start();
  auto fd = fixture->connect();
  constexpr std::uint64_t size = 8u << 20;
  fixture->send(fd,
                "POST /upload HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: " + std::to_string(size) + "\r\n\r\n");
  const std::string part(1u << 20, 'x');
  for (int i = 0; i < 8; ++i) ASSERT_TRUE(fixture->send(fd, part));
  EXPECT_EQ(body_of(fixture->read_to_end(fd)), std::to_string(size));
}

TEST_F(HttpServer, SaysContinueOnlyWhenTheHandlerReads) {
  start();
  auto fd = fixture->connect();
  fixture->send(fd, "POST /x HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 2\r\nConnection: close\r\n\r\n");
  std::string got;
  ASSERT_TRUE(fixture->read_until(fd, got, "100 Continue\r\n\r\n"));
  fixture->send(fd, "hi");
  EXPECT_EQ(body_of(fixture->read_to_end(fd)), "POST|x|hi");
  const auto refused = fixture->raw("POST /ignore HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n");
  EXPECT_TRUE(refused.starts_with("HTTP/1.1 200 ")) << refused;
  EXPECT_NE(refused.find("Connection: close"), std::string::npos);
}

TEST_F(HttpServer, SkipsASmallBodyThatNobodyReadAndKeepsTheConnection) {
  start();
  auto fd = fixture->connect();
  fixture->send(fd,
                "POST /ignore HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhelloGET /next HTTP/1.1\r\nHost: x\r\nConnection: "
                "close\r\n\r\n");
  EXPECT_TRUE(fixture->read_to_end(fd).ends_with("GET|next|"));
}

ServerOptions impatient() {
  ServerOptions options;
  options.limits.header_timeout = 120ms;
  options.limits.idle_timeout = 250ms;
  options.limits.transfer_timeout = 150ms;
  return options;
}

TEST_F(HttpServer, EndsHeadersAndBodiesThatDrip) {
  start(impatient());
  const auto begin = std::chrono::steady_clock::now();
  auto head = fixture->connect();
  auto body = fixture->connect();
  fixture->send(body, "POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n");
  bool head_ended = false, body_ended = false;
  while (!(head_ended && body_ended) && std::chrono::steady_clock::now() - begin < 15s) {
    head_ended = head_ended || !fixture->send(head, "G");
    body_ended = body_ended || !fixture->send(body, "x");
    std::this_thread::sleep_for(20ms);  // the drip itself
  }
  EXPECT_TRUE(head_ended);
  EXPECT_TRUE(body_ended);
}

TEST_F(HttpServer, EndsIdleConnections) {
  start(impatient());
  auto silent = fixture->connect();
  EXPECT_EQ(fixture->read_to_end(silent), "");
  auto used = fixture->connect();
  fixture->send(used, "GET /a HTTP/1.1\r\nHost: x\r\n\r\n");
  EXPECT_TRUE(fixture->read_to_end(used).ends_with("GET|a|"));
}

TEST_F(HttpServer, EndsAClientThatNeverReads) {
  start(impatient());
  auto fd = fixture->connect();
  fixture->send(fd, "GET /big HTTP/1.1\r\nHost: x\r\n\r\n");
  while (echo.calls == 0) std::this_thread::yield();
  const auto begin = std::chrono::steady_clock::now();
  std::size_t left = 1;
  while (left != 0 && std::chrono::steady_clock::now() - begin < 15s) {
    fixture->loop.call([&] { left = fixture->server->connections(); });
    std::this_thread::sleep_for(10ms);
  }
  EXPECT_EQ(left, 0u);
  const auto got = fixture->read_to_end(fd);
  EXPECT_LT(got.size(), 32u << 20);
}

TEST_F(HttpServer, OthersAreServedWhileManyDrip) {
  start();
  std::vector<io::UniqueFd> attackers;
  for (int i = 0; i < 300; ++i) {
    attackers.push_back(fixture->connect());
    fixture->send(attackers.back(), "GET / HT");
  }
  const auto begin = std::chrono::steady_clock::now();
  EXPECT_TRUE(fixture->raw("GET /a HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").ends_with("GET|a|"));
  EXPECT_LT(std::chrono::steady_clock::now() - begin, 2s);
}

TEST_F(HttpServer, CapsConnectionsOfAPeerAndFreesThemAgain) {
  ServerOptions options;
  options.limits.max_connections_per_peer = 3;
  start(options);
  std::vector<io::UniqueFd> held;
  for (int i = 0; i < 3; ++i) {
    held.push_back(fixture->connect());
    std::string got;
    fixture->send(held.back(), "GET /a HTTP/1.1\r\nHost: x\r\n\r\n");
    ASSERT_TRUE(fixture->read_until(held.back(), got, "GET|a|"));
  }
  EXPECT_TRUE(fixture->raw("").starts_with("HTTP/1.1 503 "));
  held.clear();
  std::size_t left = 1;
  while (left != 0) fixture->loop.call([&] { left = fixture->server->connections(); });
  EXPECT_TRUE(fixture->raw("GET /a HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").ends_with("GET|a|"));
}

TEST_F(HttpServer, SurvivesRunningOutOfDescriptors) {
#if defined(__has_feature)
#if __has_feature(address_sanitizer)
  GTEST_SKIP() << "the sanitizer opens pipes to look at memory and takes their failure for a bad pointer";
#endif
#endif
  start();
  rlimit before{};
  ::getrlimit(RLIMIT_NOFILE, &before);
  io::UniqueFd probe(::open("/dev/null", O_RDONLY | O_CLOEXEC));
  // Connections are made first; the server then cannot take all of them.
  rlimit tight = before;
  std::vector<io::UniqueFd> clients;
  clients.reserve(8);
  for (int i = 0; i < 8; ++i) clients.emplace_back(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  tight.rlim_cur = static_cast<rlim_t>(clients.back().get()) + 2;
  ::setrlimit(RLIMIT_NOFILE, &tight);
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  fixture->socket_path().copy(address.sun_path, sizeof address.sun_path - 1);
  for (auto& c : clients) ::connect(c.get(), reinterpret_cast<sockaddr*>(&address), sizeof address);
  // Those that were turned away see the end; waiting for it shows that the listener goes on.
  timeval patience{20, 0};
  ::setsockopt(clients.back().get(), SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
  EXPECT_EQ(fixture->read_to_end(clients.back()), "");
  ::setrlimit(RLIMIT_NOFILE, &before);
  clients.clear();
  EXPECT_TRUE(fixture->raw("GET /a HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").ends_with("GET|a|"));
}

TEST_F(HttpServer, CancelsAWaitingHandlerWhenItsClientLeaves) {
  start(impatient());
  auto fd = fixture->connect();
  fixture->send(fd, "GET /wait HTTP/1.1\r\nHost: x\r\n\r\n");
  while (echo.calls == 0) std::this_thread::yield();
  fd.reset();
  std::size_t left = 1;
  const auto begin = std::chrono::steady_clock::now();
  while (left != 0 && std::chrono::steady_clock::now() - begin < 15s)
    fixture->loop.call([&] { left = fixture->server->connections(); });
  EXPECT_TRUE(echo.cancelled);
}

TEST_F(HttpServer, AnExceptionInAHandlerIsA500AndTheServerGoesOn) {
  start();
  EXPECT_TRUE(fixture->raw("GET /throw HTTP/1.1\r\nHost: x\r\n\r\n").starts_with("HTTP/1.1 500 "));
  EXPECT_TRUE(fixture->raw("GET /a HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").ends_with("GET|a|"));
}

TEST_F(HttpServer, AHeaderValueCannotBeginAnotherHeader) {
  start();
  const auto answer = fixture->raw("GET /evil HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
  EXPECT_EQ(answer.find("\r\nSet-Cookie"), std::string::npos) << answer;
}

TEST_F(HttpServer, HeadHasTheLengthAndNoBody) {
  start();
  const auto answer = fixture->raw("HEAD /big HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
  EXPECT_NE(answer.find("Content-Length: 33554432"), std::string::npos);
  EXPECT_EQ(body_of(answer), "");
}

TEST_F(HttpServer, StopsGracefully) {
  start();
  auto idle = fixture->connect();
  std::string got;
  fixture->send(idle, "GET /a HTTP/1.1\r\nHost: x\r\n\r\n");
  ASSERT_TRUE(fixture->read_until(idle, got, "GET|a|"));
  auto busy = fixture->connect();
  fixture->send(busy, "POST /b HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nh");
  while (echo.calls < 2) std::this_thread::yield();
  std::thread stopper([&] {
    fixture->loop.run([&]() -> Task<Done> {
      co_await fixture->server->stop(10s);
      co_return Done{};
    });
  });
  EXPECT_EQ(fixture->read_to_end(idle), "") << "nothing is lost by closing it";
  EXPECT_FALSE(fixture->connect());
  fixture->send(busy, "i");
  const auto answer = fixture->read_to_end(busy);
  EXPECT_TRUE(answer.ends_with("POST|b|hi")) << answer;
  EXPECT_NE(answer.find("Connection: close"), std::string::npos);
  stopper.join();
}

TEST_F(HttpServer, TheSocketHasItsModeAndThePeerItsCredentials) {
  std::optional<Peer> seen;
  ServerFixture own([&](Request& request) -> Task<Response> {
    seen = *request.peer;
    co_return Response{};
  });
  struct stat st{};
  ASSERT_EQ(::stat(own.socket_path().c_str(), &st), 0);
  EXPECT_EQ(st.st_mode & 0777, 0660u);
  own.raw("GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
  ASSERT_TRUE(seen);
  EXPECT_TRUE(seen->local);
  EXPECT_EQ(seen->uid, ::getuid());
  EXPECT_EQ(seen->pid, ::getpid());
}

}  // namespace
}  // namespace virga::http
