// The pure parts: rules and dnsmasq's command line and lists. What they do to packets is shown by tests/contract/network_test.cc.
#include <gmock/gmock.h>

#include "drivers/network/bridge/dnsmasq.h"
#include "drivers/network/bridge/kernel.h"
#include "drivers/network/bridge/rules.h"

namespace virga::network {
namespace {

using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;
using testing::StartsWith;

BridgeSpec spec() {
  BridgeSpec out;
  out.id = out.bridge = "br0";
  out.ipv4_cidr = "10.1.2.1/24";
  out.ipv6_cidr = "fd42::1/64";
  out.state_dir = "/var/lib/virga/networks/br0";
  out.leases = {{"00:16:3e:00:00:01", "10.1.2.3", "fd42::216:3eff:fe00:1", "web"}, {"00:16:3e:00:00:02", "10.1.2.4", "", ""}};
  return out;
}

NicSpec nic() {
  NicSpec out;
  out.guest_id = "5a6b";
  out.host_name = "vg1";
  out.mac = "00:16:3e:00:00:01";
  out.ipv4 = "10.1.2.3";
  out.ipv6 = "fd42::3";
  out.bridge = "br0";
  return out;
}

TEST(Rules, NicElementsAreKeyedByInterface) {
  auto rules = check_spec(nic());
  ASSERT_TRUE(rules);
  EXPECT_EQ(RuleWriter("t").nic(*rules),
            "add element bridge virga_t nics { \"vg1\" }\n"
            "add element bridge virga_t macs { \"vg1\" . 00:16:3e:00:00:01 }\n"
            "add element bridge virga_t arps { \"vg1\" . 00:16:3e:00:00:01 . 10.1.2.3 }\n"
            "add element bridge virga_t ip4s { \"vg1\" . 10.1.2.3 }\n"
            "add element bridge virga_t ip6s { \"vg1\" . fe80::216:3eff:fe00:1 }\n"
            "add element bridge virga_t targets { \"vg1\" . 0xfe8000000000000002163efffe000001 }\n"
            "add element bridge virga_t ip6s { \"vg1\" . fd42::3 }\n"
            "add element bridge virga_t targets { \"vg1\" . 0xfd420000000000000000000000000003 }\n");
}

TEST(Rules, ANetworkWithoutAddressesOpensNothing) {
  auto s = spec();
  s.ipv4_cidr = s.ipv6_cidr = "";
  auto rules = check_spec(s);
  ASSERT_TRUE(rules);
  const auto text = RuleWriter("t").bridge(*rules);
  EXPECT_THAT(text, HasSubstr("add rule inet virga_t in_br0 drop\n"));
  EXPECT_THAT(text, Not(HasSubstr("dport")));
  EXPECT_THAT(text, Not(HasSubstr("masquerade")));
}

TEST(Rules, EveryNetworkEndsWithADrop) {
  auto rules = check_spec(spec());
  ASSERT_TRUE(rules);
  const auto text = RuleWriter("t").bridge(*rules);
  const auto drop = text.find("in_br0 drop\n");
  ASSERT_NE(drop, std::string::npos);
  EXPECT_EQ(text.find("in_br0", drop + 12), text.find("in_br0", text.find("inputs"))) << "no rule stands behind it";
  EXPECT_THAT(text, HasSubstr("nat_br0 ip saddr 10.1.2.0/24 ip daddr != 10.1.2.0/24 masquerade"));
  EXPECT_THAT(text, HasSubstr("nat_br0 ip6 saddr fd42::/64 ip6 daddr != fd42::/64 masquerade"));
}

/// S20, S21: whatever a string holds, it is refused before a line is written.
TEST(Rules, NoStringReachesTheTextUnchecked) {
  for (const char* evil : {"\n", "\r", "\"", ",", "%", "$", "{}", ";", "-x", " ", "\\", "@set", "*", "#", "'", "a\nflush ruleset",
                           "\t", "accept drop"}) {
    const std::string value = evil;
    const auto bad_bridge = [&](auto change) {
      auto s = spec();
      change(s);
      EXPECT_FALSE(check_spec(s)) << value;
    };
    if (value != "-x") bad_bridge([&](BridgeSpec& s) { s.bridge += value; });
    bad_bridge([&](BridgeSpec& s) { s.bridge = value; });
    bad_bridge([&](BridgeSpec& s) { s.ipv4_cidr += value; });
    bad_bridge([&](BridgeSpec& s) { s.ipv4_cidr = value; });
    bad_bridge([&](BridgeSpec& s) { s.ipv6_cidr += value; });
    bad_bridge([&](BridgeSpec& s) { s.dns_domain = value; });
    bad_bridge([&](BridgeSpec& s) { s.dns_domain += "." + value; });
    bad_bridge([&](BridgeSpec& s) { s.state_dir = value; });
    bad_bridge([&](BridgeSpec& s) { s.leases[0].mac += value; });
    bad_bridge([&](BridgeSpec& s) { s.leases[0].ipv4 += value; });
    bad_bridge([&](BridgeSpec& s) { s.leases[0].ipv6 = value; });
    bad_bridge([&](BridgeSpec& s) { s.leases[0].host_name = value; });
    const auto bad_nic = [&](auto change) {
      auto n = nic();
      change(n);
      EXPECT_FALSE(check_spec(n)) << value;
    };
    bad_nic([&](NicSpec& n) { n.host_name = value; });
    bad_nic([&](NicSpec& n) { n.bridge = value; });
    bad_nic([&](NicSpec& n) { n.mac += value; });
    bad_nic([&](NicSpec& n) { n.ipv4 = value; });
    bad_nic([&](NicSpec& n) { n.ipv6 += value; });
    if (value != "-x") bad_nic([&](NicSpec& n) { n.guest_id += value; });
    EXPECT_FALSE(check_tag(value));
  }
  auto with_nul = spec();
  with_nul.ipv4_cidr += std::string(1, '\0');
  EXPECT_FALSE(check_spec(with_nul));
}

TEST(Dnsmasq, ServesOnlyItsBridgeAndOnlyWhoIsKnown) {
  const auto argv = dnsmasq_command(spec(), "dnsmasq", {"dnsmasq", "nogroup", 1});
  EXPECT_THAT(argv, Contains("--interface=br0"));
  EXPECT_THAT(argv, Contains("--except-interface=lo"));
  EXPECT_THAT(argv, Contains("--bind-dynamic"));
  EXPECT_THAT(argv, Contains("--conf-file=/dev/null"));
  EXPECT_THAT(argv, Contains("--no-hosts"));
  EXPECT_THAT(argv, Contains("--dhcp-range=10.1.2.0,static,255.255.255.0,1h"));
  EXPECT_THAT(argv, Contains("--dhcp-range=fd42::,ra-stateless,64,1h"));
  EXPECT_THAT(argv, Contains("--dhcp-ignore-names")) << "a guest does not choose its name";
  auto s = spec();
  s.ipv4_dhcp = false;
  s.ipv6_cidr = "";
  EXPECT_THAT(dnsmasq_command(s, "dnsmasq", {}), Not(Contains(StartsWith("--dhcp-range"))));
}

TEST(Dnsmasq, ListsNameEveryAddress) {
  EXPECT_EQ(dnsmasq_hosts(spec()), "00:16:3e:00:00:01,10.1.2.3,web\n00:16:3e:00:00:02,10.1.2.4\n");
  EXPECT_EQ(dnsmasq_names(spec()), "10.1.2.3 web.virga web\nfd42::216:3eff:fe00:1 web.virga web\n");
}

TEST(Dnsmasq, KnowsWhichLeasesAreStale) {
  const std::string file =
      "1700000000 00:16:3e:00:00:01 10.1.2.3 web 01:00:16:3e:00:00:01\n"
      "1700000000 00:16:3e:00:00:09 10.1.2.4 old *\n"
      "duid 00:01:00:01:2d\n"
      "garbage\n\n1700000000 x y z\n"
      "1700000000 00:16:3e:00:00:08 10.1.2.8";
  EXPECT_THAT(stale_leases(file, "00:16:3e:00:00:07,10.1.2.7,x\n00:16:3e:00:00:01,10.1.2.3,web\n", spec()),
              ElementsAre(HeldLease{"00:16:3e:00:00:09", "10.1.2.4"}, HeldLease{"00:16:3e:00:00:08", "10.1.2.8"},
                          HeldLease{"00:16:3e:00:00:07", "10.1.2.7"}));
}

}  // namespace
}  // namespace virga::network
