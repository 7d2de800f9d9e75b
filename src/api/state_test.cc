// recursion=2 shows what the sampler saw and never asks a guest.
#include <algorithm>
#include <set>

#include "api/site_test.h"

namespace virga::api {
namespace {

using testing::Site;

TEST_F(Site, AListShowsTheLastSampleAndItsAge) {
  make_world();
  ASSERT_EQ(launch("web"), "");
  auto first = [&] { return get("/1.0/instances?recursion=2").metadata().as_array().at(0).at("state").as_object(); };
  auto state = first();
  EXPECT_EQ(state.at("memory").at("usage").to_number<std::int64_t>(), 8 << 20);
  EXPECT_EQ(state.at("processes").as_int64(), 3);
  EXPECT_GT(state.at("pid").to_number<std::int64_t>(), 0);
  EXPECT_NE(state.at("started_at").as_string(), "0001-01-01T00:00:00Z");
  EXPECT_GE(state.at("virga_state_age").to_number<double>(), 0.0);
  EXPECT_LT(state.at("virga_state_age").to_number<double>(), 60.0);
  const auto& addresses = state.at("network").at("eth0").at("addresses").as_array();
  EXPECT_TRUE(std::any_of(addresses.begin(), addresses.end(), [](const auto& a) { return a.at("family").as_string() == "inet"; }));
  EXPECT_EQ(get("/1.0/instances/web?recursion=1").metadata().at("state").at("virga_state_age").as_int64(), 0);

  // The keys are those of the state that is asked for.
  std::set<std::string> listed, asked;
  for (const auto& [k, v] : state) listed.insert(k);
  const auto alone = get("/1.0/instances/web/state").metadata().as_object();
  for (const auto& [k, v] : alone) asked.insert(k);
  EXPECT_EQ(listed, asked);

  // A hundred lists more do not ask the guest once more.
  std::ptrdiff_t before = 0, after = 0;
  auto asked_guests = [&] {
    const auto& calls = engine->containers.world().calls;
    return std::count_if(calls.begin(), calls.end(), [](const auto& c) { return c.starts_with("stats "); });
  };
  loop.call([&] { before = asked_guests(); });
  for (int n = 0; n < 100; ++n) (void)first();
  loop.call([&] { after = asked_guests(); });
  EXPECT_EQ(before, after);

  ASSERT_EQ(change("PUT", "/1.0/instances/web/state", R"({"action":"stop","force":true})"), "");
  state = first();
  EXPECT_EQ(state.at("status").as_string(), "Stopped");
  EXPECT_TRUE(state.at("network").is_null());
  EXPECT_EQ(state.at("memory").at("usage").as_int64(), 0);
  // Started again: the sample of its earlier life is not shown.
  ASSERT_EQ(change("PUT", "/1.0/instances/web/state", R"({"action":"start"})"), "");
  state = first();
  EXPECT_TRUE(state.at("virga_state_age").is_null()) << json::serialize(state);
  EXPECT_EQ(state.at("network").at("eth0").at("addresses").as_array().size(), 1u) << "addresses are known all the same";
}

}  // namespace
}  // namespace virga::api
