#include <gmock/gmock.h>
#include <sys/stat.h>
#include <unistd.h>

#include <boost/asio/io_context.hpp>
#include <filesystem>
#include <set>

#include "drivers/network/fake/fake.h"
#include "engine/events/events.h"
#include "engine/journal/journal.h"
#include "engine/networks/service.h"
#include "engine/operations/operations.h"
#include "store/memory/store.h"

namespace virga::engine {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

class NetworksTest : public testing::Test {
 protected:
  void SetUp() override {
    char name[] = "/tmp/virga-networks-XXXXXX";
    ASSERT_NE(::mkdtemp(name), nullptr);
    base = name;
    boot();
  }
  void TearDown() override {
    halt();
    fs::remove_all(base);
  }
  void halt() {
    if (!networks) return;
    await(networks->shut_down());
    networks.reset();
  }
  /// A daemon's start: services made anew on what the store and the host hold.
  void boot() {
    halt();
    journal = std::make_unique<Journal>(store);
    networks = std::make_unique<Networks>(
        Networks::Parts{
            .store = store, .journal = *journal, .operations = operations, .events = events, .driver = driver, .state_dir = base},
        loop.get_executor());
    auto loaded = await(networks->load());
    ASSERT_TRUE(loaded) << loaded.error().text();
    problems = await(journal->recover());
    await(networks->start());
  }

  template <class T>
  T await(Task<T> task) {
    std::optional<T> out;
    auto body = [&]() -> Task<> { out.emplace(co_await std::move(task)); };
    TaskGroup group(loop.get_executor());
    group.spawn("test", body());
    loop.restart();
    while (!out && group.failures() == 0) loop.run_one();
    return std::move(*out);
  }
  void await(Task<> task) {
    bool done = false;
    auto body = [&]() -> Task<> {
      co_await std::move(task);
      done = true;
    };
    TaskGroup group(loop.get_executor());
    group.spawn("test", body());
    loop.restart();
    while (!done) loop.run_one();
  }
  /// Lets background work run.
  void settle() {
    loop.restart();
    loop.poll();
  }

  Result<Networks::Ptr> create(const std::string& name, Config config = {}) {
    CreateNetwork request;
    request.name = name;
    request.config = std::move(config);
    return await(networks->create(internal_caller(), std::move(request)));
  }
  Result<> update(const std::string& name, Config config, bool replace = false, std::optional<std::int64_t> expected = {}) {
    UpdateNetwork request;
    request.config = std::move(config);
    request.replace = replace;
    return await(networks->update(internal_caller(), name, std::move(request), expected));
  }
  static NicRequest nic(const std::string& instance, const std::string& network = "br0") {
    NicRequest out;
    out.network = network;
    out.instance = instance;
    out.uuid = "uuid-" + instance;
    out.device = "eth0";
    return out;
  }
  void commit(const NicAddresses& a) {
    Transaction t;
    Networks::put(t, a);
    auto done = await(store.commit(std::move(t)));
    ASSERT_TRUE(done) << done.error().text();
  }
  std::size_t documents(const std::string& prefix) { return await(store.list(prefix))->size(); }

  boost::asio::io_context loop;
  MemoryStore store;
  Events events{loop.get_executor()};
  Operations operations{loop.get_executor(), events};
  network::FakeDriver driver;
  std::unique_ptr<Journal> journal;
  std::unique_ptr<Networks> networks;
  std::vector<Error> problems;
  std::string base;
};

TEST_F(NetworksTest, CreatesWithSubnetsThatAreFree) {
  driver.subnets = {"10.0.0.5/9", "192.0.2.1/24"};  // half of 10/8 is taken
  for (int i = 0; i < 20; ++i) {
    auto made = create("br" + std::to_string(i));
    ASSERT_TRUE(made) << made.error().text();
    auto s = settings(**made);
    ASSERT_TRUE(s);
    EXPECT_GE(s->ipv4->address.bytes[1], 128);
    EXPECT_EQ(s->ipv4->address.bytes[3], 1);
    EXPECT_TRUE(s->ipv4_nat) << "chosen automatically";
    EXPECT_THAT(s->ipv6->text(), testing::StartsWith("fd42:"));
    EXPECT_EQ((*made)->status, NetworkStatus::created);
    EXPECT_GT((*made)->revision, 0);
    for (const auto& other : networks->list())
      if (other->name != (*made)->name) EXPECT_FALSE(settings(*other)->ipv4->overlaps(*s->ipv4));
  }
  EXPECT_TRUE(fs::exists(base + "/networks/br0"));
  EXPECT_EQ(driver.bridges.at("br0").state_dir, base + "/networks/br0");
}

TEST_F(NetworksTest, RefusesWhatIsTakenOrWrong) {
  ASSERT_TRUE(create("br0", {{"ipv4.address", "10.5.0.1/24"}, {"ipv6.address", "none"}}));
  EXPECT_FALSE(settings(*networks->find("br0"))->ipv4_nat) << "given by the user: as Incus, no NAT unless asked for";
  EXPECT_EQ(create("br0").error().kind(), ErrorKind::exists);
  auto overlap = create("br1", {{"ipv4.address", "10.5.0.129/25"}});
  EXPECT_EQ(overlap.error().kind(), ErrorKind::conflict);
  EXPECT_EQ(overlap.error().field(), "config.ipv4.address");
  EXPECT_THAT(overlap.error().text(), HasSubstr("network 'br0'"));
  driver.other_interfaces = {"eth0"};
  EXPECT_EQ(create("eth0").error().kind(), ErrorKind::exists);
  driver.subnets = {"172.20.1.9/16"};
  EXPECT_EQ(create("br1", {{"ipv4.address", "172.20.200.1/24"}}).error().kind(), ErrorKind::conflict);
  EXPECT_EQ(create("br1", {{"ipv4.adress", "auto"}}).error().kind(), ErrorKind::invalid);
  EXPECT_EQ(create("not/a/name").error().kind(), ErrorKind::invalid);
  EXPECT_EQ(networks->list().size(), 1u);
  EXPECT_EQ(documents("/networks/"), 1u);
  EXPECT_EQ(documents("/journal/"), 0u);
}

TEST_F(NetworksTest, ACreationThatFailsLeavesNothing) {
  driver.fail_next("apply", Error(ErrorKind::unavailable, "dnsmasq is not installed"));
  auto made = create("br0");
  ASSERT_FALSE(made);
  EXPECT_THAT(made.error().text(), HasSubstr("create network 'br0'"));
  EXPECT_FALSE(networks->find("br0"));
  EXPECT_TRUE(driver.bridges.empty());
  EXPECT_FALSE(fs::exists(base + "/networks/br0"));
  EXPECT_EQ(documents("/"), 0u);
  EXPECT_TRUE(create("br0")) << "a retry succeeds";
}

TEST_F(NetworksTest, WhatWasHalfDoneIsUndoneOrFinishedAtTheNextStart) {
  ASSERT_TRUE(create("br1"));
  const auto other = json::serialize(encode(*networks->find("br1")));
  // As a kill leaves it: the row, and the work done.
  auto half = *networks->find("br1");
  half.name = "br0";
  half.config["ipv4.address"] = "10.99.0.1/24";
  half.config["ipv6.address"] = "none";
  network::BridgeSpec spec;
  spec.id = spec.bridge = "br0";
  driver.bridges["br0"] = spec;
  fs::create_directory(base + "/networks/br0");
  Transaction t;
  t.put("/journal/a", json::serialize(json::object{
                          {"kind", "network-create"}, {"arguments", encode(half)}, {"undoing", false}, {"sequence", 0}}));
  t.put("/journal/b",
        json::serialize(json::object{
            {"kind", "network-delete"}, {"arguments", encode(*networks->find("br1"))}, {"undoing", false}, {"sequence", 0}}));
  ASSERT_TRUE(await(store.commit(std::move(t))));
  boot();
  EXPECT_TRUE(problems.empty());
  EXPECT_TRUE(driver.bridges.empty());
  EXPECT_TRUE(networks->list().empty());
  EXPECT_FALSE(fs::exists(base + "/networks/br0"));
  EXPECT_FALSE(fs::exists(base + "/networks/br1"));
  EXPECT_EQ(documents("/"), 0u);
}

TEST_F(NetworksTest, UpdatesTakeEffectAtOnceOrNotAtAll) {
  ASSERT_TRUE(create("br0", {{"ipv4.address", "10.5.0.1/24"}, {"ipv6.address", "none"}}));
  const auto revision = networks->find("br0")->revision;
  ASSERT_TRUE(update("br0", {{"ipv4.nat", "true"}, {"bridge.mtu", "1400"}}));
  EXPECT_TRUE(driver.bridges.at("br0").ipv4_nat);
  EXPECT_EQ(driver.bridges.at("br0").mtu, 1400u);
  EXPECT_EQ(driver.bridges.at("br0").ipv4_cidr, "10.5.0.1/24");
  EXPECT_EQ(update("br0", {{"ipv4.nat", "false"}}, false, revision).error().kind(), ErrorKind::conflict);
  EXPECT_EQ(update("br0", {{"ipv4.nut", "false"}}).error().field(), "config.ipv4.nut");
  EXPECT_EQ(update("br9", {}).error().kind(), ErrorKind::not_found);
  driver.fail_next("apply", Error(ErrorKind::unavailable, "no"));
  EXPECT_EQ(update("br0", {{"ipv4.nat", "false"}}).error().kind(), ErrorKind::unavailable);
  EXPECT_EQ(networks->find("br0")->config.at("ipv4.nat"), "true");
  EXPECT_TRUE(driver.bridges.at("br0").ipv4_nat);
  EXPECT_EQ(networks->find("br0")->status, NetworkStatus::created);
  // The subnet is fixed while it has guests; other addresses of it are not.
  auto a = networks->reserve(nic("web"));
  ASSERT_TRUE(a);
  auto moved = update("br0", {{"ipv4.address", "10.6.0.1/24"}});
  EXPECT_EQ(moved.error().kind(), ErrorKind::busy);
  EXPECT_THAT(moved.error().text(), HasSubstr("'web'"));
  EXPECT_EQ(update("br0", {{"ipv4.address", a->ipv4 + "/24"}}).error().kind(), ErrorKind::exists);
  networks->forget("uuid-web");
  EXPECT_TRUE(update("br0", {{"ipv4.address", "10.6.0.1/24"}}));
  EXPECT_TRUE(update("br0", {{"ipv6.address", "auto"}}));
  EXPECT_THAT(networks->find("br0")->config.at("ipv6.address"), testing::StartsWith("fd42:"));
  // PUT: what is not named is gone.
  ASSERT_TRUE(update("br0", {{"ipv4.address", "10.6.0.1/24"}}, true));
  EXPECT_EQ(driver.bridges.at("br0").mtu, 1500u);
  EXPECT_EQ(driver.bridges.at("br0").ipv6_cidr, "");
}

TEST_F(NetworksTest, IsBusyWhileItHasUsers) {
  ASSERT_TRUE(create("br0"));
  std::vector<std::string> users{"/1.0/profiles/default"};
  networks->add_users([&](const std::string& name) { return name == "br0" ? users : std::vector<std::string>{}; });
  EXPECT_EQ(await(networks->remove(internal_caller(), "br0")).error().kind(), ErrorKind::busy);
  users.clear();
  ASSERT_TRUE(networks->reserve(nic("web")));
  EXPECT_EQ(await(networks->remove(internal_caller(), "br0")).error().kind(), ErrorKind::busy);
  networks->forget("uuid-web");
  driver.fail_next("remove", Error(ErrorKind::unavailable, "no"));
  EXPECT_FALSE(await(networks->remove(internal_caller(), "br0")));
  EXPECT_TRUE(networks->find("br0"));
  // Where a removal could not be finished the row stays; here the next try does it.
  auto gone = await(networks->remove(internal_caller(), "br0"));
  EXPECT_TRUE(gone) << gone.error().text();
  EXPECT_TRUE(driver.bridges.empty());
  EXPECT_EQ(await(networks->remove(internal_caller(), "br0")).error().kind(), ErrorKind::not_found);
}

TEST_F(NetworksTest, AHundredGuestsAtOnceGetAddressesOfTheirOwn) {
  ASSERT_TRUE(create("br0", {{"ipv4.address", "10.5.0.1/25"}, {"ipv6.address", "fd42:5::1/64"}}));
  std::set<std::string> macs, v4, v6;
  std::vector<NicAddresses> all;
  for (int i = 0; i < 100; ++i) {
    auto a = networks->reserve(nic("g" + std::to_string(i)));
    ASSERT_TRUE(a) << a.error().text();
    macs.insert(a->mac);
    v4.insert(a->ipv4);
    v6.insert(a->ipv6);
    EXPECT_TRUE(parse_cidr("10.5.0.1/25")->contains(*parse_ip(a->ipv4)));
    EXPECT_EQ(a->ipv6, eui64(*parse_cidr("fd42:5::1/64"), *parse_mac(a->mac)).text());
    all.push_back(*a);
  }
  EXPECT_EQ(macs.size(), 100u);
  EXPECT_EQ(v4.size(), 100u);
  EXPECT_EQ(v6.size(), 100u);
  EXPECT_FALSE(v4.contains("10.5.0.1"));
  const int before = driver.applies;
  settle();
  EXPECT_EQ(driver.bridges.at("br0").leases.size(), 100u);
  EXPECT_LE(driver.applies - before, 2) << "many changes are told at once";
  // The subnet is full at 125.
  for (int i = 100; i < 125; ++i) ASSERT_TRUE(networks->reserve(nic("g" + std::to_string(i)))) << i;
  EXPECT_EQ(networks->reserve(nic("late")).error().kind(), ErrorKind::unavailable);
  // The same NIC again is the same addresses.
  EXPECT_EQ(networks->reserve(nic("g7"))->mac, all[7].mac);
  networks->forget("uuid-g7");
  EXPECT_TRUE(networks->reserve(nic("late")));
}

TEST_F(NetworksTest, AddressesSurviveARestartAndAreGivenBack) {
  ASSERT_TRUE(create("br0", {{"ipv4.address", "10.5.0.1/24"}, {"ipv6.address", "fd42:5::1/64"}}));
  auto a = networks->reserve(nic("web"));
  ASSERT_TRUE(a);
  commit(*a);
  Transaction twice;
  Networks::put(twice, *a);
  EXPECT_EQ(await(store.commit(std::move(twice))).error().kind(), ErrorKind::conflict) << "the store keeps them unique, too";
  boot();
  auto again = networks->addresses_of("uuid-web");
  ASSERT_EQ(again.size(), 1u);
  EXPECT_EQ(again[0].mac, a->mac);
  EXPECT_EQ(again[0].ipv4, a->ipv4);
  EXPECT_EQ(again[0].network, "br0");
  EXPECT_EQ(driver.bridges.at("br0").leases.at(0).host_name, "web");
  auto fixed = nic("other");
  fixed.ipv4 = a->ipv4;
  EXPECT_EQ(networks->reserve(fixed).error().kind(), ErrorKind::exists);

  Transaction rename;
  networks->put_renamed(rename, "uuid-web", "default", "www");
  ASSERT_TRUE(await(store.commit(std::move(rename))));
  networks->renamed("uuid-web", "default", "www");
  settle();
  EXPECT_EQ(driver.bridges.at("br0").leases.at(0).host_name, "www");
  boot();
  EXPECT_EQ(networks->addresses_of("uuid-web").at(0).instance, "www");
  auto leases = networks->leases("br0");
  ASSERT_TRUE(leases);
  EXPECT_EQ(leases->size(), 4u);
  EXPECT_EQ(leases->at(0).address, "10.5.0.1");
  EXPECT_EQ(leases->at(2).host_name, "www");

  Transaction back;
  networks->erase(back, "uuid-web");
  ASSERT_TRUE(await(store.commit(std::move(back))));
  networks->forget("uuid-web");
  settle();
  EXPECT_TRUE(driver.bridges.at("br0").leases.empty());
  EXPECT_EQ(documents("/network-addresses/"), 0u);
  EXPECT_TRUE(networks->reserve(fixed));
}

TEST_F(NetworksTest, FixedAddressesAreChecked) {
  ASSERT_TRUE(create("br0", {{"ipv4.address", "10.5.0.1/24"}, {"ipv6.address", "none"}}));
  auto request = nic("web");
  for (const char* bad : {"10.5.0.0", "10.5.0.255", "10.6.0.7", "fd42::7", "10.5.0", "10.5.0.7,x"}) {
    request.ipv4 = bad;
    EXPECT_EQ(networks->reserve(request).error().kind(), ErrorKind::invalid) << bad;
  }
  request.ipv4 = "10.5.0.1";
  EXPECT_EQ(networks->reserve(request).error().kind(), ErrorKind::exists);
  request.ipv4 = "10.5.0.7";
  request.ipv6 = "fd42::7";
  EXPECT_EQ(networks->reserve(request).error().field(), "ipv6.address");
  request.ipv6.clear();
  request.mac = "00:16:3E:00:00:AA";
  auto a = networks->reserve(request);
  ASSERT_TRUE(a) << a.error().text();
  EXPECT_EQ(a->mac, "00:16:3e:00:00:aa");
  EXPECT_EQ(a->ipv4, "10.5.0.7");
  EXPECT_EQ(a->ipv6, "");
  auto other = nic("db");
  other.mac = "00:16:3e:00:00:aa";
  EXPECT_EQ(networks->reserve(other).error().field(), "hwaddr");
  EXPECT_EQ(networks->reserve(nic("x", "br9")).error().kind(), ErrorKind::not_found);
}

TEST_F(NetworksTest, PlugsOnceTheDriverKnowsTheGuest) {
  ASSERT_TRUE(create("br0", {{"bridge.mtu", "1400"}}));
  EXPECT_EQ(await(networks->plug("uuid-web", "eth0", network::TapTarget{7})).error().kind(), ErrorKind::not_found);
  auto request = nic("web");
  request.project = "my_lab";
  auto a = networks->reserve(request);
  ASSERT_TRUE(a);
  auto plugged = await(networks->plug("uuid-web", "eth0", network::TapTarget{7}));
  ASSERT_TRUE(plugged) << plugged.error().text();
  const auto name = Networks::host_interface("uuid-web", "eth0");
  EXPECT_LE(name.size(), 15u);
  const auto& seen = driver.nics.at(name);
  EXPECT_EQ(seen.spec.mac, a->mac);
  EXPECT_EQ(seen.spec.ipv4, a->ipv4);
  EXPECT_EQ(seen.spec.mtu, 1400u);
  EXPECT_EQ(std::get<network::TapTarget>(seen.target).owner, 7u);
  EXPECT_EQ(driver.bridges.at("br0").leases.at(0).host_name, "web.pmy-lab");
  EXPECT_TRUE(await(networks->plug("uuid-web", "eth0", network::TapTarget{7})));
  EXPECT_TRUE(await(networks->unplug("uuid-web", "eth0")));
  EXPECT_TRUE(await(networks->unplug("uuid-web", "eth0")));
  EXPECT_TRUE(driver.nics.empty());
  // A bridge that somebody took away is made again.
  driver.bridges.clear();
  EXPECT_TRUE(await(networks->plug("uuid-web", "eth0", network::NamespaceTarget{1, "eth0"})));
  EXPECT_EQ(driver.bridges.count("br0"), 1u);
}

TEST_F(NetworksTest, OneThatFailsIsShownAndBreaksNothingElse) {
  ASSERT_TRUE(create("br0"));
  ASSERT_TRUE(create("br1"));
  driver.bridges.clear();
  driver.fail_next("apply", Error(ErrorKind::exists, "interface 'br0' exists and is not ours"));
  boot();
  EXPECT_EQ(networks->find("br0")->status, NetworkStatus::errored);
  EXPECT_THAT(networks->find("br0")->error, HasSubstr("not ours"));
  EXPECT_EQ(networks->find("br1")->status, NetworkStatus::created);
  // The next need of it tries again.
  ASSERT_TRUE(networks->reserve(nic("web")));
  EXPECT_TRUE(await(networks->plug("uuid-web", "eth0", network::TapTarget{0})));
  EXPECT_EQ(networks->find("br0")->status, NetworkStatus::created);
}

}  // namespace
}  // namespace virga::engine
