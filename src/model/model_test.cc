#include <fmt/format.h>
#include <gtest/gtest.h>

#include "model/instance.h"
#include "model/name.h"

namespace virga {
namespace {

TEST(Names, OnlyWhatIsSafeEverywhere) {
  for (auto ok : {"web", "db-1", "A", "x9"}) EXPECT_TRUE(check_instance_name(ok)) << ok;
  for (auto bad : {"", "-web", "web-", "1web", "a/b", "..", "a.b", "a b", "$(id)", "a\nb", "-rf"})
    EXPECT_FALSE(check_instance_name(bad)) << bad;
  EXPECT_FALSE(check_instance_name(std::string(64, 'a')));
  EXPECT_EQ(check_instance_name("a/b").error().field(), "name");
  for (auto ok : {"debian/12", "tiny", "a:b"}) EXPECT_TRUE(check_alias_name(ok)) << ok;
  for (auto bad : {"", "/x", "x/", "a/../b", "a b", "-x", "a//b", "x'", "a\u202eb", "\u200b", "a\u0085"})
    EXPECT_FALSE(check_alias_name(bad)) << bad;
  for (auto bad : {"", "..", ".x", "a/b", "-x"}) EXPECT_FALSE(check_object_name("pool", bad)) << bad;
}

TEST(Config, RefusesWhatItDoesNotKnowAndNamesTheNearest) {
  auto r = check_config({{"limits.memori", "1GiB"}}, InstanceType::container, false);
  ASSERT_FALSE(r);
  EXPECT_EQ(r.error().field(), "config.limits.memori");
  EXPECT_NE(r.error().hint().find("limits.memory"), std::string_view::npos);
  EXPECT_FALSE(check_config({{"limits.memory", "-1"}}, InstanceType::container, false));
  EXPECT_FALSE(check_config({{"limits.cpu", "0"}}, InstanceType::container, false));
  EXPECT_FALSE(check_config({{"limits.processes", "5"}}, InstanceType::virtual_machine, false));
  EXPECT_TRUE(check_config({{"limits.processes", "5"}}, std::nullopt, false));
  EXPECT_FALSE(check_config({{"volatile.uuid", "x"}}, InstanceType::container, false));
  EXPECT_FALSE(check_config({{"security.privileged", "true"}}, InstanceType::container, false));
  EXPECT_FALSE(check_config({{"environment.A B", "x"}}, InstanceType::container, false));
  EXPECT_TRUE(check_config({{"user.note", "two\nlines"}, {"limits.cpu", "2"}}, InstanceType::container, false));
}

TEST(Devices, AreCheckedByTypeAndOption) {
  auto r = check_devices({{"root", {{"type", "disk"}, {"path", "/"}, {"pool", "default"}, {"sizes", "1GiB"}}}}, std::nullopt);
  ASSERT_FALSE(r);
  EXPECT_EQ(r.error().field(), "devices.root.sizes");
  for (const auto& [type, kind] : std::map<std::string, ErrorKind>{{"gpu", ErrorKind::unsupported},
                                                                   {"unix-hotplug", ErrorKind::unsupported},
                                                                   {"toaster", ErrorKind::invalid},
                                                                   {"", ErrorKind::invalid}}) {
    auto wrong = check_devices({{"g", {{"type", type}}}}, std::nullopt);
    ASSERT_FALSE(wrong) << type;
    EXPECT_EQ(wrong.error().kind(), kind) << type;
    EXPECT_EQ(wrong.error().field(), "devices.g.type");
  }
  EXPECT_FALSE(check_devices({{"eth0", {{"type", "nic"}, {"network", "n"}, {"hwaddr", "01:00:00:00:00:00"}}}}, std::nullopt))
      << "multicast";
  EXPECT_FALSE(check_devices({{"eth0", {{"type", "nic"}}}}, std::nullopt));
  EXPECT_TRUE(check_devices({{"eth0", {{"type", "none"}}}}, std::nullopt));
}

TEST(Config, IsBoundedHoweverManyRequestsItWasPutTogetherBy) {
  Config config;
  for (int i = 0; i < 15; ++i) config[fmt::format("user.{}", i)] = std::string(65'536, 'x');
  EXPECT_TRUE(check_config(config, InstanceType::container, false));
  for (int i = 15; i < 17; ++i) config[fmt::format("user.{}", i)] = std::string(65'536, 'x');
  auto refused = check_config(config, InstanceType::container, false);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().field(), "config");
  Devices many, nics;
  for (int i = 0; i < 65; ++i) many[fmt::format("d{}", i)] = {{"type", "none"}};
  EXPECT_FALSE(check_devices(many, std::nullopt));
  for (int i = 0; i < 17; ++i) nics[fmt::format("eth{}", i)] = {{"type", "nic"}, {"network", "n"}};
  EXPECT_FALSE(check_devices(nics, std::nullopt));
  nics.erase("eth16");
  EXPECT_TRUE(check_devices(nics, std::nullopt));
}

TEST(Expansion, LaterProfilesWinAndNoneTakesAway) {
  auto a = std::make_shared<Profile>(), b = std::make_shared<Profile>();
  a->config = {{"limits.cpu", "1"}, {"user.a", "a"}};
  a->devices = {{"root", {{"type", "disk"}, {"path", "/"}, {"pool", "p"}}}, {"eth0", {{"type", "nic"}, {"network", "n"}}}};
  b->config = {{"limits.cpu", "2"}};
  Instance i;
  i.name = "web";
  i.config = {{"user.a", "mine"}};
  i.devices = {{"eth0", {{"type", "none"}}}};
  expand(i, {a, b});
  EXPECT_EQ(i.expanded_config["limits.cpu"], "2");
  EXPECT_EQ(i.expanded_config["user.a"], "mine");
  EXPECT_EQ(i.expanded_devices.count("eth0"), 0u);
  EXPECT_TRUE(check(i));
  EXPECT_EQ(root_disk(i.expanded_devices)->first, "root");
  i.devices["r2"] = a->devices["root"];
  expand(i, {a, b});
  EXPECT_FALSE(check(i)) << "two roots";
}

TEST(Instance, EqualMapsAreOneInMemory) {
  Profile made;
  made.devices = {{"root", {{"type", "disk"}, {"path", "/"}, {"pool", "p"}}}};
  const auto profile = std::make_shared<const Profile>(made);
  Instance a, b;
  a.config = {{"user.a", "1"}};
  expand(a, {profile});
  expand(b, {profile});
  EXPECT_TRUE(a.expanded_config.shares(a.config));
  EXPECT_TRUE(a.expanded_devices.shares(b.expanded_devices));
  b.expanded_devices["eth0"] = {{"type", "nic"}};
  EXPECT_EQ(a.expanded_devices.count("eth0"), 0u);
}

TEST(Instance, DocumentRoundTrip) {
  Instance i;
  i.project = "default", i.name = "web", i.uuid = "u", i.type = InstanceType::virtual_machine, i.profiles = {"default"},
  i.id_base = 1'000'000;
  i.created_at = *parse_time("2026-01-31T12:00:00Z");
  auto back = decode_instance(encode(i));
  ASSERT_TRUE(back) << back.error().text();
  EXPECT_EQ(encode(*back), encode(i));
}

}  // namespace
}  // namespace virga
