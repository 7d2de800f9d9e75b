#include "engine/certificates/service.h"

#include "engine/certificates/x509.h"
#include "engine/service_test.h"

namespace virga::engine {
namespace {

using namespace std::chrono_literals;

// Made for this test with openssl req: P-256, valid for a hundred years, CN=kim@laptop and CN=old (expired in 2001).
constexpr const char* kim_pem = R"(-----BEGIN CERTIFICATE-----
MIIBgDCCASegAwIBAgIUOVeIhiJqIVgE2SV3TrD3LL3GDNQwCgYIKoZIzj0EAwIw
FTETMBEGA1UEAwwKa2ltQGxhcHRvcDAgFw0yNjExMjEwMDI1MzBaGA8yMTI2MTAy
ODAwMjUzMFowFTETMBEGA1UEAwwKa2ltQGxhcHRvcDBZMBMGByqGSM49AgEGCCqG
SM49AwEHA0IABFrgb7AYi7zOgNTEf2t7RpT/Y4th/QdcmOJfCVbCRmJAaRfaguED
D+a3d8sN+Q64NurdxiBY2XLkHmyAEU5DUq2jUzBRMB0GA1UdDgQWBBQgGODjAptP
HU7fMpe3Pknu4pAE8TAfBgNVHSMEGDAWgBQgGODjAptPHU7fMpe3Pknu4pAE8TAP
BgNVHRMBAf8EBTADAQH/MAoGCCqGSM49BAMCA0cAMEQCIBm47D7Vln+ENpAHMoKc
S4S3piwuf4m60RlVorLa7XChAiAsIdeOWFVBDZ2x8e6h1pA7yzgtq2SKVUdTCRzl
NulNxg==
-----END CERTIFICATE-----
)";
constexpr const char* old_pem = R"(-----BEGIN CERTIFICATE-----
MIIBAjCBqgIBATAKBggqhkjOPQQDAjAOMQwwCgYDVQQDDANvbGQwHhcNMDAwMTAx
MDAwMDAwWhcNMDEwMTAxMDAwMDAwWjAOMQwwCgYDVQQDDANvbGQwWTATBgcqhkjO
PQIBBggqhkjOPQMBBwNCAARa4G+wGIu8zoDUxH9re0aU/2OLYf0HXJjiXwlWwkZi
QGkX2oLhAw/mt3fLDfkOuDbq3cYgWNly5B5sgBFOQ1KtMAoGCCqGSM49BAMCA0cA
MEQCIAsDSiSXA2TbOyXQtABDmvOm1JZIzHA+bubrRFUWSqw+AiAGp61t246X4Egq
aUGXRNqlGVmwDcj8j1TRbPNXBGbV1w==
-----END CERTIFICATE-----
)";
constexpr const char* weak_pem = R"(-----BEGIN CERTIFICATE-----
MIIB/DCCAWWgAwIBAgIUJmUNAIANf8nQ5AGd3Tmzol36o/cwDQYJKoZIhvcNAQEL
BQAwDzENMAsGA1UEAwwEd2VhazAgFw0yNjExMjEwMDI1MzBaGA8yMTI2MTAyODAw
MjUzMFowDzENMAsGA1UEAwwEd2VhazCBnzANBgkqhkiG9w0BAQEFAAOBjQAwgYkC
gYEAqg2WpESNnXiRT3mFGepItryAhl+mJkthyVMvhMbg6qLTUO7FuvFlengl9DfL
JEVouuIQCcmXOTL2tDtp8yF6dtcz/lmEudUI/oPTC72BmogzN/mxmwr/9lsGRaOK
16e4xDHKfuVf7aEvPi5/+EIr8T4bOnmPP1hDAOOetszkjH0CAwEAAaNTMFEwHQYD
VR0OBBYEFC6DH+yKH0r1UgyZke1hxup0LXgMMB8GA1UdIwQYMBaAFC6DH+yKH0r1
UgyZke1hxup0LXgMMA8GA1UdEwEB/wQFMAMBAf8wDQYJKoZIhvcNAQELBQADgYEA
L0Cg06hmhVhircqmsiYyx04ahzH+kXuNzjjoNQIExz6OUR21F+RuIX6GvzIDL8SZ
ViEgpXbQyM9OQT4/HJDelHmviKEkbXCIn9+Bw5bAA2B6fX3F3yo8rP8QF40XeZg9
8cbOfBMB0PpjsetvdpNESSJYibdBbbJFmxA/s1AE7Ts=
-----END CERTIFICATE-----
)";
// For servers only; for clients and servers; of the next century.
constexpr const char* server_pem = R"(-----BEGIN CERTIFICATE-----
MIIBnzCCAUagAwIBAgIUGsL6SsQPZAVb+7IbzSKzZojTilswCgYIKoZIzj0EAwIw
GjEYMBYGA1UEAwwPd2ViLmV4YW1wbGUub3JnMCAXDTI2MTEyNjAxMDUzM1oYDzIx
MjYxMTAyMDEwNTMzWjAaMRgwFgYDVQQDDA93ZWIuZXhhbXBsZS5vcmcwWTATBgcq
hkjOPQIBBggqhkjOPQMBBwNCAAQIWR13X2TigTMZMMZ6tzBOjIJDBr3mSetop6WS
nEbYgeFF5gdJgFeXCw0NAnrPVzWJ9TI9BxnL8R9K4MMRg+pWo2gwZjAdBgNVHQ4E
FgQU8ZUFUE2uCggiua/38yEd86njxsAwHwYDVR0jBBgwFoAU8ZUFUE2uCggiua/3
8yEd86njxsAwDwYDVR0TAQH/BAUwAwEB/zATBgNVHSUEDDAKBggrBgEFBQcDATAK
BggqhkjOPQQDAgNHADBEAiBMcmspL0cANgQoWMvI36ZDPQk3ZgFCJGtQ/igwOEeu
GAIgWsYMwxENQI6tTWIEhAsSciR+YIWIEcPspffaaIXlhnU=
-----END CERTIFICATE-----
)";
constexpr const char* desk_pem = R"(-----BEGIN CERTIFICATE-----
MIIBmzCCAUKgAwIBAgIUJ/LQPPa9i4SJ5nhXUHU9ac3GQncwCgYIKoZIzj0EAwIw
EzERMA8GA1UEAwwIa2ltQGRlc2swIBcNMjYxMTI2MDEwNTMzWhgPMjEyNjExMDIw
MTA1MzNaMBMxETAPBgNVBAMMCGtpbUBkZXNrMFkwEwYHKoZIzj0CAQYIKoZIzj0D
AQcDQgAECFkdd19k4oEzGTDGercwToyCQwa95knraKelkpxG2IHhReYHSYBXlwsN
DQJ6z1c1ifUyPQcZy/EfSuDDEYPqVqNyMHAwHQYDVR0OBBYEFPGVBVBNrgoIIrmv
9/MhHfOp48bAMB8GA1UdIwQYMBaAFPGVBVBNrgoIIrmv9/MhHfOp48bAMA8GA1Ud
EwEB/wQFMAMBAf8wHQYDVR0lBBYwFAYIKwYBBQUHAwIGCCsGAQUFBwMBMAoGCCqG
SM49BAMCA0cAMEQCIGvpbtALkQfuG57ZwltqNSKQ8GAGQ3uio9qoVEBDSDv9AiBA
dPDwVIPzleU7YUHl9NCHHqAMeDXiJo68WLMLvCiShg==
-----END CERTIFICATE-----
)";
constexpr const char* early_pem = R"(-----BEGIN CERTIFICATE-----
MIIBCjCBsgIBATAKBggqhkjOPQQDAjAQMQ4wDAYDVQQDDAVlYXJseTAiGA8yMTAw
MDEwMTAwMDAwMFoYDzIyMDAwMTAxMDAwMDAwWjAQMQ4wDAYDVQQDDAVlYXJseTBZ
MBMGByqGSM49AgEGCCqGSM49AwEHA0IABAhZHXdfZOKBMxkwxnq3ME6MgkMGveZJ
62inpZKcRtiB4UXmB0mAV5cLDQ0Ces9XNYn1Mj0HGcvxH0rgwxGD6lYwCgYIKoZI
zj0EAwIDRwAwRAIgTiQHQr1rvRZ3y1qoiabeekGMxjHPTCItZGW9km77AWACIHcD
VafjlEz4+bs67NKQ1T+cwFzc6+o1COetgjUNuSit
-----END CERTIFICATE-----
)";
constexpr const char* kim_fingerprint = "80b0251808b6dc8f41f04b2b90ede4f8c8789a93a123242fb1317cda0faccb5d";

struct CertificatesTest : ServiceTest {
  Operations operations{io.get_executor(), events, clock, {.live = 2000, .finished = 10, .retention = 1ms, .secret_lifetime = 1s}};
  Certificates certificates{io.get_executor(), store, events, operations, clock};
  CertificatesTest() {
    certificates.set_server_info([] { return Certificates::ServerInfo{"feed", {"10.0.0.1:8443"}}; });
  }
  const Caller stranger{.username = "", .protocol = "tls", .address = "[::1]:9", .admin = false, .fingerprint = ""};
  Certificates::Request kim() {
    return {.name = "kim", .description = "", .type = "client", .restricted = false, .projects = {}, .certificate = kim_pem};
  }
  static std::string token_of(const Operation& op) {
    const auto m = op.to_json_for_creator().at("metadata").as_object();
    return encode_token({.client_name = std::string(m.at("request").at("name").as_string()),
                         .fingerprint = std::string(m.at("fingerprint").as_string()),
                         .addresses = {},
                         .secret = std::string(m.at("secret").as_string()),
                         .expires_at = parse_time(std::string(m.at("expiresAt").as_string())).value()});
  }
};

TEST_F(CertificatesTest, ReadsPemAndBase64AndRefusesTheRest) {
  auto pem = parse_certificate(kim_pem);
  ASSERT_TRUE(pem) << pem.error().text();
  EXPECT_EQ(pem->fingerprint, kim_fingerprint);
  EXPECT_EQ(pem->common_name, "kim@laptop");
  EXPECT_EQ(pem->pem, kim_pem);
  std::string body = kim_pem;
  body = body.substr(28, body.find("-----END") - 28);
  EXPECT_EQ(parse_certificate(body)->fingerprint, kim_fingerprint);
  EXPECT_EQ(parse_certificate("words before\n" + std::string(kim_pem))->fingerprint, kim_fingerprint);
  for (const std::string& bad :
       {std::string(), std::string("x"), std::string(kim_pem).substr(0, 200), std::string(kim_pem) + kim_pem,
        base64_encode(base64_decode(body).value() + "trailing"), std::string(100'000, 'A'), std::string(weak_pem)})
    EXPECT_FALSE(parse_certificate(bad)) << bad.substr(0, 100);
  // No byte of a certificate may bring the parser down.
  const std::string der = base64_decode(body).value();
  for (std::size_t i = 0; i < der.size(); ++i) {
    std::string bent = der;
    bent[i] = static_cast<char>(bent[i] ^ 0xff);
    (void)parse_certificate(base64_encode(bent));
    (void)parse_certificate(base64_encode(der.substr(0, i)));
  }
}

TEST_F(CertificatesTest, AddGetUpdateRemove) {
  run([&]() -> Task<> {
    EXPECT_TRUE(co_await certificates.start());
    auto added = co_await certificates.add(kim(), root);
    EXPECT_TRUE(added) << added.error().text();
    EXPECT_EQ(kind_of(co_await certificates.add(kim(), root)), ErrorKind::exists);
    EXPECT_EQ(certificates.get(std::string(kim_fingerprint).substr(0, 8)).value()->name, "kim");
    EXPECT_EQ(kind_of(certificates.get("")), ErrorKind::not_found);
    EXPECT_EQ(kind_of(certificates.get("zz")), ErrorKind::not_found);
    EXPECT_NE(certificates.trusted(kim_fingerprint), nullptr);
    EXPECT_EQ(certificates.trusted(std::string(kim_fingerprint).substr(0, 63)), nullptr) << "only the whole fingerprint counts";
    const Revision first = (*added)->revision;
    EXPECT_TRUE(co_await certificates.update(
        kim_fingerprint,
        {.name = "kim2", .description = "d", .type = "client", .restricted = false, .projects = {}, .certificate = {}}, first,
        root));
    EXPECT_EQ(kind_of(co_await certificates.update(
                  kim_fingerprint,
                  {.name = "kim3", .description = "", .type = "client", .restricted = false, .projects = {}, .certificate = {}},
                  first, root)),
              ErrorKind::conflict);
    EXPECT_EQ(kind_of(co_await certificates.update(
                  kim_fingerprint,
                  {.name = "kim3", .description = "", .type = "server", .restricted = true, .projects = {}, .certificate = {}}, {},
                  root)),
              ErrorKind::unsupported);
    Certificates again(io.get_executor(), store, events, operations, clock);
    EXPECT_TRUE(co_await again.start());
    EXPECT_EQ(again.trusted(kim_fingerprint)->name, "kim2");
    std::string removed;
    certificates.on_removed([&](const std::string& fingerprint) { removed = fingerprint; });
    EXPECT_TRUE(co_await certificates.remove(kim_fingerprint, root));
    EXPECT_EQ(removed, kim_fingerprint);
    EXPECT_EQ(certificates.trusted(kim_fingerprint), nullptr);
    EXPECT_EQ(kind_of(co_await certificates.remove(kim_fingerprint, root)), ErrorKind::not_found);
    EXPECT_EQ(actions.size(), 3u);
  });
}

TEST_F(CertificatesTest, OnlyThoseOfClientsAreTaken) {
  run([&]() -> Task<> {
    EXPECT_TRUE(co_await certificates.start());
    for (const char* pem : {server_pem, early_pem}) {
      auto wrong = kim();
      wrong.certificate = pem;
      auto refused = co_await certificates.add(wrong, root);
      EXPECT_EQ(kind_of(refused), ErrorKind::invalid);
      if (!refused) EXPECT_EQ(refused.error().field(), "certificate");
      auto made = co_await certificates.create_token(kim(), root);
      if (!made) {
        ADD_FAILURE();
        co_return;
      }
      EXPECT_EQ(kind_of(co_await certificates.add_by_token(token_of(**made), pem, stranger)), ErrorKind::invalid);
      EXPECT_TRUE(operations.cancel((*made)->id()));
    }
    auto desk = kim();
    desk.certificate = desk_pem;
    EXPECT_TRUE(co_await certificates.add(desk, root));
    co_await operations.stop();
  });
}

TEST_F(CertificatesTest, OneTakesThePlaceOfAnother) {
  run([&]() -> Task<> {
    EXPECT_TRUE(co_await certificates.start());
    EXPECT_TRUE(co_await certificates.add(kim(), root));
    std::vector<std::string> removed;
    certificates.on_removed([&](const std::string& fingerprint) { removed.push_back(fingerprint); });
    Certificates::Update next{
        .name = "kim", .description = "", .type = "client", .restricted = true, .projects = {}, .certificate = {}};
    for (const char* pem : {server_pem, early_pem, old_pem, "nonsense"}) {
      next.certificate = pem;
      EXPECT_EQ(kind_of(co_await certificates.update(kim_fingerprint, next, {}, root)), ErrorKind::invalid);
    }
    EXPECT_NE(certificates.trusted(kim_fingerprint), nullptr);
    next.certificate = desk_pem;
    auto renewed = co_await certificates.update(kim_fingerprint, next, {}, root);
    EXPECT_TRUE(renewed) << renewed.error().text();
    if (!renewed) co_return;
    const std::string fingerprint = (*renewed)->fingerprint;
    EXPECT_NE(fingerprint, kim_fingerprint);
    EXPECT_EQ((*renewed)->certificate, desk_pem);
    EXPECT_EQ(certificates.trusted(kim_fingerprint), nullptr);
    EXPECT_EQ(certificates.trusted(fingerprint), *renewed);
    EXPECT_EQ(removed, std::vector<std::string>{kim_fingerprint}) << "its connections end";
    EXPECT_EQ(actions.back(), "certificate-updated /1.0/certificates/" + fingerprint);
    EXPECT_EQ(kind_of(co_await certificates.update(kim_fingerprint, next, {}, root)), ErrorKind::not_found);
    EXPECT_TRUE(co_await certificates.update(fingerprint, next, {}, root)) << "by itself: nothing changes";
    EXPECT_TRUE(co_await certificates.add(kim(), root));
    EXPECT_EQ(kind_of(co_await certificates.update(kim_fingerprint, next, {}, root)), ErrorKind::exists);
    Certificates again(io.get_executor(), store, events, operations, clock);
    EXPECT_TRUE(co_await again.start());
    EXPECT_EQ(again.list().size(), 2u);
    EXPECT_NE(again.trusted(fingerprint), nullptr);
  });
}

TEST_F(CertificatesTest, ExpiredOnesAreNeitherTakenNorTrusted) {
  run([&]() -> Task<> {
    EXPECT_TRUE(co_await certificates.start());
    auto old = kim();
    old.certificate = old_pem;
    EXPECT_EQ(kind_of(co_await certificates.add(old, root)), ErrorKind::invalid);
    EXPECT_TRUE(co_await certificates.add(kim(), root));
    clock.advance(24h * 365 * 150);
    EXPECT_EQ(certificates.trusted(kim_fingerprint), nullptr);
    EXPECT_TRUE(certificates.get(kim_fingerprint)) << "but it is listed";
  });
}

TEST_F(CertificatesTest, ATokenWorksOnceAndItsSecretIsShownOnce) {
  run([&]() -> Task<> {
    EXPECT_TRUE(co_await certificates.start());
    auto op = co_await certificates.create_token(
        {.name = "laptop", .description = "", .type = "client", .restricted = false, .projects = {}, .certificate = ""}, root);
    EXPECT_TRUE(op);
    const std::string token = token_of(**op);
    const std::string secret = decode_token(token)->secret;
    EXPECT_EQ((*op)->status(), OperationStatus::running);
    EXPECT_EQ(json::serialize((*op)->to_json()).find(secret), std::string::npos);
    auto rows = co_await store.list("/");
    for (const auto& row : *rows) EXPECT_EQ((row.key + row.value).find(secret), std::string::npos) << "the store holds its hash";

    auto wrong = encode_token({.client_name = "laptop",
                               .fingerprint = "feed",
                               .addresses = {},
                               .secret = std::string(64, '0'),
                               .expires_at = clock.now() + 1h});
    EXPECT_EQ(kind_of(co_await certificates.add_by_token(wrong, kim_pem, stranger)), ErrorKind::denied);
    EXPECT_EQ(kind_of(co_await certificates.add_by_token("nonsense", kim_pem, stranger)), ErrorKind::denied);
    EXPECT_EQ(kind_of(co_await certificates.add_by_token(token, "no certificate", stranger)), ErrorKind::invalid);
    EXPECT_TRUE(certificates.list().empty());

    auto added = co_await certificates.add_by_token(token, kim_pem, stranger);
    EXPECT_TRUE(added) << added.error().text();
    EXPECT_EQ((*added)->name, "laptop");
    auto waited = co_await operations.wait((*op)->id(), 1s);
    EXPECT_EQ((*op)->status(), OperationStatus::success);
    EXPECT_TRUE(co_await certificates.remove(kim_fingerprint, root));
    EXPECT_EQ(kind_of(co_await certificates.add_by_token(token, kim_pem, stranger)), ErrorKind::denied) << "no replay";
  });
}

TEST_F(CertificatesTest, OfTwoWhoUseATokenAtOnceOneGetsIn) {
  int in = 0, out = 0;
  run([&]() -> Task<> {
    EXPECT_TRUE(co_await certificates.start());
    auto op = co_await certificates.create_token(
        {.name = "laptop", .description = "", .type = "client", .restricted = false, .projects = {}, .certificate = ""}, root);
    const std::string token = token_of(**op);
    auto rival = [&]() -> Task<> {
      auto r = co_await certificates.add_by_token(token, kim_pem, stranger);
      r ? ++in : ++out;
    };
    TaskGroup rivals(io.get_executor());
    for (int i = 0; i < 5; ++i) rivals.spawn("rival", rival());
    co_await rivals.join();
  });
  EXPECT_EQ(in, 1);
  EXPECT_EQ(out, 4);
}

TEST_F(CertificatesTest, WithdrawnAndExpiredTokensAreGone) {
  run([&]() -> Task<> {
    EXPECT_TRUE(co_await certificates.start());
    const Certificates::Request named{
        .name = "laptop", .description = "", .type = "client", .restricted = false, .projects = {}, .certificate = ""};
    auto withdrawn = co_await certificates.create_token(named, root);
    const std::string token = token_of(**withdrawn);
    co_await sleep_for(1ms);
    EXPECT_TRUE(operations.cancel((*withdrawn)->id()));
    (void)co_await operations.wait((*withdrawn)->id(), 1s);
    EXPECT_EQ((*withdrawn)->status(), OperationStatus::cancelled);
    EXPECT_EQ(kind_of(co_await certificates.add_by_token(token, kim_pem, stranger)), ErrorKind::denied);

    auto late = co_await certificates.create_token(named, root);
    const std::string late_token = token_of(**late);
    clock.advance(25h);
    EXPECT_EQ(kind_of(co_await certificates.add_by_token(late_token, kim_pem, stranger)), ErrorKind::denied);
    EXPECT_TRUE(certificates.list().empty());
    co_await operations.stop();
  });
}

TEST_F(CertificatesTest, TokensSurviveARestartAndCanStillBeWithdrawn) {
  run([&]() -> Task<> {
    EXPECT_TRUE(co_await certificates.start());
    const Certificates::Request named{
        .name = "laptop", .description = "", .type = "client", .restricted = false, .projects = {}, .certificate = ""};
    auto used = co_await certificates.create_token(named, root);
    auto withdrawn = co_await certificates.create_token(named, root);
    const std::string token = token_of(**used);
    co_await operations.stop();
    auto rows = co_await store.list("/tokens/");
    EXPECT_EQ(rows->size(), 2u) << "a shutdown does not withdraw tokens";

    Operations next_operations(io.get_executor(), events, clock,
                               {.live = 20, .finished = 10, .retention = 1ms, .secret_lifetime = 1s});
    Certificates next(io.get_executor(), store, events, next_operations, clock);
    EXPECT_TRUE(co_await next.start());
    EXPECT_EQ(next_operations.list().size(), 2u);
    EXPECT_TRUE(co_await next.add_by_token(token, kim_pem, stranger));
    co_await sleep_for(20ms);
    auto left = next_operations.list();
    EXPECT_EQ(left.size(), 1u);
    EXPECT_TRUE(next_operations.cancel(left.front()->id()));
    (void)co_await next_operations.wait(left.front()->id(), 1s);
    rows = co_await store.list("/tokens/");
    EXPECT_TRUE(rows->empty());
    co_await next_operations.stop();
  });
}

}  // namespace
}  // namespace virga::engine
