#include <gtest/gtest.h>

#include "base/error.h"
#include "base/json.h"
#include "base/random.h"
#include "base/shared_map.h"
#include "base/text.h"
#include "base/units.h"
#include "base/unix_time.h"

namespace virga {
namespace {

TEST(Error, ChainReadsOutermostFirstAndKeepsKindFieldAndHint) {
  auto e = Error(ErrorKind::not_found, "device node missing")
               .with_field("devices.root.source")
               .with_hint("create it")
               .wrap("attach root volume of 'db1'");
  EXPECT_EQ(e.chain(), "attach root volume of 'db1': device node missing");
  EXPECT_EQ(e.kind(), ErrorKind::not_found);
  EXPECT_EQ(e.field(), "devices.root.source");
  EXPECT_EQ(Error(e).text(), e.chain() + " (create it)");
}

TEST(Units, Bytes) {
  EXPECT_EQ(*parse_bytes("512MiB"), 512ull << 20);
  EXPECT_EQ(*parse_bytes("1GB"), 1'000'000'000ull);
  EXPECT_EQ(*parse_bytes("7"), 7u);
  for (auto bad : {"", "-1", "1.5GiB", "1 GiB", "1XB", "99999999EiB", "GiB", "0x10"}) EXPECT_FALSE(parse_bytes(bad)) << bad;
  EXPECT_EQ(format_bytes(1536ull << 20), "1.50GiB");
}

TEST(Units, TimeRoundTrip) {
  auto t = parse_time("2026-01-31T12:00:00.123456789Z");
  ASSERT_TRUE(t);
  EXPECT_EQ(format_time(*t), "2026-01-31T12:00:00.123456789Z");
  EXPECT_EQ(format_time(*parse_time("2026-01-31T14:00:00+02:00")), "2026-01-31T12:00:00Z");
  for (auto bad : {"", "2026", "2026-13-01T00:00:00Z", "2026-01-01T00:00:00", "2026-01-01T00:00:00Zx", "2026-02-31T00:00:00Z",
                   "2026-01-01T00:00:00.Z"})
    EXPECT_FALSE(parse_time(bad)) << bad;
  EXPECT_EQ(format_time(*parse_time("2016-12-31T23:59:60Z")), "2017-01-01T00:00:00Z");
}

TEST(Units, TimesBeyondTheClockStayOnTheirSide) {
  const auto now = std::chrono::system_clock::now();
  for (auto far : {"9999-12-31T23:59:59Z", "9999-12-31T23:59:59.999999999-23:59", "2263-01-01T00:00:00Z"})
    EXPECT_GT(parse_time(far).value(), now + std::chrono::hours(24 * 365 * 200)) << far;
  EXPECT_LT(parse_time("1000-01-01T00:00:00Z").value(), now - std::chrono::hours(24 * 365 * 200));
  EXPECT_GT(time_of_unix(INT64_MAX), now);
  EXPECT_LT(time_of_unix(INT64_MIN), now);
}

TEST(Json, RefusesWhatTwoReadersMayReadDifferently) {
  EXPECT_TRUE(parse_json(R"({"a":{"b":1},"b":[1,2,{"a":null}]})"));
  auto dup = parse_json(R"({"a":1,"x":{"a":1,"a":2}})");
  ASSERT_FALSE(dup);
  EXPECT_EQ(dup.error().field(), "a");
  EXPECT_FALSE(parse_json("{} x"));
  EXPECT_FALSE(parse_json("{"));
  EXPECT_FALSE(parse_json("[1e99999]"));
  EXPECT_TRUE(parse_json("[1.5e308]"));
  EXPECT_FALSE(parse_json("\"\xff\""));
  EXPECT_FALSE(parse_json(std::string(100, '[') + std::string(100, ']')));
}

TEST(Json, FieldsNameWhatIsWrong) {
  auto o = *parse_json_object(R"({"config":{"a":1},"n":"x"})");
  Fields f(o);
  EXPECT_EQ(f.string_map("config").error().field(), "config.a");
  EXPECT_EQ(f.integer("n").error().field(), "n");
  EXPECT_EQ(f.only({"config"}).error().field(), "n");
  EXPECT_EQ(*f.string("absent", "d"), "d");
}

TEST(SharedMap, ACopyIsSharedUntilItIsWritten) {
  SharedMap<std::map<std::string, std::string>> a = {{"x", "1"}};
  auto b = a;
  EXPECT_TRUE(a.shares(b));
  b["y"] = "2";
  EXPECT_FALSE(a.shares(b));
  EXPECT_EQ(a.size(), 1u);
  EXPECT_EQ(b.at("y"), "2");
  EXPECT_FALSE(a == b);
  const auto* before = &b.get();
  b["z"] = "3";
  EXPECT_EQ(&b.get(), before) << "its own map is not copied again";
  auto c = b;
  EXPECT_EQ(c.erase("absent"), 0u);
  EXPECT_EQ(erase_if(c, [](const auto& e) { return e.first == "absent"; }), 0u);
  EXPECT_TRUE(c.shares(b)) << "what changes nothing copies nothing";
  EXPECT_EQ(erase_if(c, [](const auto& e) { return e.first != "x"; }), 2u);
  EXPECT_TRUE(a == c) << "equal by content";
  EXPECT_EQ(b.size(), 3u);
}

TEST(SharedMap, TheEmptyOneNeedsNoMemory) {
  SharedMap<std::map<std::string, std::string>> none;
  EXPECT_EQ(none.use_count(), 0);
  EXPECT_TRUE(none.empty());
  EXPECT_TRUE(none.find("x") == none.end());
  none["x"] = "1";
  EXPECT_EQ(none.size(), 1u);
}

TEST(Json, AStrangersTextIsMadeFitForPeople) {
  EXPECT_EQ(printable_text("eth0", 64), "eth0");
  EXPECT_EQ(printable_text("a\x1b]0;x\x07\x7f\n", 64), "a?]0;x???");
  EXPECT_EQ(printable_text("\xff\xfe\xc0\x80", 64), "????");
  EXPECT_EQ(printable_text("\xc2\x9bx\xc3\xa9", 64), "??x\xc3\xa9") << "U+009B begins a terminal's command";
  EXPECT_EQ(printable_text("ab\xc3\xa9", 3), "ab?") << "cut in the middle of a character";
  EXPECT_EQ(printable_text("\xc2", 64), "?");
}

TEST(Random, UuidsDifferAndHaveTheirForm) {
  auto a = random_uuid();
  EXPECT_EQ(a.size(), 36u);
  EXPECT_EQ(a[14], '4');
  EXPECT_NE(a, random_uuid());
  EXPECT_EQ(sha256_hex("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

}  // namespace
}  // namespace virga
