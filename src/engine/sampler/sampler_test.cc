#include "engine/sampler/sampler.h"

#include <gtest/gtest.h>

#include <boost/asio/io_context.hpp>
#include <optional>

#include "drivers/compute/fake/fake.h"

namespace virga::engine {
namespace {

using namespace std::chrono_literals;

struct SamplerTest : ::testing::Test {
  boost::asio::io_context io;
  TaskGroup group{io.get_executor()};
  ManualClock clock;
  compute::FakeDriver driver;
  compute::FakeDriver hanging{compute::Kind::virtual_machine};
  std::vector<Sampler::Guest> guests{{"a", &driver}};
  Sampler sampler{
      io.get_executor(), clock, [this] { return guests; }, {.interval = 20ms, .interest = 60ms, .patience = 500ms, .settle = 10ms}};
  SamplerTest() {
    for (const char* id : {"a", "b"}) driver.world().guests[id].status.state = compute::State::running;
    hanging.world().delay = 1h;
  }
  /// How often guests were asked.
  std::size_t asked() { return driver.world().calls.size() + hanging.world().calls.size(); }
  void run(Task<> task) {
    group.spawn("test", std::move(task));
    io.run();
    io.restart();
    EXPECT_EQ(group.failures(), 0);
  }
};

TEST_F(SamplerTest, SleepsUntilSomebodyAsksAndAgainAfterwards) {
  auto test = [&]() -> Task<> {
    co_await sleep_for(50ms);
    EXPECT_EQ(asked(), 0u) << "nobody wanted to know";
    co_await sampler.wait_fresh();
    auto first = sampler.find("a");
    EXPECT_TRUE(first && first->taken == clock.now());
    const auto before = asked();
    for (int i = 0; i < 200; ++i) (void)sampler.find("a");
    EXPECT_EQ(asked(), before) << "asking the sampler does not ask the guest";
    while (sampler.passes() < 3) {
      co_await sampler.wait_fresh();
      co_await sleep_for(5ms);
    }
    co_await sleep_for(150ms);
    const auto last = asked();
    co_await sleep_for(60ms);
    EXPECT_EQ(asked(), last) << "it went back to sleep";
    co_await sampler.stop();
  };
  run(test());
}

TEST_F(SamplerTest, AGuestThatHangsKeepsNobodyWaiting) {
  guests = {{"hangs", &hanging}, {"b", &driver}};
  auto test = [&]() -> Task<> {
    co_await sampler.wait_fresh();
    EXPECT_NE(sampler.find("b"), nullptr);
    EXPECT_EQ(sampler.find("hangs"), nullptr);
    auto passes = sampler.passes();
    while (sampler.passes() < passes + 1) {
      (void)sampler.find("b");
      co_await sleep_for(5ms);
    }
    EXPECT_EQ(hanging.world().calls.size(), 1u) << "it is not asked again while it owes an answer";
    guests.clear();
    passes = sampler.passes();
    while (sampler.passes() < passes + 2) {
      (void)sampler.find("b");
      co_await sleep_for(5ms);
    }
    EXPECT_EQ(sampler.find("b"), nullptr) << "what runs no more is forgotten";
    co_await sampler.stop();
  };
  run(test());
}

}  // namespace
}  // namespace virga::engine
