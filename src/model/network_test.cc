#include "model/network.h"

#include <gtest/gtest.h>

namespace virga {
namespace {

TEST(Address, ParsesAndWritesNormalForms) {
  EXPECT_EQ(parse_ip("fd42:0:0::0001")->text(), "fd42::1");
  EXPECT_EQ(parse_mac("00:16:3E:AA:bb:01")->text(), "00:16:3e:aa:bb:01");
  EXPECT_EQ(parse_cidr("10.1.2.3/24")->subnet().text(), "10.1.2.0/24");
  EXPECT_EQ(parse_cidr("10.1.2.3/20")->subnet().text(), "10.1.0.0/20");
  EXPECT_EQ(parse_cidr("10.1.2.3/20")->netmask(), "255.255.240.0");
  for (const char* bad : {"", "10.1.2", "10.1.2.3/33", "10.1.2.3/", "10.1.2.3/-1", "10.1.2.3/024x", "fe80::1%eth0/64",
                          "10.1.2.3\n/24", "10.1.2.3/ 4"})
    EXPECT_FALSE(parse_cidr(bad)) << bad;
  for (const char* bad : {"", "00:16:3e:aa:bb", "00:16:3e:aa:bb:0g", "01:16:3e:aa:bb:00", "00-16-3e-aa-bb-00", "00:00:00:00:00:00"})
    EXPECT_FALSE(parse_mac(bad)) << bad;
}

TEST(Address, CountsAndCompares) {
  const auto net = *parse_cidr("10.1.2.1/24");
  EXPECT_TRUE(net.contains(*parse_ip("10.1.2.200")));
  EXPECT_FALSE(net.contains(*parse_ip("10.1.3.1")));
  EXPECT_FALSE(net.contains(*parse_ip("fd42::1")));
  EXPECT_TRUE(net.overlaps(*parse_cidr("10.1.0.0/16")));
  EXPECT_TRUE(parse_cidr("0.0.0.0/0")->overlaps(net));
  EXPECT_FALSE(net.overlaps(*parse_cidr("10.1.3.0/24")));
  EXPECT_EQ(net.host(254).text(), "10.1.2.254");
  EXPECT_EQ(net.size(), 256u);
  EXPECT_EQ(eui64(*parse_cidr("fd42:1:2:3::1/64"), *parse_mac("00:16:3e:01:02:03")).text(), "fd42:1:2:3:216:3eff:fe01:203");
  EXPECT_EQ(link_local(*parse_mac("00:16:3e:01:02:03")).text(), "fe80::216:3eff:fe01:203");
}

Network bridge(Config config) {
  Network out;
  out.name = "br0";
  out.config = std::move(config);
  return out;
}

TEST(Network, RefusesUnknownKeysAndNamesTheNearest) {
  auto r = check(bridge({{"ipv4.adress", "auto"}}));
  ASSERT_FALSE(r);
  EXPECT_EQ(r.error().kind(), ErrorKind::invalid);
  EXPECT_EQ(r.error().field(), "config.ipv4.adress");
  EXPECT_EQ(r.error().hint(), "did you mean 'ipv4.address'?");
  EXPECT_FALSE(check(bridge({{"raw.dnsmasq", "conf-file=/etc/shadow"}})));
  EXPECT_FALSE(check(bridge({{"user.", "x"}})));
  EXPECT_TRUE(check(bridge({{"user.owner", "me"},
                            {"ipv4.address", "10.1.2.1/24"},
                            {"ipv6.address", "none"},
                            {"ipv4.nat", "true"},
                            {"bridge.mtu", "1400"}})));
}

TEST(Network, RefusesValuesThatCouldMeanMoreElsewhere) {
  for (const char* value : {"10.1.2.1", "10.1.2.0/24", "10.1.2.255/24", "10.1.2.1/30", "127.0.0.1/8", "224.0.0.1/24", "fd42::1/64",
                            "10.1.2.1/24\n", "10.1.2.1/24,x", "$(id)", "{}"})
    EXPECT_FALSE(check(bridge({{"ipv4.address", value}}))) << value;
  for (const char* value : {"fd42::1/48", "fe80::1/64", "ff02::1/64", "::1/64", "10.1.2.1/24", "fd42::/64"})
    EXPECT_FALSE(check(bridge({{"ipv6.address", value}}))) << value;
  for (const char* value : {"a b", "a,b", "a/b", "-a", "a..b", "a\nb", ".", "\"", "a%b", "lab_1"})
    EXPECT_FALSE(check(bridge({{"dns.domain", value}}))) << value;
  for (const char* name : {"", "x", "all", "default", "lo", "a/b", "a b", "-rf", "sixteen-bytes-xx", "br0\n", "br\"0", "../x"}) {
    auto network = bridge({});
    network.name = name;
    EXPECT_FALSE(check(network)) << name;
  }
}

TEST(Network, SettingsFillInDefaultsAndSurviveTheStore) {
  auto network = bridge({{"ipv4.address", "10.1.2.1/24"}, {"ipv4.nat", "yes"}});
  auto again = decode_network(encode(network));
  ASSERT_TRUE(again);
  auto s = settings(*again);
  ASSERT_TRUE(s) << s.error().text();
  EXPECT_EQ(s->ipv4->text(), "10.1.2.1/24");
  EXPECT_TRUE(s->ipv4_nat);
  EXPECT_FALSE(s->ipv6);
  EXPECT_EQ(s->dns_domain, "virga");
  EXPECT_EQ(s->mtu, 1500u);
}

}  // namespace
}  // namespace virga
