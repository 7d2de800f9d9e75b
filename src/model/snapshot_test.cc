#include "model/snapshot.h"

#include <gtest/gtest.h>

namespace virga {
namespace {

TEST(Snapshot, IsWrittenAndRead) {
  InstanceSnapshot s;
  s.name = "snap0";
  s.instance.name = "web";
  s.instance.project = "lab";
  s.instance.config = {{"user.a", "b"}};
  s.instance.expanded_config = {{"user.a", "b"}, {"limits.cpu", "2"}};
  s.instance.expanded_devices = {{"root", {{"type", "disk"}}}};
  s.created_at = std::chrono::system_clock::from_time_t(1'800'000'000);
  s.size = 4096;
  const auto back = decode_snapshot(encode(s));
  ASSERT_TRUE(back) << back.error().text();
  EXPECT_EQ(encode(*back), encode(s));
  EXPECT_EQ(back->expires_at, WallTime{}) << "never";
}

TEST(Snapshot, NamesFollowThePattern) {
  auto next = [](const char* pattern, std::vector<std::string> taken) {
    return next_snapshot_name(pattern, taken).value_or("(refused)");
  };
  EXPECT_EQ(next("snap%d", {}), "snap0");
  EXPECT_EQ(next("snap%d", {"snap0", "snap7", "other", "snapx", "snap"}), "snap8");
  EXPECT_EQ(next("%d-daily", {"3-daily", "4-weekly"}), "4-daily");
  EXPECT_EQ(next("daily", {}), "daily");
  EXPECT_EQ(next("daily", {"daily"}), "daily-0");
  EXPECT_EQ(next("daily", {"daily", "daily-0"}), "daily-1");
  EXPECT_EQ(next("a/b", {}), "(refused)");
  EXPECT_EQ(next("", {}), "(refused)");
}

TEST(Snapshot, NamesThatCouldMeanMoreAreRefused) {
  for (const char* name : {"", ".", "..", ".hidden", "a/b", "a b", "-rf", "a\nb", "a'b", "a\\b", "\xc3\xa9"})
    EXPECT_FALSE(check_snapshot_name(name)) << name;
  for (const char* name : {"snap0", "2026-01-31_12:00", "before-the-update", "a.b", "x@y"})
    EXPECT_TRUE(check_snapshot_name(name)) << name;
}

}  // namespace
}  // namespace virga
