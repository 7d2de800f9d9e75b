#include "model/schedule.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <ctime>

namespace virga {
namespace {

class ScheduleTest : public testing::Test {
 protected:
  void SetUp() override { zone("UTC"); }
  void TearDown() override { zone("UTC"); }
  static void zone(const char* name) {
    ::setenv("TZ", name, 1);
    ::tzset();
  }
  static std::string next(const char* schedule, const char* from) {
    auto parsed = Schedule::parse(schedule);
    if (!parsed) return parsed.error().chain();
    auto moment = parsed->next(parse_time(from).value());
    return moment ? format_time(*moment) : "never";
  }
};

TEST_F(ScheduleTest, FieldsAreThoseOfCron) {
  EXPECT_EQ(next("* * * * *", "2026-01-31T12:00:00Z"), "2026-01-31T12:01:00Z");
  EXPECT_EQ(next("* * * * *", "2026-01-31T12:00:59.5Z"), "2026-01-31T12:01:00Z");
  EXPECT_EQ(next("30 4 * * *", "2026-01-31T12:00:00Z"), "2026-02-01T04:30:00Z");
  EXPECT_EQ(next("*/15 * * * *", "2026-01-31T12:46:00Z"), "2026-01-31T13:00:00Z");
  EXPECT_EQ(next("5,10-40/15 8 * * *", "2026-01-31T08:10:00Z"), "2026-01-31T08:25:00Z");
  EXPECT_EQ(next("0 0 31 * *", "2026-01-31T00:00:00Z"), "2026-03-31T00:00:00Z");
  EXPECT_EQ(next("0 0 29 feb *", "2026-01-01T00:00:00Z"), "2028-02-29T00:00:00Z");
  EXPECT_EQ(next("0 0 30 2 *", "2026-01-01T00:00:00Z"), "never");
  EXPECT_EQ(next("0 9 * * mon-fri", "2026-01-30T09:00:00Z"), "2026-02-02T09:00:00Z");
  EXPECT_EQ(next("0 9 * * 7", "2026-01-30T09:00:00Z"), "2026-02-01T09:00:00Z");
  EXPECT_EQ(next("0 0 13 * 5", "2026-01-30T09:00:00Z"), "2026-02-06T00:00:00Z") << "where both days are said, either is enough";
}

TEST_F(ScheduleTest, WordsStandForRulesAndMakeLists) {
  EXPECT_EQ(next("@hourly", "2026-01-31T12:00:00Z"), "2026-01-31T13:00:00Z");
  EXPECT_EQ(next("@daily", "2026-01-31T12:00:00Z"), "2026-02-01T00:00:00Z");
  EXPECT_EQ(next("@midnight", "2026-01-31T12:00:00Z"), "2026-02-01T00:00:00Z");
  EXPECT_EQ(next("@weekly", "2026-01-31T12:00:00Z"), "2026-02-01T00:00:00Z");
  EXPECT_EQ(next("@monthly", "2026-01-31T12:00:00Z"), "2026-02-01T00:00:00Z");
  EXPECT_EQ(next("@yearly", "2026-01-31T12:00:00Z"), "2027-01-01T00:00:00Z");
  EXPECT_EQ(next("@annually", "2026-01-31T12:00:00Z"), "2027-01-01T00:00:00Z");
  EXPECT_EQ(next("@yearly, @hourly", "2026-01-31T12:00:00Z"), "2026-01-31T13:00:00Z");
  EXPECT_EQ(next("@startup", "2026-01-31T12:00:00Z"), "never");
  EXPECT_TRUE(Schedule::parse("@daily, @startup")->at_startup());
  EXPECT_TRUE(Schedule::parse("@never")->empty());
  EXPECT_TRUE(Schedule::parse("")->empty());
}

TEST_F(ScheduleTest, NonsenseIsRefused) {
  for (const char* text :
       {"*", "* * * *", "* * * * * *", "60 * * * *", "* 24 * * *", "* * 0 * *", "* * * 13 *", "* * * * 8", "5-1 * * * *",
        "*/0 * * * *", "a * * * *", ", * * * *", "1, * * * *", "@often", "@daily, * * * * *", "-1 * * * *", "1- * * * *"})
    EXPECT_FALSE(Schedule::parse(text)) << text;
}

TEST_F(ScheduleTest, ClocksThatAreChangedHarmNothing) {
  zone("Europe/Berlin");
  if (std::time_t t = 1'800'000'000; std::localtime(&t)->tm_gmtoff == 0) GTEST_SKIP() << "no time zones on this host";
  // 02:30 does not exist on 29 March 2026.
  auto schedule = Schedule::parse("30 2 * * *").value();
  auto at = parse_time("2026-03-28T12:00:00Z").value();
  for (int n = 0; n < 3; ++n) {
    auto next = schedule.next(at);
    ASSERT_TRUE(next);
    EXPECT_GT(*next, at);
    EXPECT_LE(*next - at, std::chrono::hours(26));
    at = *next;
  }
  // On 25 October 02:30 comes twice: time only goes forward.
  at = parse_time("2026-10-24T12:00:00Z").value();
  for (int n = 0; n < 3; ++n) {
    auto next = schedule.next(at);
    ASSERT_TRUE(next);
    EXPECT_GT(*next, at);
    at = *next;
  }
}

}  // namespace
}  // namespace virga
