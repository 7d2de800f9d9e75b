#include "base/task.h"

#include <gtest/gtest.h>

#include <boost/asio/io_context.hpp>
#include <thread>

namespace virga {
namespace {

using namespace std::chrono_literals;

struct Loop {
  boost::asio::io_context io;
  TaskGroup group{io.get_executor()};
  void run() {
    io.run();
    io.restart();
  }
};

TEST(TaskGroup, CancelRunsRollbackInsteadOfThrowingPastIt) {
  Loop loop;
  bool undone = false, returned = false;
  auto body = [&]() -> Task<> {
    Undo undo;
    undo.push([&]() -> Task<> {
      EXPECT_TRUE(co_await sleep_for(1ms)) << "undo must not be cancelled";
      undone = true;
    });
    if (!co_await sleep_for(10s)) co_await undo.run();
    returned = true;
  };
  auto id = loop.group.spawn("body", body());
  auto canceller = [&]() -> Task<> {
    co_await sleep_for(5ms);
    loop.group.cancel(id);
  };
  loop.group.spawn("canceller", canceller());
  loop.run();
  EXPECT_TRUE(undone);
  EXPECT_TRUE(returned);
  EXPECT_EQ(loop.group.failures(), 0);
}

TEST(TaskGroup, ACancelThatCameDuringBlockingWorkEndsTheNextWait) {
  Loop loop;
  BlockingPool pool("test", 1);
  Notification never(loop.io.get_executor());
  bool slept = true, notified = true, shielded_sleep = false;
  auto body = [&]() -> Task<> {
    co_await pool.run([] { std::this_thread::sleep_for(20ms); });
    EXPECT_TRUE(co_await is_cancelled());
    slept = co_await sleep_for(10s);
    notified = co_await never.wait();
    co_await shield();
    shielded_sleep = co_await sleep_for(1ms);
  };
  auto id = loop.group.spawn("body", body());
  auto canceller = [&]() -> Task<> {
    co_await sleep_for(5ms);
    loop.group.cancel(id);
  };
  loop.group.spawn("canceller", canceller());
  const auto began = std::chrono::steady_clock::now();
  loop.io.run_for(5s);
  EXPECT_LT(std::chrono::steady_clock::now() - began, 2s);
  EXPECT_FALSE(slept);
  EXPECT_FALSE(notified);
  EXPECT_TRUE(shielded_sleep);
}

TEST(TaskGroup, CountsExceptionsAndGoesOn) {
  Loop loop;
  auto thrower = []() -> Task<> {
    throw std::runtime_error("bug");
    co_return;
  };
  loop.group.spawn("thrower", thrower());
  loop.run();
  EXPECT_EQ(loop.group.failures(), 1);
  EXPECT_EQ(loop.group.size(), 0u);
}

TEST(Notification, WakesAllWaitersAndTimesOut) {
  Loop loop;
  Notification n(loop.io.get_executor());
  int woken = 0;
  auto waiter = [&]() -> Task<> {
    if (co_await n.wait()) ++woken;
  };
  loop.group.spawn("a", waiter());
  loop.group.spawn("b", waiter());
  auto notifier = [&]() -> Task<> {
    co_await sleep_for(1ms);
    n.notify();
  };
  loop.group.spawn("n", notifier());
  loop.run();
  EXPECT_EQ(woken, 2);
  bool result = true;
  auto late = [&]() -> Task<> { result = co_await n.wait_for(1ms); };
  loop.group.spawn("late", late());
  loop.run();
  EXPECT_FALSE(result);
}

TEST(AsyncMutex, ServesInOrderAndSurvivesACancelledWaiter) {
  Loop loop;
  AsyncMutex mutex(loop.io.get_executor());
  std::string order;
  auto worker = [&](char name) -> Task<> {
    auto guard = co_await mutex.lock();
    if (!guard) {
      order += '!';
      co_return;
    }
    order += name;
    co_await sleep_for(2ms);
  };
  loop.group.spawn("a", worker('a'));
  auto b = loop.group.spawn("b", worker('b'));
  loop.group.spawn("c", worker('c'));
  auto canceller = [&]() -> Task<> {
    loop.group.cancel(b);
    co_return;
  };
  loop.group.spawn("x", canceller());
  loop.run();
  EXPECT_EQ(order, "a!c");
}

TEST(BlockingPool, RunsOnAnotherThreadAndReturnsTheValue) {
  Loop loop;
  BlockingPool pool("test", 2);
  std::thread::id where{};
  int value = 0;
  auto body = [&]() -> Task<> {
    value = co_await pool.run([&] {
      where = std::this_thread::get_id();
      return 42;
    });
    EXPECT_EQ(std::this_thread::get_id(), std::this_thread::get_id());
  };
  loop.group.spawn("body", body());
  loop.run();
  EXPECT_EQ(value, 42);
  EXPECT_NE(where, std::this_thread::get_id());
}

}  // namespace
}  // namespace virga
