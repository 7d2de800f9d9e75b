// Fetching over TLS: pinned certificates, redirects, limits of reach, stalled servers.
#include "wire/http/fetch.h"

#include <gtest/gtest.h>

#include "wire/http/fixture_test.h"

namespace virga::http {
namespace {

using testing::ServerFixture;

struct Fetch : ::testing::Test {
  Fetch() : fixture([this](Request& request) { return answer(request); }) {
    identity = make_self_signed("server", {"localhost", "127.0.0.1"}).value();
    fixture.loop.call([&] {
      const auto address = fixture.server->listen_tls("127.0.0.1:0", identity);
      ASSERT_TRUE(address) << address.error().text();
      base = "https://" + *address;
    });
  }

  Task<Response> answer(Request& request) {
    ++requests;
    Response response;
    const std::string first = request.path.empty() ? "" : request.path[0];
    if (first == "redirect") {
      response.status = 302;
      response.headers.emplace_back("Location", location);
    } else if (first == "loop") {
      response.status = 301;
      response.headers.emplace_back("Location", "/loop");
    } else if (first == "hang") {
      co_await sleep_for(Milliseconds(20'000));
    } else if (first == "large") {
      response.body = std::string(3u << 20, 'x');
    } else if (first == "who") {
      response.body = request.peer->certificate ? request.peer->certificate->fingerprint : "nobody";
    } else {
      response.body = "hello|" + std::string(request.headers.get("x-test"));
    }
    co_return response;
  }

  FetchRequest to(const std::string& path) const {
    FetchRequest out;
    out.url = base + path;
    out.server_certificate = identity.certificate;
    out.reach = Reach::loopback;
    return out;
  }
  Result<FetchResponse> run(FetchRequest request) {
    return fixture.loop.run([&]() -> Task<Result<FetchResponse>> { co_return co_await fetch(std::move(request)); });
  }

  ServerFixture fixture;
  Identity identity;
  std::string base, location;
  int requests = 0;
};

TEST_F(Fetch, TakesAnAnswerFromAServerWhoseCertificateIsKnown) {
  auto request = to("/x");
  request.headers = {{"X-Test", "1"}};
  auto response = run(request);
  ASSERT_TRUE(response) << response.error().text();
  EXPECT_EQ(response->answer.status, 200);
  EXPECT_EQ(response->answer.body, "hello|1");
}

TEST_F(Fetch, RefusesEveryOtherCertificate) {
  auto request = to("/x");
  request.server_certificate = make_self_signed("server", {"127.0.0.1"}).value().certificate;
  EXPECT_EQ(run(request).error().kind(), ErrorKind::denied);
  request.server_certificate.clear();  // no authority has signed it
  EXPECT_FALSE(run(request));
  EXPECT_EQ(requests, 0);
}

TEST_F(Fetch, DoesNotReachFurtherInsideThanAllowed) {
  auto request = to("/x");
  for (const auto reach : {Reach::global, Reach::private_network}) {
    request.reach = reach;
    EXPECT_EQ(run(request).error().kind(), ErrorKind::denied);
  }
  request.url = "https://localhost" + base.substr(base.rfind(':')) + "/x";
  EXPECT_EQ(run(request).error().kind(), ErrorKind::denied);
  request.url = "https://169.254.169.254/x";
  request.reach = Reach::loopback;
  EXPECT_EQ(run(request).error().kind(), ErrorKind::denied);
  EXPECT_EQ(requests, 0);
}

TEST_F(Fetch, FollowsRedirectsOfTheSameServerOnly) {
  location = "/x";
  auto response = run(to("/redirect"));
  ASSERT_TRUE(response) << response.error().text();
  EXPECT_EQ(response->url, base + "/x");
  for (const auto* bad :
       {"file:///etc/passwd", "http://127.0.0.1/", "https://169.254.169.254/latest", "https://localhost/x", "unix:/run/x"}) {
    location = bad;
    EXPECT_FALSE(run(to("/redirect"))) << bad;
  }
  EXPECT_EQ(run(to("/loop")).error().kind(), ErrorKind::unavailable);
}

TEST_F(Fetch, ShowsOurCertificateWhenAsked) {
  EXPECT_EQ(run(to("/who")).value().answer.body, "nobody");
  auto request = to("/who");
  request.identity = make_self_signed("client", {}).value();
  EXPECT_EQ(run(request).value().answer.body, describe_certificate(request.identity->certificate).value().fingerprint);
}

TEST_F(Fetch, GivesUpOnAServerThatSaysNothing) {
  auto request = to("/hang");
  request.patience = Milliseconds(200);
  const auto error = run(request).error();
  EXPECT_EQ(error.kind(), ErrorKind::timeout) << error.text();
}

TEST_F(Fetch, BoundsWhatIsKeptInMemory) {
  auto request = to("/large");
  request.max_body = 1u << 20;
  EXPECT_EQ(run(request).error().kind(), ErrorKind::invalid);
}

TEST_F(Fetch, HandsAStreamOn) {
  auto request = to("/large");
  std::size_t total = 0;
  request.receive = [&](const ClientResponse& head, Body& body) -> Task<Result<>> {
    EXPECT_EQ(head.status, 200);
    std::string buffer(70'000, '\0');
    while (true) {
      VIRGA_CO_TRY(const std::size_t n, co_await body.read_some(buffer));
      if (n == 0) co_return Result<>{};
      total += n;
    }
  };
  auto response = run(std::move(request));
  ASSERT_TRUE(response) << response.error().text();
  EXPECT_EQ(total, 3u << 20);
}

TEST(ProxyFor, KnowsWhoNeedsNone) {
  const Proxies proxies{.http = "http://p:3128", .https = "p:3129", .ignore_hosts = "example.org, .corp, 10.0.0.0/8"};
  auto of = [&](const char* url) -> std::string {
    const auto proxy = proxy_for(parse_url(url).value(), proxies).value();
    return proxy ? proxy->host + ":" + std::to_string(proxy->port) : "none";
  };
  EXPECT_EQ(of("http://h/"), "p:3128");
  EXPECT_EQ(of("https://h/"), "p:3129");
  EXPECT_EQ(of("https://example.org/"), "none");
  EXPECT_EQ(of("https://a.example.org/"), "none");
  EXPECT_EQ(of("https://badexample.org/"), "p:3129");
  EXPECT_EQ(of("https://a.corp/"), "none");
  EXPECT_EQ(of("https://10.1.2.3/"), "none");
  EXPECT_EQ(of("https://localhost/"), "none");
  EXPECT_EQ(of("https://127.0.0.1/"), "none");
  for (const auto* bad : {"https://p:1", "http://u@p:1", "http://p:1/path", "http://", "p:0"})
    EXPECT_FALSE(parse_proxy(bad)) << bad;
}

}  // namespace
}  // namespace virga::http
