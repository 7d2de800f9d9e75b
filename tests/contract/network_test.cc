// The contract of network::Driver, over the fake and over Linux bridges; and what only the real one can show: packets. Every test
// has a network namespace of its own, so nothing of the host is touched.
#include <gtest/gtest.h>
#include <stdlib.h>

#include <boost/asio/io_context.hpp>
#include <filesystem>
#include <memory>
#include <optional>
#include <set>

#include "drivers/network/bridge/driver.h"
#include "drivers/network/fake/fake.h"
#include "io/file.h"
#include "network_guests.h"

namespace virga::network {
namespace {

using namespace virga::testing;

/// A directory for dnsmasq's files that its user can pass through.
class StateDirectory {
 public:
  StateDirectory() {
    char name[] = "/tmp/virga-net-XXXXXX";
    path_ = ::mkdtemp(name);
    ::chmod(path_.c_str(), 0711);
  }
  ~StateDirectory() { (void)io::remove_tree(path_); }
  const std::string& path() const { return path_; }
  bool empty() const { return shell("ls -A " + path_).out.empty(); }
  /// How many dnsmasq keep their files here.
  int processes() const {
    int count = 0;
    for (const auto& entry : std::filesystem::directory_iterator("/proc")) {
      auto text = io::read_file(entry.path().string() + "/cmdline").value_or("");
      if (text.find(std::string(1, '\0') + "--pid-file=" + path_ + "/dnsmasq.pid" + std::string(1, '\0')) != std::string::npos)
        ++count;
    }
    return count;
  }

 private:
  std::string path_;
};

class NetworkTest : public ::testing::Test {
 protected:
  void SetUp() override {
    home_.reset(::open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC));
    if (::unshare(CLONE_NEWNET) != 0) GTEST_SKIP() << "making network namespaces needs root";
    shell("ip link set lo up");
  }
  void TearDown() override {
    driver.reset();
    if (home_) (void)::setns(home_.get(), CLONE_NEWNET);
  }

  template <class T>
  T await(Task<T> task) {
    std::optional<T> out;
    auto body = [&]() -> Task<> { out.emplace(co_await std::move(task)); };
    TaskGroup group(io.get_executor());
    group.spawn("test", body());
    io.restart();
    while (!out && group.failures() == 0) io.run_one();
    return std::move(*out);
  }
  void await(Task<> task) {
    bool done = false;
    auto body = [&]() -> Task<> {
      co_await std::move(task);
      done = true;
    };
    TaskGroup group(io.get_executor());
    group.spawn("test", body());
    io.restart();
    while (!done) io.run_one();
  }
  void ok(const Result<>& result) { ASSERT_TRUE(result) << result.error().text(); }
  /// Runs the loop's own tasks until the condition holds.
  bool loop_until(const std::function<bool()>& condition) {
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(5);
    while (!condition() && std::chrono::steady_clock::now() < end) io.run_one_for(std::chrono::milliseconds(20));
    return condition();
  }

  BridgeSpec spec(const std::string& name = "vt0") const {
    BridgeSpec out;
    out.id = name;
    out.bridge = name;
    out.ipv4_cidr = "10.77.0.1/24";
    out.ipv6_cidr = "fd42:77::1/64";
    out.state_dir = state.path();
    return out;
  }
  static NicSpec nic(int n) {
    NicSpec out;
    out.guest_id = "guest-" + std::to_string(n);
    out.host_name = "vtn" + std::to_string(n);
    out.mac = "00:16:3e:00:00:0" + std::to_string(n);
    out.ipv4 = "10.77.0.1" + std::to_string(n);
    out.ipv6 = "fd42:77::216:3eff:fe00:" + std::to_string(n);
    out.bridge = "vt0";
    return out;
  }
  static StaticLease lease(int n) { return {nic(n).mac, nic(n).ipv4, nic(n).ipv6, "g" + std::to_string(n)}; }

  boost::asio::io_context io;
  StateDirectory state;
  std::unique_ptr<Driver> driver;

 private:
  io::UniqueFd home_;
};

// --- the contract ---

class NetworkContract : public NetworkTest, public ::testing::WithParamInterface<std::string> {
 protected:
  void SetUp() override {
    NetworkTest::SetUp();
    if (IsSkipped()) return;
    if (GetParam() == "fake") {
      driver = std::make_unique<FakeDriver>();
    } else {
      auto made = BridgeDriver::create(io.get_executor(), {.tag = "t1"});
      ASSERT_TRUE(made) << made.error().text();
      driver = std::move(*made);
    }
  }
  void TearDown() override {
    if (driver) {
      for (const auto& name : {"vt0", "vt1"}) EXPECT_TRUE(await(driver->remove(spec(name))));
      await(driver->shut_down());
    }
    NetworkTest::TearDown();
  }
};

TEST_P(NetworkContract, ApplyIsWhatTheHostIs) {
  auto s = spec();
  ok(await(driver->apply(s)));
  ok(await(driver->apply(s)));
  auto seen = await(driver->observe("vt0"));
  ASSERT_TRUE(seen) << seen.error().text();
  EXPECT_TRUE(seen->up);
  EXPECT_EQ(seen->mtu, 1500u);
  EXPECT_EQ(seen->mac.size(), 17u);
  std::set<std::string> addresses;
  for (const auto& a : seen->addresses)
    if (a.scope == "global") addresses.insert(a.family + " " + a.address + "/" + a.netmask);
  EXPECT_EQ(addresses, (std::set<std::string>{"inet 10.77.0.1/24", "inet6 fd42:77::1/64"}));
  auto subnets = await(driver->host_subnets());
  ASSERT_TRUE(subnets);
  EXPECT_NE(std::find(subnets->begin(), subnets->end(), "10.77.0.1/24"), subnets->end());

  s.ipv4_cidr = "10.78.0.1/24";
  s.ipv6_cidr = "";
  s.mtu = 1400;
  ok(await(driver->apply(s)));
  seen = await(driver->observe("vt0"));
  ASSERT_TRUE(seen);
  EXPECT_EQ(seen->mtu, 1400u);
  ASSERT_EQ(seen->addresses.size(), 1u);
  EXPECT_EQ(seen->addresses[0].address, "10.78.0.1");
}

TEST_P(NetworkContract, RemoveTakesAwayAndForgivesAbsence) {
  ok(await(driver->remove(spec())));
  ok(await(driver->apply(spec())));
  EXPECT_TRUE(*await(driver->interface_exists("vt0")));
  ok(await(driver->remove(spec())));
  EXPECT_FALSE(*await(driver->interface_exists("vt0")));
  EXPECT_EQ(await(driver->observe("vt0")).error().kind(), ErrorKind::not_found);
  ok(await(driver->remove(spec())));
  EXPECT_TRUE(state.empty()) << shell("ls -la " + state.path()).out;
}

TEST_P(NetworkContract, NamesOfOthersAreLeftAlone) {
  if (auto* fake = dynamic_cast<FakeDriver*>(driver.get())) fake->other_interfaces.push_back("vt0");
  if (GetParam() == "bridge") ASSERT_EQ(shell("ip link add vt0 type bridge").code, 0);
  auto applied = await(driver->apply(spec()));
  ASSERT_FALSE(applied);
  EXPECT_EQ(applied.error().kind(), ErrorKind::exists);
  ok(await(driver->remove(spec())));
  EXPECT_TRUE(*await(driver->interface_exists("vt0"))) << "remove must not touch it either";
  // Two networks of ours do not share an interface.
  ok(await(driver->apply(spec("vt1"))));
  auto other = spec("vt1");
  other.id = "other";
  EXPECT_EQ(await(driver->apply(other)).error().kind(), ErrorKind::exists);
}

TEST_P(NetworkContract, PlugsAndUnplugs) {
  GuestNamespace guest;
  EXPECT_EQ(await(driver->plug_tap(nic(1), {.owner = 1234})).error().kind(), ErrorKind::not_found) << "no bridge yet";
  ok(await(driver->apply(spec())));
  ok(await(driver->plug_tap(nic(1), {.owner = 1234})));
  ok(await(driver->plug_tap(nic(1), {.owner = 1234})));
  ok(await(driver->plug_namespace(nic(2), {.pid = guest.pid(), .guest_name = "eth0"})));
  ok(await(driver->plug_namespace(nic(2), {.pid = guest.pid(), .guest_name = "eth0"})));
  auto foreign = nic(1);
  foreign.guest_id = "guest-9";
  EXPECT_EQ(await(driver->plug_tap(foreign, {.owner = 1})).error().kind(), ErrorKind::exists);
  auto names = await(driver->list_nics());
  ASSERT_TRUE(names);
  EXPECT_EQ(std::set<std::string>(names->begin(), names->end()), (std::set<std::string>{"vtn1", "vtn2"}));
  auto ports = await(driver->observe("vt0"))->ports;
  EXPECT_EQ(std::set<std::string>(ports.begin(), ports.end()), (std::set<std::string>{"vtn1", "vtn2"}));
  for (const char* name : {"vtn1", "vtn2", "vtn2"}) ok(await(driver->unplug(name)));
  EXPECT_TRUE(await(driver->list_nics())->empty());
  EXPECT_FALSE(*await(driver->interface_exists("vtn1")));
}

INSTANTIATE_TEST_SUITE_P(Drivers, NetworkContract, ::testing::Values("fake", "bridge"), [](const auto& i) { return i.param; });

// --- packets ---

class BridgePackets : public NetworkTest {
 protected:
  void SetUp() override {
    NetworkTest::SetUp();
    if (IsSkipped()) return;
    start("t1");
    ok(io::write_file_durably(
        state.path() + "/udhcpc.sh",
        "#!/bin/sh\ncase $1 in bound|renew) ip -4 addr flush dev $interface; ip addr add $ip/$mask dev $interface; "
        "for r in $router; do ip route add default via $r; done; echo GOT ip=$ip router=$router dns=$dns domain=$domain "
        "host=$hostname;; esac\n",
        0755));
  }
  void TearDown() override {
    if (driver) {
      auto removed = await(driver->remove(spec()));
      EXPECT_TRUE(removed) << removed.error().text();
      await(driver->shut_down());
    }
    NetworkTest::TearDown();
  }
  void start(const std::string& tag) {
    auto made = BridgeDriver::create(io.get_executor(), {.tag = tag});
    ASSERT_TRUE(made) << made.error().text();
    driver = std::move(*made);
  }
  void plug(int n, const GuestNamespace& guest) {
    ok(await(driver->plug_namespace(nic(n), {.pid = guest.pid(), .guest_name = "eth0"})));
    guest.run("ip link set lo up");
  }
  std::string dhcp(const GuestNamespace& guest) {
    return guest.run("busybox udhcpc -i eth0 -n -q -f -t 10 -T 1 -s " + state.path() + "/udhcpc.sh").out;
  }
  std::string dnsmasq_pid() { return io::read_file(state.path() + "/dnsmasq.pid").value_or(""); }
  /// Joined to the host by a link of its own: what lies behind the host's NAT.
  void connect_outside(const GuestNamespace& outside) {
    shell("ip link add up0 type veth peer name eth0 netns " + std::to_string(outside.pid()));
    shell("ip link set up0 up; ip addr add 192.0.2.1/24 dev up0; ip addr add 2001:db8:9::1/64 dev up0 nodad");
    outside.run(
        "ip link set lo up; ip link set eth0 up; ip addr add 192.0.2.2/24 dev eth0; ip addr add 2001:db8:9::2/64 dev eth0 nodad");
  }
};

TEST_F(BridgePackets, GuestsGetAddressesAndNamesAndReachTheWorld) {
  GuestNamespace a, b, outside;
  connect_outside(outside);
  auto s = spec();
  s.leases = {lease(1), lease(2)};
  ok(await(driver->apply(s)));
  plug(1, a);
  plug(2, b);
  auto got = dhcp(a);
  EXPECT_NE(got.find("GOT ip=10.77.0.11 router=10.77.0.1 dns=10.77.0.1 domain=virga host=g1"), std::string::npos) << got;
  got = dhcp(b);
  EXPECT_NE(got.find("ip=10.77.0.12"), std::string::npos) << got;

  for (const char* name : {"g2.virga", "g2"}) {
    auto answer = a.run(std::string("busybox nslookup ") + name + " 10.77.0.1");
    EXPECT_NE(answer.out.find("10.77.0.12"), std::string::npos) << answer.out;
  }
  EXPECT_NE(a.run("busybox nslookup -type=aaaa g2.virga 10.77.0.1").out.find("fd42:77::216:3eff:fe00:2"), std::string::npos);
  EXPECT_EQ(a.run("busybox ping -c 1 -W 5 10.77.0.12").code, 0) << "guest to guest";
  EXPECT_EQ(a.run("busybox ping -c 1 -W 5 10.77.0.1").code, 0) << "guest to the bridge";
  EXPECT_EQ(shell("busybox ping -c 1 -W 5 10.77.0.11").code, 0) << "host to guest";
  auto out = a.run("busybox ping -c 1 -W 5 192.0.2.2");
  EXPECT_EQ(out.code, 0) << "the outside knows no way back but to the host's address: " << out.out;

  // IPv6 by router advertisement.
  EXPECT_TRUE(eventually([&] {
    auto text = a.run("ip -6 addr show dev eth0 scope global").out;
    return text.find("fd42:77::216:3eff:fe00:1/64") != std::string::npos && text.find("tentative") == std::string::npos;
  })) << a.run("ip -6 addr").out;
  out = a.run("busybox ping -6 -c 1 -W 5 2001:db8:9::2");
  EXPECT_EQ(out.code, 0) << out.out << a.run("ip -6 route").out;
  EXPECT_TRUE(eventually([&] { return a.run("busybox ping -6 -c 1 -W 1 fd42:77::216:3eff:fe00:2").code == 0; }));
}

TEST_F(BridgePackets, TheHostIsClosedButForDhcpDnsAndPing) {
  GuestNamespace a, outside;
  connect_outside(outside);
  auto s = spec();
  s.leases = {lease(1)};
  ok(await(driver->apply(s)));
  plug(1, a);
  ASSERT_NE(dhcp(a).find("GOT"), std::string::npos);
  // Both listeners are up before anything is tried; the guest's own one shows that the other way works.
  FILE* host = ::popen("exec busybox nc -l -p 8443", "r");
  FILE* guest =
      ::popen(("exec nsenter --net=/proc/" + std::to_string(a.pid()) + "/ns/net busybox nc -l -p 8080 -e echo hello").c_str(), "r");
  ASSERT_TRUE(eventually([] { return shell("ss -ltn").out.find(":8443") != std::string::npos; }));
  ASSERT_TRUE(eventually([&] { return a.run("ss -ltn").out.find(":8080") != std::string::npos; }));
  EXPECT_NE(shell("busybox nc -w 5 10.77.0.11 8080 < /dev/null").out.find("hello"), std::string::npos)
      << "the host reaches its guests";
  for (const char* address : {"10.77.0.1", "192.0.2.1"})
    EXPECT_NE(a.run(std::string("busybox nc -w 1 ") + address + " 8443 < /dev/null").code, 0) << address;
  EXPECT_NE(a.run("busybox ping -c 1 -W 1 192.0.2.1").code, 0) << "only the bridge's own address answers";
  EXPECT_NE(a.run("busybox nslookup -timeout=1 -retry=1 g1.virga 192.0.2.1").code, 0);
  EXPECT_EQ(a.run("busybox nslookup g1.virga 10.77.0.1").code, 0);
  EXPECT_EQ(shell("busybox nc -w 5 127.0.0.1 8443 < /dev/null").code, 0) << "the listener was there";
  ::pclose(host);
  ::pclose(guest);
}

struct Spoof {
  const char* what;
  bool passes;
  Frame frame;
};

/// What guest 1 may and may not send to guest 2.
std::vector<Spoof> spoofs() {
  const Mac me = mac_of("00:16:3e:00:00:01"), peer = mac_of("00:16:3e:00:00:02"), other = mac_of("00:16:3e:00:00:09");
  const auto my4 = ip_of("10.77.0.11"), peer4 = ip_of("10.77.0.12"), other4 = ip_of("10.77.0.99"), gateway = ip_of("10.77.0.1"),
             zero = ip_of("0.0.0.0"), all4 = ip_of("255.255.255.255");
  const auto my6 = ip_of("fd42:77::216:3eff:fe00:1"), peer6 = ip_of("fd42:77::216:3eff:fe00:2"), my_link = link_local(me),
             peer_link = link_local(peer), none6 = ip_of("::"), nodes = ip_of("ff02::1");
  const Mac to_nodes = mac_of("33:33:00:00:00:01");
  const auto from_me = [&](unsigned type, const Frame& payload) { return ethernet(peer, me, type, payload); };
  const auto six = [&](const IpAddress& from, const IpAddress& to, unsigned next, const Frame& payload) {
    return ethernet(to == nodes ? to_nodes : peer, me, ETH_P_IPV6, ipv6(from, to, next, payload));
  };
  const auto behind = [](std::initializer_list<unsigned> header, const Frame& rest) {
    Frame out;
    append(append(out, header), rest);
    return out;
  };
  const Frame plain = ipv4(my4, peer4, 17, udp(1000, 2000));
  return {
      {"own addresses", true, from_me(ETH_P_IP, plain)},
      {"another source MAC", false, ethernet(peer, other, ETH_P_IP, plain)},
      {"the peer's source MAC", false, ethernet(broadcast(), peer, ETH_P_IP, plain)},
      {"another source address", false, from_me(ETH_P_IP, ipv4(other4, peer4, 17, udp(1000, 2000)))},
      {"the gateway's source address", false, from_me(ETH_P_IP, ipv4(gateway, peer4, 17, udp(1000, 2000)))},
      {"no source address", false, from_me(ETH_P_IP, ipv4(zero, peer4, 17, udp(1000, 2000)))},
      {"DHCP discover", true, ethernet(broadcast(), me, ETH_P_IP, ipv4(zero, all4, 17, udp(68, 67)))},
      {"DHCP offer", false, from_me(ETH_P_IP, ipv4(my4, peer4, 17, udp(67, 68)))},
      {"DHCP offer from another port", false, ethernet(broadcast(), me, ETH_P_IP, ipv4(my4, all4, 17, udp(1067, 68)))},
      {"ARP request", true, ethernet(broadcast(), me, ETH_P_ARP, arp(1, me, my4, Mac{}, peer4))},
      {"ARP probe", true, ethernet(broadcast(), me, ETH_P_ARP, arp(1, me, zero, Mac{}, my4))},
      {"ARP reply for the gateway", false, from_me(ETH_P_ARP, arp(2, me, gateway, peer, peer4))},
      {"ARP reply with another MAC", false, from_me(ETH_P_ARP, arp(2, other, my4, peer, peer4))},
      {"ARP reply without an address", false, from_me(ETH_P_ARP, arp(2, me, zero, peer, peer4))},
      {"VLAN", false, from_me(ETH_P_8021Q, behind({0, 5, 8, 0}, plain))},
      {"VLAN with an allowed type inside", false, from_me(ETH_P_8021Q, behind({0, 0, 8, 0}, plain))},
      {"QinQ", false, from_me(ETH_P_8021AD, behind({0, 5, 0x81, 0, 0, 6, 8, 0}, plain))},
      {"PPPoE", false, from_me(ETH_P_PPP_SES, plain)},
      {"LLDP", false, ethernet(mac_of("33:33:00:00:00:02"), me, 0x88cc, plain)},
      {"IPv6 from its address", true, six(my6, peer6, 17, udp(1000, 2000))},
      {"IPv6 from its link-local address", true, six(my_link, peer_link, 17, udp(1000, 2000))},
      {"IPv6 from the peer's address", false, six(peer6, my6, 17, udp(1000, 2000))},
      {"IPv6 from another link-local address", false, six(link_local(other), peer_link, 17, udp(1000, 2000))},
      {"IPv6 from no address", false, six(none6, peer6, 17, udp(1000, 2000))},
      {"router advertisement", false, six(my_link, nodes, 58, icmp6(134))},
      {"router advertisement behind a hop-by-hop header", false,
       six(my_link, nodes, 0, behind({58, 0, 1, 4, 0, 0, 0, 0}, icmp6(134)))},
      {"router advertisement behind destination options", false,
       six(my_link, nodes, 60, behind({58, 0, 1, 4, 0, 0, 0, 0}, icmp6(134)))},
      {"router advertisement in a fragment", false, six(my_link, nodes, 44, behind({58, 0, 0, 1, 0, 0, 0, 9}, icmp6(134)))},
      {"redirect", false, six(my_link, peer_link, 58, icmp6(137, &peer6))},
      {"neighbour advertisement for itself", true, six(my6, nodes, 58, icmp6(136, &my6))},
      {"neighbour advertisement for the peer", false, six(my6, nodes, 58, icmp6(136, &peer6))},
      {"neighbour advertisement for the peer, from link-local", false, six(my_link, nodes, 58, icmp6(136, &peer_link))},
      {"duplicate detection for itself", true, six(none6, nodes, 58, icmp6(135, &my6))},
      {"duplicate detection for the peer", false, six(none6, nodes, 58, icmp6(135, &peer6))},
      {"DHCPv6 reply", false, six(my_link, peer_link, 17, udp(547, 546))},
  };
}

/// Each forged frame is followed by an honest one: when that has arrived, the forged one would have, too.
void expect_filtered(const GuestNamespace& from, const GuestNamespace& to) {
  Wire sender(from.pid(), "eth0"), receiver(to.pid(), "eth0");
  ASSERT_TRUE(sender.ok() && receiver.ok());
  const Mac me = mac_of("00:16:3e:00:00:01");
  unsigned number = 0;
  for (const auto& spoof : spoofs()) {
    const auto marker =
        ethernet(broadcast(), me, ETH_P_ARP, arp(1, me, ip_of("10.77.0.11"), Mac{}, ip_of("10.77.1." + std::to_string(++number))));
    ASSERT_TRUE(sender.send(spoof.frame)) << spoof.what;
    ASSERT_TRUE(sender.send(marker));
    auto seen = receiver.receive_until(marker);
    ASSERT_FALSE(seen.empty());
    ASSERT_EQ(seen.back(), marker) << spoof.what << ": the honest frame did not arrive";
    const bool arrived = std::find(seen.begin(), seen.end(), spoof.frame) != seen.end();
    EXPECT_EQ(arrived, spoof.passes) << spoof.what;
  }
}

TEST_F(BridgePackets, ForgedFramesAreDropped) {
  GuestNamespace a, b;
  ok(await(driver->apply(spec())));
  plug(1, a);
  plug(2, b);
  expect_filtered(a, b);
}

TEST_F(BridgePackets, ANewDaemonAdoptsWithoutDisturbing) {
  GuestNamespace a, b;
  auto s = spec();
  s.leases = {lease(1), lease(2)};
  ok(await(driver->apply(s)));
  plug(1, a);
  plug(2, b);
  const auto pid = dnsmasq_pid();
  ASSERT_FALSE(pid.empty());
  await(driver->shut_down());
  driver.reset();
  EXPECT_EQ(state.processes(), 1) << "dnsmasq outlives the daemon";
  expect_filtered(a, b);

  b.end();  // ends while no daemon looks; its half of the rules is cleared up
  ASSERT_TRUE(eventually([] { return shell("ip link show vtn2").code != 0; }));
  start("t1");
  ok(await(driver->apply(s)));
  EXPECT_EQ(dnsmasq_pid(), pid);
  EXPECT_EQ(shell("nft list set bridge virga_t1 nics").out.find("vtn2"), std::string::npos);
  ok(await(driver->plug_namespace(nic(1), {.pid = a.pid(), .guest_name = "eth0"})));
  GuestNamespace again;
  plug(2, again);
  expect_filtered(a, again);
  EXPECT_EQ(*await(driver->list_nics()), (std::vector<std::string>{"vtn1", "vtn2"}));
}

TEST_F(BridgePackets, RulesThatWereFlushedComeBack) {
  GuestNamespace a, b;
  ok(await(driver->apply(spec())));
  plug(1, a);
  plug(2, b);
  shell("nft flush ruleset");
  EXPECT_TRUE(loop_until([] { return shell("nft list tables").out == "table bridge virga_t1\ntable inet virga_t1\n"; }))
      << shell("nft list tables").out;
  expect_filtered(a, b);
  // And a change finds its way when nobody watched.
  await(driver->shut_down());
  shell("nft flush ruleset");
  GuestNamespace c;
  plug(3, c);
  expect_filtered(a, b);
}

TEST_F(BridgePackets, DnsmasqThatDiedIsBroughtBack) {
  GuestNamespace a;
  auto s = spec();
  s.leases = {lease(1)};
  ok(await(driver->apply(s)));
  plug(1, a);
  const auto pid = dnsmasq_pid();
  ASSERT_EQ(shell("kill -9 " + pid).code, 0);
  EXPECT_TRUE(loop_until([&] { return state.processes() == 1 && dnsmasq_pid() != pid; })) << "the daemon sees to it by itself";
  const auto first = dnsmasq_pid();
  await(driver->shut_down());  // now nobody watches: the next daemon's apply does it
  driver.reset();
  ASSERT_EQ(shell("kill -9 " + first).code, 0);
  ASSERT_TRUE(eventually([&] { return state.processes() == 0; }));
  start("t1");
  ok(await(driver->apply(s)));
  EXPECT_NE(dnsmasq_pid(), first);
  EXPECT_NE(dhcp(a).find("ip=10.77.0.11"), std::string::npos);
  // Its pid file is lost: it is found all the same, there is never a second.
  const auto second = dnsmasq_pid();
  shell("rm " + state.path() + "/dnsmasq.pid");
  ok(await(driver->apply(s)));
  EXPECT_NE(dnsmasq_pid(), second);
  EXPECT_EQ(state.processes(), 1);
  // A pid file that names somebody else's process hurts nobody.
  GuestNamespace bystander;
  shell("echo " + std::to_string(bystander.pid()) + " > " + state.path() + "/dnsmasq.pid");
  ok(await(driver->remove(spec())));
  EXPECT_EQ(::kill(bystander.pid(), 0), 0);
  EXPECT_EQ(state.processes(), 0);
}

TEST_F(BridgePackets, AnAddressGoesToItsNextOwner) {
  GuestNamespace a;
  auto s = spec();
  s.leases = {lease(1)};
  ok(await(driver->apply(s)));
  plug(1, a);
  ASSERT_NE(dhcp(a).find("ip=10.77.0.11"), std::string::npos);
  ok(await(driver->unplug("vtn1")));
  auto heir = lease(2);
  heir.ipv4 = lease(1).ipv4;
  s.leases = {heir};
  ok(await(driver->apply(s)));
  GuestNamespace b;
  auto heir_nic = nic(2);
  heir_nic.ipv4 = heir.ipv4;
  ok(await(driver->plug_namespace(heir_nic, {.pid = b.pid(), .guest_name = "eth0"})));
  auto got = dhcp(b);
  EXPECT_NE(got.find("ip=10.77.0.11"), std::string::npos) << got;
  EXPECT_NE(got.find("host=g2"), std::string::npos) << got;
  // Names of guests that are gone are no longer answered.
  EXPECT_EQ(b.run("busybox nslookup g1.virga 10.77.0.1").out.find("10.77.0.11"), std::string::npos);
}

TEST_F(BridgePackets, RemoveLeavesNothing) {
  GuestNamespace a;
  auto s = spec();
  s.leases = {lease(1)};
  ok(await(driver->apply(s)));
  plug(1, a);
  shell("rm " + state.path() + "/udhcpc.sh");
  EXPECT_NE(shell("nft list ruleset").out, "");
  ok(await(driver->unplug("vtn1")));
  ok(await(driver->remove(spec())));
  EXPECT_EQ(shell("nft list ruleset").out, "");
  EXPECT_EQ(shell("ip -o link | wc -l").out, "1\n") << shell("ip -o link").out;
  EXPECT_EQ(state.processes(), 0);
  EXPECT_TRUE(state.empty());
}

/// A kill between making an interface and naming it in its alias.
TEST_F(BridgePackets, WhatWasLeftWithoutAnAliasIsStillOurs) {
  GuestNamespace a;
  ok(await(driver->apply(spec())));
  plug(1, a);
  ok(await(driver->plug_tap(nic(2), {.owner = 0})));
  shell("ip link set vt0 alias \"\"; ip link set vtn1 alias \"\"");
  ok(await(driver->apply(spec())));
  EXPECT_EQ(await(driver->list_nics())->size(), 2u);
  ok(await(driver->plug_namespace(nic(1), {.pid = a.pid(), .guest_name = "eth0"})));
  shell("ip link set vt0 alias \"\"; ip link set vtn1 alias \"\"");
  for (const char* name : {"vtn1", "vtn2"}) ok(await(driver->unplug(name)));
  EXPECT_TRUE(await(driver->list_nics())->empty());
  ok(await(driver->remove(spec())));
  EXPECT_EQ(shell("nft list ruleset").out, "");
  EXPECT_EQ(shell("ip -o link | wc -l").out, "1\n") << shell("ip -o link").out;
}

TEST_F(BridgePackets, TwoDaemonsDoNotMeet) {
  GuestNamespace a, b;
  shell("nft add table inet mine; nft add chain inet mine c");
  ok(await(driver->apply(spec())));
  plug(1, a);
  plug(2, b);
  auto made = BridgeDriver::create(io.get_executor(), {.tag = "t2"});
  ASSERT_TRUE(made);
  auto& second = **made;
  StateDirectory second_state;
  auto s = spec("vt9");
  s.ipv4_cidr = "10.79.0.1/24";
  s.ipv6_cidr = "";
  s.state_dir = second_state.path();
  EXPECT_EQ(await(second.apply(spec())).error().kind(), ErrorKind::exists);
  ok(await(second.apply(s)));
  EXPECT_TRUE(await(second.list_nics())->empty());
  ok(await(second.unplug("vtn1")));
  EXPECT_TRUE(*await(driver->interface_exists("vtn1"))) << "not its own: left alone";
  ok(await(second.remove(s)));
  await(second.shut_down());
  EXPECT_EQ(shell("nft list tables").out, "table inet mine\ntable bridge virga_t1\ntable inet virga_t1\n");
  expect_filtered(a, b);
}

TEST_F(BridgePackets, BadValuesAreRefusedBeforeAnythingIsDone) {
  for (const char* bad : {"10.0.0.1/24; flush ruleset", "10.0.0.1/24\n", "", "{}", "fd42::1/64"}) {
    auto s = spec();
    s.ipv4_cidr = bad;
    if (*bad == '\0') s.bridge = "a\"b";
    EXPECT_FALSE(await(driver->apply(s))) << bad;
  }
  auto s = spec();
  s.dns_domain = "a,b";
  EXPECT_FALSE(await(driver->apply(s)));
  s = spec();
  s.leases = {{"00:16:3e:00:00:01", "10.77.0.11", "", "evil\n00:16:3e:00:00:02,10.77.0.12"}};
  EXPECT_FALSE(await(driver->apply(s)));
  s.leases = {{"00:16:3e:00:00:01,set:x", "10.77.0.11", "", "g"}};
  EXPECT_FALSE(await(driver->apply(s)));
  auto n = nic(1);
  n.guest_id = "a b";
  EXPECT_FALSE(await(driver->plug_tap(n, {})));
  EXPECT_FALSE(await(driver->unplug("a b")));
  EXPECT_EQ(shell("ip -o link | wc -l").out, "1\n");
  EXPECT_FALSE(BridgeDriver::create(io.get_executor(), {.tag = "a-b"}));
}

TEST_F(BridgePackets, SaysWhenDnsmasqIsMissing) {
  auto made = BridgeDriver::create(io.get_executor(), {.tag = "t2", .dnsmasq = "no-such-dnsmasq"});
  ASSERT_TRUE(made);
  auto& lacking = **made;
  auto s = spec("vt1");
  auto applied = await(lacking.apply(s));
  ASSERT_FALSE(applied);
  EXPECT_EQ(applied.error().kind(), ErrorKind::unavailable);
  EXPECT_EQ(applied.error().hint(), "apt install dnsmasq-base");
  auto findings = await(lacking.probe());
  EXPECT_FALSE(findings.back().ok);
  EXPECT_EQ(findings.back().remedy, "apt install dnsmasq-base");
  ok(await(lacking.remove(s)));
  await(lacking.shut_down());
  EXPECT_EQ(shell("ip -o link | wc -l").out, "1\n");
}

TEST_F(BridgePackets, TellsWhatTheHostCanDo) {
  auto findings = await(dynamic_cast<BridgeDriver&>(*driver).probe());
  EXPECT_EQ(findings.size(), 4u);
  for (const auto& f : findings) EXPECT_TRUE(f.ok) << f.name << ": " << f.detail << " (" << f.remedy << ")";
  EXPECT_EQ(shell("nft list ruleset").out, "");
}

}  // namespace
}  // namespace virga::network
