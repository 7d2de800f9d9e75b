#include "model/pool.h"

#include <gtest/gtest.h>

namespace virga {
namespace {

Pool pool(Config config) {
  Pool p;
  p.name = "fast";
  p.driver = "dir";
  p.config = std::move(config);
  return p;
}

TEST(Pool, RoundTripsAsADocument) {
  auto p = pool({{"source", "/srv/fast"}, {"user.note", "x"}});
  p.description = "fast disks";
  auto again = decode_pool(encode(p));
  ASSERT_TRUE(again);
  EXPECT_EQ(encode(*again), encode(p));
  EXPECT_EQ(again->source(), "/srv/fast");
}

TEST(Pool, KeysAreRefusedWithTheNearest) {
  EXPECT_TRUE(check(pool({{"source", "/srv/fast"}, {"user.a", "b"}})));
  auto typo = check(pool({{"sourze", "/x"}}));
  ASSERT_FALSE(typo);
  EXPECT_EQ(typo.error().field(), "config.sourze");
  EXPECT_EQ(typo.error().hint(), "did you mean 'source'?");
  EXPECT_FALSE(check(pool({{"rsync.bwlimit", "1MB"}})));
  EXPECT_FALSE(check(pool({{"user.", "x"}})));
  EXPECT_FALSE(check(pool({{"user.a\nb", "x"}})));
}

TEST(Pool, SourceIsAPlainAbsolutePath) {
  for (const auto* bad : {"relative", "/", "/a/../b", "/a/./b", "/a//b", "/a:b", "/a,b", "/a\\b", "/a\nb"})
    EXPECT_FALSE(check(pool({{"source", bad}}))) << bad;
}

TEST(Pool, SourceStays) {
  EXPECT_TRUE(check_pool_change({{"source", "/a"}}, {{"source", "/a"}, {"user.x", "y"}}));
  EXPECT_EQ(check_pool_change({{"source", "/a"}}, {{"source", "/b"}}).error().field(), "config.source");
  EXPECT_FALSE(check_pool_change({{"source", "/a"}}, {}));
}

}  // namespace
}  // namespace virga
