#include "engine/events/events.h"

#include <gtest/gtest.h>

#include <boost/asio/io_context.hpp>
#include <thread>

#include "base/log.h"
#include "engine/url.h"

namespace virga::engine {
namespace {

using namespace std::chrono_literals;

struct EventsTest : ::testing::Test {
  boost::asio::io_context io;
  TaskGroup group{io.get_executor()};
  ManualClock clock;
  Events events{io.get_executor(), clock};
  void run() {
    io.run();
    io.restart();
  }
};

TEST_F(EventsTest, DeliversWhatTheFilterAsksForInOrder) {
  auto all = events.subscribe({});
  auto lab = events.subscribe({.types = static_cast<unsigned>(EventType::lifecycle), .project = "lab", .also = {}});
  events.publish(EventType::lifecycle, "lab", {{"n", 1}});
  events.publish(EventType::lifecycle, "default", {{"n", 2}});
  events.publish(EventType::operation, "lab", {{"n", 3}});
  events.publish(EventType::lifecycle, "", {{"n", 4}});
  events.stop();
  std::vector<std::int64_t> seen_all, seen_lab;
  auto read = [](Events::Subscription* s, std::vector<std::int64_t>* out) -> Task<> {
    while (auto e = co_await s->next()) out->push_back(e->metadata.at("n").as_int64());
  };
  group.spawn("all", read(all.get(), &seen_all));
  group.spawn("lab", read(lab.get(), &seen_lab));
  run();
  EXPECT_EQ(seen_all, (std::vector<std::int64_t>{1, 2, 3, 4}));
  EXPECT_EQ(seen_lab, (std::vector<std::int64_t>{1, 4})) << "events of the whole server reach every project";
}

TEST_F(EventsTest, ASlowReaderIsDisconnectedAndOthersGoOn) {
  auto slow = events.subscribe({}, 3);
  auto other = events.subscribe({}, 100);
  for (int i = 0; i < 50; ++i) events.publish(EventType::lifecycle, "", {});
  EXPECT_TRUE(slow->overflowed());
  EXPECT_FALSE(other->overflowed());
  bool ended = false;
  int others = 0;
  auto read_slow = [&]() -> Task<> { ended = co_await slow->next() == nullptr; };
  auto read_other = [&]() -> Task<> {
    while (others < 50 && co_await other->next()) ++others;
  };
  group.spawn("slow", read_slow());
  group.spawn("other", read_other());
  run();
  EXPECT_TRUE(ended);
  EXPECT_EQ(others, 50);
}

TEST_F(EventsTest, NobodyListensMeansNobodyIsWanted) {
  EXPECT_FALSE(events.wanted(EventType::operation));
  {
    auto s = events.subscribe({.types = static_cast<unsigned>(EventType::operation), .project = "", .also = {}});
    EXPECT_TRUE(events.wanted(EventType::operation));
    EXPECT_FALSE(events.wanted(EventType::lifecycle));
  }
  EXPECT_FALSE(events.wanted(EventType::operation));
}

TEST_F(EventsTest, ACallbackMayEndItself) {
  int calls = 0;
  std::unique_ptr<Events::Listener> listener;
  listener = events.listen({}, [&](const Event&) {
    ++calls;
    listener.reset();
  });
  events.publish(EventType::lifecycle, "", {});
  events.publish(EventType::lifecycle, "", {});
  EXPECT_EQ(calls, 1);
}

TEST_F(EventsTest, LifecycleNamesTheActionTheObjectAndWhoAsked) {
  json::object seen;
  auto listener = events.listen({}, [&](const Event& e) { seen = to_json(e); });
  const Caller caller{.username = "root", .protocol = "unix", .address = "@", .admin = true, .fingerprint = ""};
  events.lifecycle("instance-created", "lab", instance_url("lab", "db1"), caller, {{"type", "container"}});
  const auto& m = seen.at("metadata").as_object();
  EXPECT_EQ(seen.at("type").as_string(), "lifecycle");
  EXPECT_EQ(seen.at("project").as_string(), "lab");
  EXPECT_EQ(seen.at("timestamp").as_string(), format_time(clock.now()));
  EXPECT_EQ(m.at("action").as_string(), "instance-created");
  EXPECT_EQ(m.at("source").as_string(), "/1.0/instances/db1?project=lab");
  EXPECT_EQ(m.at("name").as_string(), "db1");
  EXPECT_EQ(m.at("requestor").at("username").as_string(), "root");
  EXPECT_EQ(m.at("context").at("type").as_string(), "container");
}

TEST_F(EventsTest, LogLinesOfOtherThreadsArriveOnTheLoop) {
  events.attach_log();
  std::string message;
  auto here = std::this_thread::get_id();
  std::thread::id there;
  auto listener =
      events.listen({.types = static_cast<unsigned>(EventType::logging), .project = "", .also = {}}, [&](const Event& e) {
        message = std::string(e.metadata.at("message").as_string());
        there = std::this_thread::get_id();
      });
  std::thread([] { log::warn("from {}", "afar"); }).join();
  run();
  EXPECT_EQ(message, "from afar");
  EXPECT_EQ(there, here);
  events.stop();
  log::warn("after the end");
  message.clear();
  run();
  EXPECT_EQ(message, "");
}

TEST(Url, EncodesAndDescribes) {
  EXPECT_EQ(instance_url("default", "db1"), "/1.0/instances/db1");
  EXPECT_EQ(instance_url("a b", "x/../y"), "/1.0/instances/x%2F..%2Fy?project=a%20b");
  EXPECT_EQ(describe_url("/1.0/instances/db1?project=web"), "instance 'db1'");
  EXPECT_EQ(describe_url(pool_url("fast")), "storage pool 'fast'");
  EXPECT_EQ(describe_url("nonsense"), "'nonsense'");
}

}  // namespace
}  // namespace virga::engine
