#include "model/expiry.h"

#include <gtest/gtest.h>

namespace virga {
namespace {

TEST(Expiry, AddsUnitsToAMoment) {
  const auto from = parse_time("2026-01-31T12:00:00Z").value();
  auto of = [&](std::string_view text) { return format_time(parse_expiry(text, from).value()); };
  EXPECT_EQ(of("10S"), "2026-01-31T12:00:10Z");
  EXPECT_EQ(of("2H 30M"), "2026-01-31T14:30:00Z");
  EXPECT_EQ(of("1d"), "2026-02-01T12:00:00Z");
  EXPECT_EQ(of("2w"), "2026-02-14T12:00:00Z");
  EXPECT_EQ(of("1m"), "2026-02-28T12:00:00Z") << "the last day of a shorter month";
  EXPECT_EQ(of("1y"), "2027-01-31T12:00:00Z");
}

TEST(Expiry, RefusesWhatIsNone) {
  for (const auto* text : {"", " ", "1", "H", "1h", "-1d", "1.5d", "1d x", "99999999999d", "100000w", "2000y"})
    EXPECT_FALSE(parse_expiry(text, WallTime{})) << text;
}

}  // namespace
}  // namespace virga
