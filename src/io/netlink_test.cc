// Runs against the kernel, in a network namespace that a thread makes for itself and that ends with it.
#include "io/netlink.h"

#include <gtest/gtest.h>
#include <sched.h>
#include <signal.h>
#include <sys/wait.h>

#include <thread>

#include "io/fd.h"

namespace virga::io {
namespace {

/// Runs the body in a thread with an empty network namespace; false where this user may not make one.
template <class F>
bool in_namespace(F body) {
  bool made = false;
  std::thread thread([&] {
    made = ::unshare(CLONE_NEWNET) == 0;
    if (made) body();
  });
  thread.join();
  return made;
}

#define IN_NAMESPACE(...) \
  if (!in_namespace(__VA_ARGS__)) GTEST_SKIP() << "making network namespaces needs root"

/// A process that sits in a network namespace of its own until it is destroyed.
class Guest {
 public:
  Guest() {
    int p[2];
    if (::pipe(p) != 0) return;
    pid_ = ::fork();
    if (pid_ == 0) {
      if (::unshare(CLONE_NEWNET) != 0) ::_exit(1);
      (void)!::write(p[1], "x", 1);
      for (;;) ::pause();
    }
    ::close(p[1]);
    char c;
    ready_ = ::read(p[0], &c, 1) == 1;
    ::close(p[0]);
  }
  ~Guest() {
    ::kill(pid_, SIGKILL);
    int status;
    ::waitpid(pid_, &status, 0);
  }
  bool ready() const { return ready_; }
  pid_t pid() const { return pid_; }

 private:
  pid_t pid_ = -1;
  bool ready_ = false;
};

TEST(Netlink, MakesABridgeWithAddressesAndTakesItAway) {
  IN_NAMESPACE([] {
    auto netlink = Netlink::open();
    ASSERT_TRUE(netlink) << netlink.error().text();
    auto made = netlink->create_bridge("br0", "0a:00:00:00:00:01", 77);
    ASSERT_TRUE(made) << made.error().text();
    EXPECT_EQ(netlink->create_bridge("br0", "0a:00:00:00:00:01", 77).error().kind(), ErrorKind::exists);
    ASSERT_TRUE(netlink->set_addresses("br0", {"10.9.8.1/24", "fd42:0::1/64"}));
    auto changed = netlink->set_link("br0", {.up = true, .mtu = 1400, .alias = "virga:t:net x"});
    ASSERT_TRUE(changed) << changed.error().text();
    auto link = netlink->find_link("br0");
    ASSERT_TRUE(link && *link);
    EXPECT_EQ((*link)->kind, "bridge");
    EXPECT_EQ((*link)->mac, "0a:00:00:00:00:01");
    EXPECT_EQ((*link)->alias, "virga:t:net x");
    EXPECT_EQ((*link)->mtu, 1400u);
    EXPECT_EQ((*link)->group, 77u);
    EXPECT_TRUE((*link)->up);

    auto texts = [&] {
      std::vector<std::string> out;
      auto addresses = netlink->addresses((*link)->index);
      EXPECT_TRUE(addresses);
      for (const auto& a : *addresses)
        if (a.scope == "global") out.push_back(a.address + "/" + std::to_string(a.prefix));
      return out;
    };
    EXPECT_EQ(texts(), (std::vector<std::string>{"10.9.8.1/24", "fd42::1/64"}));
    ASSERT_TRUE(netlink->set_addresses("br0", {"10.9.8.1/24", "fd42:0::1/64"})) << "equal is success";
    ASSERT_TRUE(netlink->set_addresses("br0", {"10.9.7.1/24"}));
    EXPECT_EQ(texts(), (std::vector<std::string>{"10.9.7.1/24"}));
    EXPECT_TRUE(netlink->delete_link("br0"));
    EXPECT_TRUE(netlink->delete_link("br0")) << "absent is success";
    link = netlink->find_link("br0");
    ASSERT_TRUE(link);
    EXPECT_FALSE(*link);
  });
}

TEST(Netlink, GivesAProcessTheOtherEndOfAPair) {
  IN_NAMESPACE([] {
    auto netlink = Netlink::open();
    ASSERT_TRUE(netlink);
    ASSERT_TRUE(netlink->create_bridge("br0", "0a:00:00:00:00:01", 0));
    Guest guest;
    ASSERT_TRUE(guest.ready());
    auto made = netlink->create_veth({.host_name = "v1",
                                      .peer_name = "eth0",
                                      .peer_mac = "00:16:3e:01:02:03",
                                      .peer_pid = guest.pid(),
                                      .mtu = 1420,
                                      .group = 5});
    ASSERT_TRUE(made) << made.error().text();
    auto link = netlink->find_link("v1");
    ASSERT_TRUE(link && *link);
    EXPECT_FALSE((*link)->up);
    EXPECT_EQ((*link)->group, 5u);
    auto joined = netlink->set_link("v1", {.up = true, .master = "br0", .no_ipv6_address = true});
    ASSERT_TRUE(joined) << joined.error().text();
    auto bridge = netlink->find_link("br0");
    link = netlink->find_link("v1");
    ASSERT_TRUE(bridge && *bridge && link && *link);
    EXPECT_EQ((*link)->master, (*bridge)->index);
    EXPECT_TRUE((*link)->running) << "the other end is up from the start";
    EXPECT_EQ(netlink->set_link("v1", {.master = "br9"}).error().kind(), ErrorKind::not_found);
    EXPECT_EQ(netlink->create_veth({.host_name = "v2", .peer_name = "eth0", .peer_mac = "00:16:3e:01:02:03", .peer_pid = 0})
                  .error()
                  .kind(),
              ErrorKind::invalid);
  });
}

TEST(Netlink, MakesAPersistentTapForItsOwner) {
  IN_NAMESPACE([] {
    auto netlink = Netlink::open();
    ASSERT_TRUE(netlink);
    auto made = netlink->create_tap("t1", 4242, "virga:t:nic x");
    ASSERT_TRUE(made) << made.error().text();
    EXPECT_EQ(netlink->create_tap("t1", 4242, "virga:t:nic x").error().kind(), ErrorKind::exists);
    auto link = netlink->find_link("t1");
    ASSERT_TRUE(link && *link);
    EXPECT_EQ((*link)->kind, "tun");
    EXPECT_EQ((*link)->alias, "virga:t:nic x");
    auto all = netlink->links();
    ASSERT_TRUE(all);
    EXPECT_EQ(all->size(), 2u) << "lo and t1";
  });
}

TEST(Netlink, RefusesNamesThatAreNone) {
  IN_NAMESPACE([] {
    auto netlink = Netlink::open();
    ASSERT_TRUE(netlink);
    for (const char* name : {"", "a/b", "a b", "sixteen-bytes-xx", "..", "a\nb"}) {
      EXPECT_EQ(netlink->create_bridge(name, "0a:00:00:00:00:01", 0).error().kind(), ErrorKind::invalid) << name;
      EXPECT_EQ(netlink->create_tap(name, 0, "").error().kind(), ErrorKind::invalid) << name;
    }
    EXPECT_EQ(netlink->create_bridge("br0", "0a:00:00:00:00:0g", 0).error().kind(), ErrorKind::invalid);
    EXPECT_FALSE(netlink->set_addresses("lo", {"10.0.0.1"}));
    EXPECT_FALSE(netlink->set_addresses("lo", {"10.0.0.1/33"}));
  });
}

}  // namespace
}  // namespace virga::io
