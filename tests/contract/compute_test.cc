// What every compute driver promises. Each test gets a fresh bench; "restart" means a second driver that adopts.
#include <gtest/gtest.h>

#include <boost/asio/io_context.hpp>

#include "contract/compute_bench.h"
#include "drivers/compute/fake/fake.h"
#if __has_include("contract/compute_oci.h")
#include "contract/compute_oci.h"
#define HAS_OCI 1
#endif
#if __has_include("contract/compute_qemu.h")
#include "contract/compute_qemu.h"
#define HAS_QEMU 1
#endif

namespace virga::compute {
namespace {

using namespace std::chrono_literals;

class FakeBench final : public Bench {
 public:
  std::unique_ptr<Driver> driver() override { return std::make_unique<FakeDriver>(Kind::container, world_); }
  GuestSpec spec(const std::string& id) override {
    GuestSpec s;
    s.id = id;
    s.project = "default";
    s.name = "guest";
    return s;
  }
  void end_guest(Driver& driver, const std::string& id) override { dynamic_cast<FakeDriver&>(driver).end_guest(id, 137); }
  std::vector<std::string> exit_with(int code) override { return {"exit", std::to_string(code)}; }

 private:
  std::shared_ptr<FakeWorld> world_ = std::make_shared<FakeWorld>();
};

struct Case {
  const char* name;
  std::unique_ptr<Bench> (*make)();
};
template <class B>
std::unique_ptr<Bench> make_bench() {
  return std::make_unique<B>();
}

constexpr const char* one = "11111111-1111-4111-8111-111111111111";
constexpr const char* two = "22222222-2222-4222-8222-222222222222";

class ComputeContract : public ::testing::TestWithParam<Case> {
 protected:
  void SetUp() override {
    bench = GetParam().make();
    if (auto why = bench->skip(); !why.empty()) GTEST_SKIP() << why;
  }
  template <class F>
  void run(F body) {
    boost::asio::io_context io;
    TaskGroup group(io.get_executor());
    bool finished = false;
    auto test = [&]() -> Task<> {
      bench->executor = io.get_executor();
      driver = bench->driver();
      driver->on_event([this](GuestEvent e) { events.push_back(e); });
      co_await body();
      for (const char* id : {one, two}) {
        EXPECT_TRUE(co_await driver->remove(id));
        EXPECT_EQ(bench->leftovers(id), "");
      }
      co_await driver->shut_down();
      driver.reset();
      finished = true;
    };
    group.spawn("test", test());
    io.run();
    EXPECT_TRUE(finished);
    EXPECT_EQ(group.failures(), 0);
  }
  Task<> restart() {
    co_await driver->shut_down();
    driver = bench->driver();
    driver->on_event([this](GuestEvent e) { events.push_back(e); });
  }
  Task<> launch(std::string id) {
    auto created = co_await driver->create(bench->spec(id));
    EXPECT_TRUE(created) << created.error().text();
    auto started = co_await driver->start(id);
    EXPECT_TRUE(started) << started.error().text();
  }
  State state(const std::string& id) { return driver->status(id).state; }
  template <class T>
  static std::optional<ErrorKind> kind(const Result<T>& r) {
    if (r) return std::nullopt;
    return r.error().kind();
  }
  /// Waits until `condition`, or the bench loses its patience.
  template <class C>
  Task<bool> eventually(C condition) {
    const auto end = std::chrono::steady_clock::now() + bench->patience();
    while (!condition() && std::chrono::steady_clock::now() < end) co_await sleep_for(5ms);
    co_return condition();
  }
  std::unique_ptr<Bench> bench;
  std::unique_ptr<Driver> driver;
  std::vector<GuestEvent> events;
};

TEST_P(ComputeContract, PlanningIsPure) {
  run([&]() -> Task<> {
    EXPECT_FALSE(driver->info().name.empty());
    auto a = driver->plan(bench->spec(one));
    auto b = driver->plan(bench->spec(one));
    EXPECT_TRUE(a && b);
    if (a && b) {
      EXPECT_EQ(a->argv, b->argv);
      EXPECT_EQ(a->config, b->config);
      EXPECT_FALSE(a->argv.empty());
    }
    EXPECT_EQ(state(one), State::absent);
    co_return;
  });
}

TEST_P(ComputeContract, AGuestsLife) {
  run([&]() -> Task<> {
    auto created = co_await driver->create(bench->spec(one));
    EXPECT_TRUE(created) << created.error().text();
    EXPECT_EQ(state(one), State::created);
    EXPECT_GT(driver->status(one).pid, 0);
    EXPECT_TRUE(co_await driver->start(one));
    EXPECT_EQ(state(one), State::running);
    EXPECT_TRUE(co_await driver->start(one)) << "running is success";
    auto stats = co_await driver->stats(one);
    EXPECT_TRUE(stats) << stats.error().text();
    auto stopped = co_await driver->stop(one, bench->patience());
    EXPECT_TRUE(stopped) << stopped.error().text();
    EXPECT_EQ(state(one), State::stopped);
    EXPECT_TRUE(co_await driver->stop(one, 1s)) << "stopped is success";
    EXPECT_TRUE(co_await driver->remove(one));
    EXPECT_EQ(state(one), State::absent);
    EXPECT_TRUE(co_await driver->remove(one)) << "absent is success";
    co_await launch(one);
    EXPECT_EQ(state(one), State::running) << "a second life";
    EXPECT_TRUE(events.empty()) << "nobody ended without being told to";
  });
}

TEST_P(ComputeContract, WhatIsThereCannotBeCreatedAgain) {
  run([&]() -> Task<> {
    co_await launch(one);
    const pid_t pid = driver->status(one).pid;
    EXPECT_EQ(kind(co_await driver->create(bench->spec(one))), ErrorKind::busy);
    EXPECT_EQ(state(one), State::running);
    EXPECT_EQ(driver->status(one).pid, pid);
  });
}

TEST_P(ComputeContract, AbsentGuests) {
  run([&]() -> Task<> {
    EXPECT_EQ(state(one), State::absent);
    EXPECT_EQ(kind(co_await driver->start(one)), ErrorKind::not_found);
    EXPECT_EQ(kind(co_await driver->pause(one)), ErrorKind::not_found);
    EXPECT_EQ(kind(co_await driver->resume(one)), ErrorKind::not_found);
    EXPECT_EQ(kind(co_await driver->stats(one)), ErrorKind::not_found);
    EXPECT_TRUE(co_await driver->stop(one, 1s));
    EXPECT_TRUE(co_await driver->remove(one));
    auto adopted = co_await driver->adopt(one, bench->spec(one).run_dir);
    EXPECT_TRUE(adopted && adopted->state == State::absent);
  });
}

TEST_P(ComputeContract, PauseAndResume) {
  run([&]() -> Task<> {
    co_await launch(one);
    EXPECT_TRUE(co_await driver->pause(one));
    EXPECT_EQ(state(one), State::paused);
    EXPECT_TRUE(co_await driver->pause(one));
    EXPECT_TRUE(co_await driver->resume(one));
    EXPECT_EQ(state(one), State::running);
    EXPECT_TRUE(co_await driver->resume(one));
  });
}

TEST_P(ComputeContract, RemoveEndsAnythingAtOnce) {
  run([&]() -> Task<> {
    auto created = co_await driver->create(bench->spec(one));
    EXPECT_TRUE(created);
    EXPECT_TRUE(co_await driver->remove(one)) << "created";
    EXPECT_EQ(bench->leftovers(one), "");
    co_await launch(one);
    EXPECT_TRUE(co_await driver->remove(one)) << "running";
    EXPECT_EQ(bench->leftovers(one), "");
    co_await launch(one);
    EXPECT_TRUE(co_await driver->pause(one));
    EXPECT_TRUE(co_await driver->remove(one)) << "paused";
    EXPECT_EQ(state(one), State::absent);
    EXPECT_TRUE(events.empty());
  });
}

TEST_P(ComputeContract, AGuestThatEndsByItselfIsToldOnce) {
  run([&]() -> Task<> {
    co_await launch(one);
    co_await launch(two);
    bench->end_guest(*driver, one);
    const bool told = co_await eventually([&] { return !events.empty(); });
    EXPECT_TRUE(told);
    EXPECT_EQ(events.size(), 1u);
    if (told) EXPECT_EQ(events.front().id, one);
    EXPECT_EQ(state(one), State::stopped);
    EXPECT_EQ(state(two), State::running);
    EXPECT_TRUE(co_await driver->remove(one));
    EXPECT_EQ(events.size(), 1u);
  });
}

TEST_P(ComputeContract, ARestartedDaemonAdoptsWhatRuns) {
  run([&]() -> Task<> {
    co_await launch(one);
    const GuestStatus before = driver->status(one);
    co_await restart();
    auto adopted = co_await driver->adopt(one, bench->spec(one).run_dir);
    EXPECT_TRUE(adopted);
    EXPECT_EQ(state(one), State::running);
    EXPECT_EQ(driver->status(one).pid, before.pid);
    EXPECT_EQ(driver->status(one).start_time, before.start_time);
    EXPECT_TRUE(co_await driver->pause(one));
    co_await restart();
    EXPECT_TRUE(co_await driver->adopt(one, bench->spec(one).run_dir));
    EXPECT_EQ(state(one), State::paused);
    EXPECT_TRUE(co_await driver->resume(one));
    auto stopped = co_await driver->stop(one, bench->patience());
    EXPECT_TRUE(stopped) << stopped.error().text();
  });
}

TEST_P(ComputeContract, ExecStreamsCodesAndSignals) {
  run([&]() -> Task<> {
    if (driver->exec() == nullptr) co_return;
    ExecSpec spec;
    spec.command = bench->echo("hello");
    EXPECT_TRUE(kind(co_await driver->exec()->exec(one, spec)).has_value()) << "no guest";
    co_await launch(one);

    // A VM's agent may still be on its way.
    std::unique_ptr<ExecSession> session;
    const auto end = std::chrono::steady_clock::now() + bench->patience();
    while (!session && std::chrono::steady_clock::now() < end) {
      auto made = co_await driver->exec()->exec(one, spec);
      if (made) {
        session = std::move(*made);
      } else {
        EXPECT_EQ(made.error().kind(), ErrorKind::unavailable) << made.error().text();
        co_await sleep_for(50ms);
      }
    }
    EXPECT_TRUE(session) << "exec never worked";
    if (!session) co_return;
    std::string out;
    while (true) {
      auto part = co_await session->read(ExecSession::Stream::output);
      EXPECT_TRUE(part);
      if (!part || part->empty()) break;
      out += *part;
    }
    EXPECT_EQ(out, "hello\n");
    auto code = co_await session->wait();
    EXPECT_EQ(code.value_or(-1), 0);

    spec.command = bench->exit_with(7);
    auto failing = co_await driver->exec()->exec(one, spec);
    EXPECT_TRUE(failing);
    if (failing) {
      code = co_await (*failing)->wait();
      EXPECT_EQ(code.value_or(-1), 7);
    }

    spec.command = bench->cat();
    auto echoing = co_await driver->exec()->exec(one, spec);
    EXPECT_TRUE(echoing);
    if (echoing) {
      EXPECT_TRUE(co_await (*echoing)->write("round and round"));
      std::string back;
      while (back.size() < 15) {
        auto part = co_await (*echoing)->read(ExecSession::Stream::output);
        if (!part || part->empty()) break;
        back += *part;
      }
      EXPECT_EQ(back, "round and round");
      EXPECT_TRUE(co_await (*echoing)->close_input());
      code = co_await (*echoing)->wait();
      EXPECT_EQ(code.value_or(-1), 0);
    }

    spec.command = bench->wait_forever();
    auto waiting = co_await driver->exec()->exec(one, spec);
    EXPECT_TRUE(waiting);
    if (waiting) {
      EXPECT_TRUE(co_await (*waiting)->signal(SIGTERM));
      code = co_await (*waiting)->wait();
      EXPECT_EQ(code.value_or(-1), 128 + SIGTERM);
    }
    auto abandoned = co_await driver->exec()->exec(one, spec);
    EXPECT_TRUE(abandoned) << "and destroyed while it runs";
  });
}

std::vector<Case> cases() {
  std::vector<Case> all{{"fake", make_bench<FakeBench>}};
#ifdef HAS_OCI
  all.push_back({"oci", make_bench<OciBench>});
#endif
#ifdef HAS_QEMU
  all.push_back({"qemu", make_bench<QemuBench>});
#endif
  return all;
}

INSTANTIATE_TEST_SUITE_P(Drivers, ComputeContract, ::testing::ValuesIn(cases()),
                         [](const auto& info) { return std::string(info.param.name); });

}  // namespace
}  // namespace virga::compute
