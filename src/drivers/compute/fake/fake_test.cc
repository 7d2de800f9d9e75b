#include "drivers/compute/fake/fake.h"

#include <gtest/gtest.h>

#include <boost/asio/io_context.hpp>

namespace virga::compute {
namespace {

using namespace std::chrono_literals;

TEST(FakeDriver, FailsOnceWhereItIsToldAndNotesItsCalls) {
  boost::asio::io_context io;
  TaskGroup group(io.get_executor());
  FakeDriver driver;
  std::vector<GuestEvent> events;
  driver.on_event([&](GuestEvent e) { events.push_back(e); });
  GuestSpec spec;
  spec.id = "g";
  auto test = [&]() -> Task<> {
    driver.world().fail_next.emplace("create", Error(ErrorKind::unavailable, "no room"));
    auto failed = co_await driver.create(spec);
    EXPECT_EQ(failed.error().message(), "no room");
    EXPECT_TRUE(driver.world().guests.empty());
    EXPECT_TRUE(co_await driver.create(spec));
    EXPECT_TRUE(co_await driver.start("g"));
    driver.world().ignores_shutdown = true;
    auto slow = co_await driver.stop("g", 1ms);
    EXPECT_EQ(slow.error().kind(), ErrorKind::timeout);
    driver.end_guest("g", 3, true);
    EXPECT_EQ(driver.status("g").state, State::stopped);
    EXPECT_EQ(events.size(), 1u);
    EXPECT_TRUE(events.front().reboot);
    EXPECT_EQ(events.front().exit_code, 3);
    EXPECT_EQ(driver.world().calls, (std::vector<std::string>{"create g", "create g", "start g", "stop g"}));
    spec.kind = Kind::virtual_machine;
    EXPECT_EQ(driver.plan(spec).error().kind(), ErrorKind::unsupported);
  };
  group.spawn("test", test());
  io.run();
  EXPECT_EQ(group.failures(), 0);
}

}  // namespace
}  // namespace virga::compute
