#include "wire/http/url.h"

#include <gtest/gtest.h>

namespace virga::http {
namespace {

TEST(Url, IsTakenApart) {
  auto url = parse_url("https://Images.Example.org/streams/v1/index.json?x=1#top");
  ASSERT_TRUE(url) << url.error().text();
  EXPECT_TRUE(url->secure);
  EXPECT_EQ(url->host, "images.example.org");
  EXPECT_EQ(url->port, 443);
  EXPECT_EQ(url->target, "/streams/v1/index.json?x=1");
  EXPECT_EQ(url->text(), "https://images.example.org/streams/v1/index.json?x=1");
  EXPECT_EQ(parse_url("http://h:8080").value().text(), "http://h:8080/");
  EXPECT_EQ(parse_url("https://[::1]:8443/1.0").value().host, "::1");
  EXPECT_EQ(parse_url("https://[::1]:8443/1.0").value().text(), "https://[::1]:8443/1.0");
}

TEST(Url, RefusesWhatIsNoServer) {
  for (const auto* text : {"", "/etc/passwd", "file:///etc/passwd", "unix:/run/x", "ftp://h/", "https://", "https://user@h/",
                           "https://h:0/", "https://h:99999/", "https://h:x/", "https://[::1", "https://[h]/", "https://h/a b",
                           "https://h/\r\nX: y", "https://h\\evil/", "https://[::1]x/", "https://h%00/", "HTTPS//h"})
    EXPECT_FALSE(parse_url(text)) << text;
}

TEST(Url, RedirectsAreSeenFromTheBase) {
  const auto base = parse_url("https://h:8443/a/b?q=1").value();
  EXPECT_EQ(resolve_url(base, "https://other/x").value().text(), "https://other/x");
  EXPECT_EQ(resolve_url(base, "//other/x").value().text(), "https://other/x");
  EXPECT_EQ(resolve_url(base, "/x").value().text(), "https://h:8443/x");
  EXPECT_EQ(resolve_url(base, "c").value().text(), "https://h:8443/a/c");
  EXPECT_EQ(resolve_url(base, "?q=2").value().text(), "https://h:8443/a/b?q=2");
  EXPECT_FALSE(resolve_url(base, "file:///etc/passwd"));
  EXPECT_FALSE(resolve_url(base, "file:/etc/passwd"));
  EXPECT_FALSE(resolve_url(base, "gopher://h/"));
  EXPECT_FALSE(resolve_url(base, ""));
}

TEST(Url, JoinsWithOneSlash) {
  EXPECT_EQ(join_url("https://h/", "/a/b"), "https://h/a/b");
  EXPECT_EQ(join_url("https://h/base", "a"), "https://h/base/a");
}

}  // namespace
}  // namespace virga::http
