#include "api/idle.h"

#include <gtest/gtest.h>

#include <boost/asio/io_context.hpp>

namespace virga::api {
namespace {

using namespace std::chrono_literals;

TEST(WhenIdle, ForgetsOnceAfterTheLastUse) {
  boost::asio::io_context io;
  int forgotten = 0;
  WhenIdle idle(io.get_executor(), 20ms, [&] { ++forgotten; });
  idle.used();
  idle.used();
  io.run();  // returns: nothing waits any more
  EXPECT_EQ(forgotten, 1);
  io.restart();
  idle.used();
  io.run();
  EXPECT_EQ(forgotten, 2);
}

TEST(WhenIdle, StopDoesNotWaitAndDoesNotForget) {
  boost::asio::io_context io;
  int forgotten = 0;
  WhenIdle idle(io.get_executor(), 1h, [&] { ++forgotten; });
  TaskGroup group(io.get_executor());
  auto stop = [&]() -> Task<> { co_await idle.stop(); };
  idle.used();
  group.spawn("stop", stop());
  io.run();
  EXPECT_EQ(forgotten, 0);
}

}  // namespace
}  // namespace virga::api
