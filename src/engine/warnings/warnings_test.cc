#include "engine/service_test.h"
#include "engine/warnings/service.h"

namespace virga::engine {
namespace {

using namespace std::chrono_literals;

struct WarningsTest : ServiceTest {
  const WarningSubject db1{"lab", "/1.0/instances/db1?project=lab"};
  std::unique_ptr<Warnings> warnings = std::make_unique<Warnings>(io.get_executor(), store, events, clock);
  Task<> start() {
    auto started = co_await warnings->start();
    EXPECT_TRUE(started);
  }
  /// A daemon that comes back.
  void restart() {
    run([&]() -> Task<> { co_await warnings->stop(); });
    warnings = std::make_unique<Warnings>(io.get_executor(), store, events, clock);
    run([&]() -> Task<> { co_await start(); });
  }
};

TEST_F(WarningsTest, TheSameTroubleIsOneWarningThatCounts) {
  run([&]() -> Task<> {
    co_await start();
    warnings->raise(WarningType::instance_autostart_failure, db1, "no \xff disk");
    warnings->raise(WarningType::instance_autostart_failure, db1, "no disk");
    warnings->raise(WarningType::instance_autostart_failure, {"lab", "/1.0/instances/db2?project=lab"}, "no disk");
  });
  ASSERT_EQ(warnings->list().size(), 2u);
  EXPECT_EQ(warnings->unseen(), 2u);
  restart();
  ASSERT_EQ(warnings->list().size(), 2u) << "they survive";
  clock.advance(1h);
  run([&]() -> Task<> {
    warnings->raise(WarningType::instance_autostart_failure, db1, "still no disk");
    co_return;
  });
  for (const auto& w : warnings->list()) {
    if (w->entity_url != db1.entity_url) continue;
    EXPECT_EQ(w->count, 3);
    EXPECT_EQ(w->message, "still no disk");
    EXPECT_EQ(w->last_seen_at - w->first_seen_at, 1h);
  }
}

TEST_F(WarningsTest, PeopleAcknowledgeAndTheDaemonResolves) {
  run([&]() -> Task<> {
    co_await start();
    warnings->resolve(WarningType::storage_pool_unavailable, {});
    warnings->raise(WarningType::storage_pool_unavailable, {}, "gone");
  });
  ASSERT_EQ(warnings->list().size(), 1u) << "what was never raised is not resolved";
  const auto uuid = warnings->list()[0]->uuid;
  run([&]() -> Task<> {
    auto done = co_await warnings->set_status(uuid, WarningStatus::acknowledged, root);
    EXPECT_TRUE(done);
    auto none = co_await warnings->set_status("nope", WarningStatus::acknowledged, root);
    EXPECT_EQ(kind_of(none), ErrorKind::not_found);
    warnings->raise(WarningType::storage_pool_unavailable, {}, "gone");
  });
  EXPECT_EQ(warnings->list()[0]->status, WarningStatus::acknowledged) << "who knows is not told again";
  EXPECT_EQ(warnings->unseen(), 0u);
  auto report = [&](std::string message) {
    run([&]() -> Task<> {
      warnings->report(WarningType::storage_pool_unavailable, {}, message);
      co_return;
    });
  };
  report("");
  EXPECT_EQ(warnings->list()[0]->status, WarningStatus::resolved);
  report("gone again");
  EXPECT_EQ(warnings->list()[0]->status, WarningStatus::fresh);
  report("");
  clock.advance(25h);
  restart();
  EXPECT_TRUE(warnings->list().empty()) << "resolved long ago";
  EXPECT_EQ(actions, std::vector<std::string>{"warning-acknowledged /1.0/warnings/" + uuid});
}

TEST_F(WarningsTest, EndWithWhatTheyAreAbout) {
  run([&]() -> Task<> {
    co_await start();
    warnings->raise(WarningType::instance_autostart_failure, db1, "no disk");
  });
  run([&]() -> Task<> {
    events.lifecycle("instance-deleted", "lab", "/1.0/instances/db2?project=lab", root);
    co_return;
  });
  EXPECT_EQ(warnings->list().size(), 1u);
  run([&]() -> Task<> {
    events.lifecycle("instance-deleted", "lab", db1.entity_url, root);
    co_return;
  });
  EXPECT_TRUE(warnings->list().empty());
}

TEST_F(WarningsTest, AFloodIsBounded) {
  run([&]() -> Task<> {
    co_await start();
    for (int i = 0; i < 5'000; ++i)
      warnings->raise(WarningType::instance_autostart_failure, {"lab", "/1.0/instances/i" + std::to_string(i)}, "x");
  });
  EXPECT_LE(warnings->list().size(), 1'000u);
  EXPECT_GE(warnings->list().size(), 100u);
}

}  // namespace
}  // namespace virga::engine
