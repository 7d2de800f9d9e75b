#include "engine/server/service.h"

#include <openssl/bio.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>

#include "engine/service_test.h"

namespace virga::engine {
namespace {

struct ServerTest : ServiceTest {
  Server server{store, events, clock};
};

TEST_F(ServerTest, TheIdentityIsMadeOnceAndItsKeyFitsItsCertificate) {
  run([&]() -> Task<> {
    EXPECT_TRUE(co_await server.start());
    Server again(store, events, clock);
    EXPECT_TRUE(co_await again.start());
    EXPECT_EQ(server.identity().uuid, again.identity().uuid);
    EXPECT_EQ(server.identity().key, again.identity().key);
    EXPECT_EQ(server.identity().fingerprint.size(), 64u);
  });
  const Identity& identity = server.identity();
  std::unique_ptr<BIO, decltype(&BIO_free_all)> certificate(BIO_new_mem_buf(identity.certificate.data(), -1), BIO_free_all),
      secret(BIO_new_mem_buf(identity.key.data(), -1), BIO_free_all);
  std::unique_ptr<X509, decltype(&X509_free)> x509(PEM_read_bio_X509(certificate.get(), nullptr, nullptr, nullptr), X509_free);
  std::unique_ptr<EVP_PKEY, decltype(&EVP_PKEY_free)> key(PEM_read_bio_PrivateKey(secret.get(), nullptr, nullptr, nullptr),
                                                          EVP_PKEY_free);
  ASSERT_TRUE(x509 && key);
  EXPECT_EQ(X509_check_private_key(x509.get(), key.get()), 1);
  EXPECT_EQ(X509_verify(x509.get(), key.get()), 1);
  EXPECT_EQ(X509_check_ip_asc(x509.get(), "127.0.0.1", 0), 1);
  EXPECT_EQ(X509_check_ip_asc(x509.get(), "::1", 0), 1);
}

TEST(Identity, AHostNameThatIsNoneStaysOut) {
  for (std::string_view name : {"", "a,IP:10.0.0.1", "a b", "\n", "-"})
    EXPECT_TRUE(make_identity(name, std::chrono::system_clock::now())) << name;
  auto i = make_identity("evil,DNS:bank.example", std::chrono::system_clock::now());
  std::unique_ptr<BIO, decltype(&BIO_free_all)> certificate(BIO_new_mem_buf(i->certificate.data(), -1), BIO_free_all);
  std::unique_ptr<X509, decltype(&X509_free)> x509(PEM_read_bio_X509(certificate.get(), nullptr, nullptr, nullptr), X509_free);
  EXPECT_NE(X509_check_host(x509.get(), "bank.example", 0, 0, nullptr), 1);
  EXPECT_EQ(X509_check_host(x509.get(), "localhost", 0, 0, nullptr), 1);
}

TEST(ListenAddress, ReadsWhatPeopleWrite) {
  const std::pair<const char*, const char*> good[] = {
      {":8443", ":8443"},       {"10.0.0.1", "10.0.0.1:8443"}, {"10.0.0.1:1", "10.0.0.1:1"},  {"[::]", "[::]:8443"},
      {"[::1]:99", "[::1]:99"}, {"::1", "[::1]:8443"},         {"0.0.0.0:443", "0.0.0.0:443"}};
  for (auto [text, canonical] : good) {
    auto a = parse_listen_address(text);
    ASSERT_TRUE(a) << text;
    EXPECT_EQ(to_string(*a), canonical);
    EXPECT_EQ(to_string(*parse_listen_address(canonical)), canonical);
  }
  for (const char* bad : {"", "example.org:8443", "10.0.0.1:", "10.0.0.1:0", "10.0.0.1:65536", "[::1", "[::1]x",
                          "[::1]:", "[10.0.0.1]:1", "10.0.0.1:8443 ", "1.2.3.4:+1", "a"})
    EXPECT_FALSE(parse_listen_address(bad)) << bad;
}

TEST_F(ServerTest, ConfigurationIsCheckedAppliedAndKept) {
  run([&]() -> Task<> {
    EXPECT_TRUE(co_await server.start());
    EXPECT_TRUE(server.config()->config.empty());
    std::vector<std::string> applied;
    std::optional<Error> refuse;
    server.set_apply([&](ServerConfig before, ServerConfig after) -> Task<Result<>> {
      auto show = [](const ServerConfig& c) { return c.https_address() ? to_string(*c.https_address()) : std::string("-"); };
      applied.push_back(show(before) + " to " + show(after));
      if (refuse) co_return fail(*refuse);
      co_return Result<>();
    });
    auto set = co_await server.update({{"core.https_address", "[::1]"}, {"user.note", "hello"}, {"user.empty", ""}}, 0, root);
    EXPECT_TRUE(set) << set.error().text();
    EXPECT_EQ((*set)->config, (Config{{"core.https_address", "[::1]:8443"}, {"user.note", "hello"}}));
    EXPECT_EQ(kind_of(co_await server.update({}, 0, root)), ErrorKind::conflict);
    EXPECT_EQ(applied, (std::vector<std::string>{"- to [::1]:8443"}));

    refuse = Error(ErrorKind::unavailable, "address in use");
    EXPECT_EQ(kind_of(co_await server.update({{"core.https_address", ":1"}}, {}, root)), ErrorKind::unavailable);
    EXPECT_EQ(server.config(), *set);
    refuse.reset();
    store.fail_commits(1);
    EXPECT_EQ(kind_of(co_await server.update({{"core.https_address", ":2"}}, {}, root)), ErrorKind::unavailable);
    EXPECT_EQ(applied.back(), ":2 to [::1]:8443") << "taken back";
    EXPECT_EQ(server.config(), *set);

    Server again(store, events, clock);
    EXPECT_TRUE(co_await again.start());
    EXPECT_EQ(again.config()->config, (*set)->config);
    EXPECT_EQ(actions.back(), "config-updated /1.0");
  });
}

TEST_F(ServerTest, OtherKeysAreRefusedByName) {
  const std::map<std::string, ErrorKind> refused = {{"core.trust_password", ErrorKind::unsupported},
                                                    {"core.bgp_address", ErrorKind::unsupported},
                                                    {"cluster.https_address", ErrorKind::unsupported},
                                                    {"logging.here.target.type", ErrorKind::unsupported},
                                                    {"logging.", ErrorKind::invalid},
                                                    {"oidc.issuer", ErrorKind::unsupported},
                                                    {"oidc.isuer", ErrorKind::invalid},
                                                    {"images.unknown", ErrorKind::invalid},
                                                    {"core.https_addres", ErrorKind::invalid}};
  for (const auto& [key, kind] : refused) {
    auto r = check_server_config({{key, "1"}});
    ASSERT_FALSE(r) << key;
    EXPECT_EQ(r.error().kind(), kind) << key;
    EXPECT_NE(r.error().message().find(key), std::string::npos);
    EXPECT_EQ(r.error().field(), std::string("config.") + key);
  }
  EXPECT_EQ(check_server_config({{"core.https_addres", "1"}}).error().hint(), "did you mean 'core.https_address'?");
  EXPECT_EQ(check_server_config({{"core.proxy_htps", "1"}}).error().hint(), "did you mean 'core.proxy_https'?");
  EXPECT_EQ(kind_of(check_server_config({{"nonsense", "1"}})), ErrorKind::invalid);
  EXPECT_EQ(kind_of(check_server_config({{"user.", "1"}})), ErrorKind::invalid);
  EXPECT_EQ(kind_of(check_server_config({{"core.https_address", "nowhere"}})), ErrorKind::invalid);
}

TEST_F(ServerTest, EveryKeyHasDocumentsAndRefusesNonsense) {
  for (const auto& rule : server_keys()) {
    EXPECT_FALSE(rule.description.empty()) << rule.key;
    if (!rule.default_value.empty())
      EXPECT_TRUE(check_server_config({{std::string(rule.key), std::string(rule.default_value)}})) << rule.key;
    const std::string key = rule.key.ends_with('*') ? "user.x" : std::string(rule.key);
    EXPECT_EQ(kind_of(check_server_config({{key, std::string("a\0b\r\n", 5)}})), ErrorKind::invalid) << key;
  }
  auto normal = check_server_config({{"core.https_trusted_proxy", "192.0.2.1, 2001:DB8:0::1"}});
  ASSERT_TRUE(normal) << normal.error().text();
  EXPECT_EQ(normal->at("core.https_trusted_proxy"), "192.0.2.1,2001:db8::1");
  EXPECT_TRUE(check_server_config({{"core.https_allowed_websocket_origin", "https://a.example.org, https://b.example.org"}}));
  EXPECT_EQ(kind_of(check_server_config({{"core.shutdown_action", "evacuate"}})), ErrorKind::unsupported);
  for (const auto& [key, value] : Config{{"core.https_allowed_origin", "*"},
                                         {"core.https_allowed_websocket_origin", "https://a.example.org,*"},
                                         {"core.https_trusted_proxy", "192.0.2.0/24"},
                                         {"core.shutdown_action", "explode"},
                                         {"core.shutdown_timeout", "-1"},
                                         {"core.proxy_https", "http://user@proxy:1"},
                                         {"core.remote_token_expiry", "soon"},
                                         {"core.metrics_authentication", "perhaps"},
                                         {"core.metrics_address", "nowhere"}})
    EXPECT_EQ(kind_of(check_server_config({{key, value}})), ErrorKind::invalid) << key;
  EXPECT_EQ(server_setting({}, "core.remote_token_expiry"), "1d");
  EXPECT_EQ(server_setting({{"core.remote_token_expiry", "2H"}}, "core.remote_token_expiry"), "2H");
}

}  // namespace
}  // namespace virga::engine
