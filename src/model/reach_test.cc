#include "model/reach.h"

#include <gtest/gtest.h>

#include <utility>

namespace virga {
namespace {

TEST(Reach, IsKnownForEveryKindOfAddress) {
  const std::pair<const char*, Reach> cases[] = {
      {"93.184.215.14", Reach::global},
      {"10.1.2.3", Reach::private_network},
      {"172.16.0.1", Reach::private_network},
      {"172.32.0.1", Reach::global},
      {"192.168.1.1", Reach::private_network},
      {"100.100.100.200", Reach::private_network},
      {"127.0.0.1", Reach::loopback},
      {"127.255.255.254", Reach::loopback},
      {"0.0.0.0", Reach::never},
      {"169.254.169.254", Reach::never},
      {"224.0.0.1", Reach::never},
      {"255.255.255.255", Reach::never},
      {"2606:4700::1111", Reach::global},
      {"fd00::1", Reach::private_network},
      {"::1", Reach::loopback},
      {"::", Reach::never},
      {"fe80::1", Reach::never},
      {"ff02::1", Reach::never},
  };
  for (const auto& [text, reach] : cases) EXPECT_EQ(reach_of(parse_ip(text).value()), reach) << text;
}

TEST(Reach, LooksIntoWrappedAddresses) {
  EXPECT_EQ(reach_of(parse_ip("::ffff:127.0.0.1").value()), Reach::loopback);
  EXPECT_EQ(reach_of(parse_ip("::ffff:169.254.169.254").value()), Reach::never);
  EXPECT_EQ(reach_of(parse_ip("64:ff9b::a9fe:a9fe").value()), Reach::never);
  EXPECT_EQ(reach_of(parse_ip("2002:7f00:1::").value()), Reach::loopback);
  EXPECT_EQ(reach_of(parse_ip("2002:5db8:d70e::").value()), Reach::global);
}

TEST(Reach, LimitsHoldEverythingThatIsFartherOut) {
  const auto home = parse_ip("192.168.0.10").value(), self = parse_ip("127.0.0.1").value(),
             metadata = parse_ip("169.254.169.254").value();
  EXPECT_FALSE(may_reach(home, Reach::global));
  EXPECT_TRUE(may_reach(home, Reach::private_network));
  EXPECT_FALSE(may_reach(self, Reach::private_network));
  EXPECT_TRUE(may_reach(home, Reach::loopback));
  EXPECT_FALSE(may_reach(metadata, Reach::loopback));
  EXPECT_FALSE(may_reach(metadata, Reach::never));
}

}  // namespace
}  // namespace virga
