#include "model/certificate.h"

#include <gtest/gtest.h>

namespace virga {
namespace {

TEST(Base64, RoundTripsAndRefusesNonsense) {
  std::string bytes;
  for (int i = 0; i < 300; ++i) {
    EXPECT_EQ(base64_decode(base64_encode(bytes)).value(), bytes);
    bytes += static_cast<char>(i * 7);
  }
  EXPECT_EQ(base64_encode("M"), "TQ==");
  EXPECT_EQ(base64_encode("Ma"), "TWE=");
  EXPECT_EQ(base64_encode("Man"), "TWFu");
  EXPECT_EQ(base64_decode("TW\nFu\r\n").value(), "Man");
  for (const char* bad : {"T", "TQ", "TQ=", "TQ===", "TQ==TQ==", "T===", "====", "TQ=A", "TW-u", "TWF*"})
    EXPECT_FALSE(base64_decode(bad)) << bad;
}

TEST(CertificateToken, IsWhatTheIncusClientReads) {
  const CertificateToken token{.client_name = "kim",
                               .fingerprint = "ab",
                               .addresses = {"10.0.0.1:8443"},
                               .secret = "s3",
                               .expires_at = parse_time("2026-01-31T12:00:00Z").value()};
  const auto text = encode_token(token);
  EXPECT_EQ(
      base64_decode(text).value(),
      R"({"client_name":"kim","fingerprint":"ab","addresses":["10.0.0.1:8443"],"secret":"s3","expires_at":"2026-01-31T12:00:00Z"})");
  auto back = decode_token(text);
  ASSERT_TRUE(back);
  EXPECT_EQ(back->secret, "s3");
  EXPECT_EQ(back->addresses, token.addresses);
  EXPECT_EQ(back->expires_at, token.expires_at);
  for (const std::string bad : {"", "e30=", "bm9wZQ==", "[]", "eyJzZWNyZXQiOjF9"}) EXPECT_FALSE(decode_token(bad)) << bad;
}

TEST(Certificate, RefusesWhatIsNotEnforcedYet) {
  Certificate c;
  c.name = "kim@laptop";
  EXPECT_TRUE(check(c));
  auto with = [&](auto change) {
    Certificate x = c;
    change(x);
    auto r = check(x);
    return r ? ErrorKind::internal : r.error().kind();
  };
  EXPECT_EQ(with([](auto& x) { x.projects = {"a", "../b"}; }), ErrorKind::invalid);
  EXPECT_EQ(with([](auto& x) { x.projects = {"lab"}; }), ErrorKind::internal) << "fine";
  EXPECT_EQ(with([](auto& x) { x.type = "metrics"; }), ErrorKind::internal) << "that one is fine";
  EXPECT_EQ(with([](auto& x) { x.type = "root"; }), ErrorKind::invalid);
  EXPECT_EQ(with([](auto& x) { x.name = ""; }), ErrorKind::invalid);
  EXPECT_EQ(with([](auto& x) { x.name = "a\nb"; }), ErrorKind::invalid);
}

TEST(Certificate, Encodes) {
  Certificate c;
  c.fingerprint = std::string(64, 'a');
  c.name = "kim";
  c.certificate = "PEM";
  c.not_after = parse_time("2030-01-01T00:00:00Z").value();
  auto back = decode_certificate(encode(c));
  ASSERT_TRUE(back);
  EXPECT_EQ(encode(*back), encode(c));
}

}  // namespace
}  // namespace virga
