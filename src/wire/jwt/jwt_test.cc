// Tokens and the ways in which people have forged them.
#include "wire/jwt/jwt.h"

#include <gtest/gtest.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>

#include "wire/http/tls.h"

namespace virga::jwt {
namespace {

using namespace std::chrono_literals;

std::string url64(std::string_view bytes) {
  std::string out(bytes.size() * 2 + 4, '\0');
  const int n = EVP_EncodeBlock(reinterpret_cast<unsigned char*>(out.data()), reinterpret_cast<const unsigned char*>(bytes.data()),
                                static_cast<int>(bytes.size()));
  out.resize(static_cast<std::size_t>(n));
  while (out.ends_with('=')) out.pop_back();
  for (char& c : out) c = c == '+' ? '-' : c == '/' ? '_' : c;
  return out;
}

struct Tokens : ::testing::Test {
  const http::Identity identity = http::make_self_signed("client", {}).value(), other = http::make_self_signed("other", {}).value();
  const WallTime now = parse_time("2026-11-25T12:00:00Z").value();
  Claims claims{.subject = "f00", .issued_at = now, .not_before = now, .expires_at = now + 1h};

  bool good(std::string_view token) const { return verify(token, identity.certificate, now + 1min).has_value(); }
};

TEST_F(Tokens, AreGoodForTheirTime) {
  const auto token = sign(claims, identity.key).value();
  EXPECT_EQ(unverified_subject(token).value(), "f00");
  auto verified = verify(token, identity.certificate, now);
  ASSERT_TRUE(verified) << verified.error().text();
  EXPECT_EQ(verified->subject, "f00");
  EXPECT_EQ(verified->expires_at, now + 1h);
  EXPECT_FALSE(verify(token, identity.certificate, now - 1s)) << "not yet";
  EXPECT_TRUE(verify(token, identity.certificate, now + 59min));
  EXPECT_FALSE(verify(token, identity.certificate, now + 1h)) << "no more";
}

TEST_F(Tokens, AnotherKeyDoesNotDo) {
  EXPECT_FALSE(good(sign(claims, other.key).value()));
  EXPECT_TRUE(good(sign(claims, identity.key).value()));
}

TEST_F(Tokens, TheTokenDoesNotChooseTheAlgorithm) {
  const auto body = url64(R"({"sub":"f00","iat":0,"nbf":0,"exp":9000000000})");
  for (const auto* alg : {"none", "None", "NONE", "", "HS256", "ES256", "RS256"}) {
    const auto head = url64(std::string(R"({"alg":")") + alg + R"(","typ":"JWT"})");
    EXPECT_FALSE(good(head + "." + body + ".")) << alg;
    // The public key as a shared secret.
    unsigned char mac[EVP_MAX_MD_SIZE];
    unsigned size = 0;
    const auto text = head + "." + body;
    HMAC(EVP_sha256(), identity.certificate.data(), static_cast<int>(identity.certificate.size()),
         reinterpret_cast<const unsigned char*>(text.data()), text.size(), mac, &size);
    EXPECT_FALSE(good(text + "." + url64({reinterpret_cast<char*>(mac), size}))) << alg;
  }
  // A good signature under another algorithm's name.
  const auto token = sign(claims, identity.key).value();
  const auto rest = token.substr(token.find('.'));
  EXPECT_FALSE(good(url64(R"({"alg":"none","typ":"JWT"})") + rest));
}

TEST_F(Tokens, NothingInThemCanBeChanged) {
  const auto token = sign(claims, identity.key).value();
  for (std::size_t i = 0; i < token.size(); ++i) {
    auto changed = token;
    changed[i] = changed[i] == 'A' ? 'B' : 'A';
    EXPECT_FALSE(good(changed)) << i;
  }
  for (std::size_t size = 0; size < token.size(); ++size) EXPECT_FALSE(good(std::string_view(token).substr(0, size)));
  EXPECT_FALSE(good(token + "A"));
  EXPECT_FALSE(good(token + ".x"));
  EXPECT_FALSE(good(token + "="));
  const auto last = token.rfind('.');
  EXPECT_FALSE(good(token.substr(0, last + 1) + url64(std::string(96, '\0')))) << "r = s = 0";
}

TEST_F(Tokens, AnEndIsNeeded) {
  claims.expires_at = WallTime{};
  EXPECT_FALSE(good(sign(claims, identity.key).value()));
  claims.expires_at = now - 1h;
  EXPECT_FALSE(good(sign(claims, identity.key).value()));
  claims.subject.clear();
  claims.expires_at = now + 1h;
  EXPECT_FALSE(good(sign(claims, identity.key).value()));
}

TEST_F(Tokens, NonsenseIsNoKey) {
  EXPECT_FALSE(sign(claims, "nonsense"));
  EXPECT_FALSE(unverified_subject("a.b.c"));
  EXPECT_FALSE(unverified_subject(std::string(10'000, 'A')));
}

}  // namespace
}  // namespace virga::jwt
