#include "engine/journal/journal.h"

#include <gtest/gtest.h>

#include <boost/asio/io_context.hpp>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <set>

#include "store/memory/store.h"

namespace virga::engine {
namespace {

using namespace std::chrono_literals;

// Fault points read their environment once: set before the first.
struct FaultEnvironment : ::testing::Environment {
  void SetUp() override {
    std::string pattern = std::filesystem::temp_directory_path() / "virga-faults.XXXXXX";
    directory = ::mkdtemp(pattern.data());
    log = directory + "/log";
    ::setenv("VIRGA_FAULT_LOG", log.c_str(), 1);
    ::setenv("VIRGA_FAULT_FAIL", "failing.2.second.after", 1);
  }
  void TearDown() override { std::filesystem::remove_all(directory); }
  std::vector<std::string> take() {
    std::vector<std::string> names;
    {
      std::ifstream in(log);
      for (std::string line; std::getline(in, line);) names.push_back(line);
    }
    std::filesystem::remove(log);
    return names;
  }
  std::string directory, log;
};
FaultEnvironment* const faults = [] {
  auto* e = new FaultEnvironment;
  ::testing::AddGlobalTestEnvironment(e);
  return e;
}();

/// What lives outside of the store: the effects of steps.
struct World {
  std::set<std::string> things;
  std::vector<std::string> history;
  std::string die_before;     ///< reaching this point is the end of the process
  std::string fail_at;        ///< this call returns an error after half of its work
  std::function<void()> die;  ///< stops the loop

  Task<Result<>> act(std::string what, bool add, std::string thing) {
    if (what == die_before) co_await death();
    history.push_back(what);
    add ? (void)things.insert(thing) : (void)things.erase(thing);
    if (what == fail_at) co_return fail(ErrorKind::unavailable, what + " failed");
    if (what + ".done" == die_before) co_await death();
    co_return Result<>();
  }
  Task<> death() {
    die();
    co_await sleep_for(1h);
  }
};

Procedure three_steps(World& world, std::string kind, std::string id, OnRecovery on_recovery) {
  Procedure p;
  p.kind = std::move(kind);
  p.id = std::move(id);
  p.arguments = {{"name", "db1"}};
  p.on_recovery = on_recovery;
  p.intent.expect("/names/db1", 0).put("/names/db1", "reserved");
  for (std::string name : {"first", "second", "third"}) {
    p.steps.push_back({.name = name,
                       .run = [&world, name] { return world.act("run " + name, true, name); },
                       .undo = [&world, name] { return world.act("undo " + name, false, name); }});
  }
  p.outcome = [] { return Transaction().put("/names/db1", "made"); };
  p.undone = [] { return Transaction().erase("/names/db1"); };
  return p;
}

struct JournalTest : ::testing::Test {
  MemoryStore store;
  World world;

  /// Runs until nothing is left to do; a death stops the loop, and all tasks are thrown away with it, as by a kill.
  void in_a_process(std::function<Task<>(Journal&)> body) {
    boost::asio::io_context io;
    TaskGroup group(io.get_executor());
    Journal journal(store);
    auto builder = [this](OnRecovery how, std::string kind) {
      return [this, how, kind](std::string id, json::object arguments) -> Task<Result<Procedure>> {
        EXPECT_EQ(arguments.at("name").as_string(), "db1");
        co_return three_steps(world, kind, id, how);
      };
    };
    journal.register_kind("make", builder(OnRecovery::undo, "make"));
    journal.register_kind("drop", builder(OnRecovery::finish, "drop"));
    journal.register_kind("failing", builder(OnRecovery::undo, "failing"));
    group.spawn("process", body(journal));
    world.die = [&io] { io.stop(); };
    io.run();
    EXPECT_EQ(group.failures(), 0);
  }
  std::vector<std::string> keys() {
    std::vector<std::string> out;
    boost::asio::io_context io;
    TaskGroup group(io.get_executor());
    auto read = [&]() -> Task<> {
      auto all = co_await store.list("/");
      for (auto& d : *all) out.push_back(d.key + "=" + (d.key.starts_with("/journal/") ? "row" : d.value));
    };
    group.spawn("read", read());
    io.run();
    return out;
  }
  using Strings = std::vector<std::string>;
};

TEST_F(JournalTest, RunsStepsAndCommitsTheOutcomeWithTheRow) {
  faults->take();
  in_a_process([&](Journal& j) -> Task<> {
    auto r = co_await j.execute(three_steps(world, "make", "op1", OnRecovery::undo));
    EXPECT_TRUE(r);
  });
  EXPECT_EQ(keys(), (Strings{"/names/db1=made"}));
  EXPECT_EQ(world.history, (Strings{"run first", "run second", "run third"}));
#ifdef VIRGA_FAULTS
  EXPECT_EQ(faults->take(),
            (Strings{"make.intent", "make.1.first.before", "make.1.first.after", "make.2.second.before", "make.2.second.after",
                     "make.3.third.before", "make.3.third.after", "make.outcome.before", "make.outcome.after"}));
#endif
}

TEST_F(JournalTest, AConflictingIntentRunsNothing) {
  in_a_process([&](Journal& j) -> Task<> {
    EXPECT_TRUE(co_await j.execute(three_steps(world, "make", "op1", OnRecovery::undo)));
    world.history.clear();
    auto r = co_await j.execute(three_steps(world, "make", "op2", OnRecovery::undo));
    EXPECT_EQ(r.error().kind(), ErrorKind::conflict);
    auto bad = co_await j.execute(three_steps(world, "make", "a/b", OnRecovery::undo));
    EXPECT_FALSE(bad);
  });
  EXPECT_TRUE(world.history.empty());
  EXPECT_EQ(keys(), (Strings{"/names/db1=made"}));
}

TEST_F(JournalTest, AFailingStepIsUndoneTooAndThenThoseBefore) {
  faults->take();
  world.fail_at = "run second";
  in_a_process([&](Journal& j) -> Task<> {
    auto r = co_await j.execute(three_steps(world, "make", "op1", OnRecovery::undo));
    EXPECT_FALSE(r);
    EXPECT_EQ(r.error().message(), "run second failed");
  });
  EXPECT_EQ(world.history, (Strings{"run first", "run second", "undo second", "undo first"}));
  EXPECT_TRUE(world.things.empty());
  EXPECT_TRUE(keys().empty());
#ifdef VIRGA_FAULTS
  EXPECT_EQ(faults->take(),
            (Strings{"make.intent", "make.1.first.before", "make.1.first.after", "make.2.second.before", "undo.make.intent",
                     "undo.make.2.second.before", "undo.make.2.second.after", "undo.make.1.first.before", "undo.make.1.first.after",
                     "undo.make.outcome.before", "undo.make.outcome.after"}));
#endif
}

TEST_F(JournalTest, AnExceptionIsAFailureAndIsUndone) {
  in_a_process([&](Journal& j) -> Task<> {
    auto p = three_steps(world, "make", "op1", OnRecovery::undo);
    p.steps[2].run = []() -> Task<Result<>> {
      throw std::runtime_error("bug");
      co_return Result<>();
    };
    auto r = co_await j.execute(std::move(p));
    EXPECT_EQ(r.error().kind(), ErrorKind::internal);
  });
  EXPECT_TRUE(world.things.empty());
  EXPECT_TRUE(keys().empty());
}

TEST_F(JournalTest, AnInjectedFaultIsUndone) {
#ifndef VIRGA_FAULTS
  GTEST_SKIP() << "built without fault points";
#endif
  in_a_process([&](Journal& j) -> Task<> {
    auto r = co_await j.execute(three_steps(world, "failing", "op1", OnRecovery::undo));
    EXPECT_FALSE(r);
  });
  EXPECT_EQ(world.history, (Strings{"run first", "run second", "undo second", "undo first"}));
  EXPECT_TRUE(keys().empty());
}

TEST_F(JournalTest, AnOutcomeThatCannotBeMadeOrCommittedIsUndone) {
  in_a_process([&](Journal& j) -> Task<> {
    auto p = three_steps(world, "make", "op1", OnRecovery::undo);
    p.outcome = []() -> Result<Transaction> { return fail(ErrorKind::invalid, "policy says no"); };
    auto r = co_await j.execute(std::move(p));
    EXPECT_EQ(r.error().kind(), ErrorKind::invalid);
    EXPECT_TRUE(world.things.empty());
    p = three_steps(world, "make", "op2", OnRecovery::undo);
    p.outcome = [] { return Transaction().expect("/names/db1", 12345).put("/names/db1", "made"); };
    r = co_await j.execute(std::move(p));
    EXPECT_EQ(r.error().kind(), ErrorKind::conflict);
  });
  EXPECT_TRUE(world.things.empty());
  EXPECT_TRUE(keys().empty());
}

TEST_F(JournalTest, CancellationUndoesEvenWhatWaits) {
  boost::asio::io_context io;
  TaskGroup group(io.get_executor());
  Journal journal(store);
  std::optional<ErrorKind> kind;
  auto run = [&]() -> Task<> {
    auto p = three_steps(world, "make", "op1", OnRecovery::undo);
    p.steps[1].run = [&]() -> Task<Result<>> {
      world.things.insert("second");
      co_await sleep_for(1h);  // returns early; a step that overlooks the cancel is caught before the next
      co_return Result<>();
    };
    auto undo = p.steps[1].undo;
    p.steps[1].undo = [&, undo]() -> Task<Result<>> {
      EXPECT_TRUE(co_await sleep_for(1ms)) << "undoing cannot be cancelled";
      co_return co_await undo();
    };
    auto r = co_await journal.execute(std::move(p));
    if (!r) kind = r.error().kind();
  };
  const auto id = group.spawn("op", run());
  auto canceller = [&]() -> Task<> {
    while (!world.things.contains("second")) co_await sleep_for(1ms);
    group.cancel(id);
  };
  group.spawn("cancel", canceller());
  io.run();
  EXPECT_EQ(kind, ErrorKind::cancelled);
  EXPECT_TRUE(world.things.empty());
  EXPECT_TRUE(keys().empty());
}

TEST_F(JournalTest, AnUndoThatFailsKeepsTheRowAndTheReservationForTheNextStart) {
  world.fail_at = "undo first";
  in_a_process([&](Journal& j) -> Task<> {
    auto p = three_steps(world, "drop", "op1", OnRecovery::finish);
    p.steps[2].run = []() -> Task<Result<>> { co_return fail(ErrorKind::timeout, "too slow"); };
    auto r = co_await j.execute(std::move(p));
    EXPECT_EQ(r.error().kind(), ErrorKind::timeout) << "the first error is the one to tell";
  });
  EXPECT_EQ(keys(), (Strings{"/journal/op1=row", "/names/db1=reserved"}));
  world.fail_at.clear();
  in_a_process([&](Journal& j) -> Task<> {
    auto problems = co_await j.recover();
    EXPECT_TRUE(problems.empty());
  });
  EXPECT_TRUE(keys().empty()) << "what has failed is undone, also where a crash would have been finished";
  EXPECT_TRUE(world.things.empty());
}

TEST_F(JournalTest, AFullDiskDuringTheOutcomeIsUndone) {
  in_a_process([&](Journal& j) -> Task<> {
    auto p = three_steps(world, "make", "op1", OnRecovery::undo);
    p.outcome = [&] {
      store.fail_commits(2);  // the outcome, and the note that it is being undone
      return Transaction().put("/names/db1", "made");
    };
    auto r = co_await j.execute(std::move(p));
    EXPECT_EQ(r.error().kind(), ErrorKind::unavailable);
  });
  EXPECT_TRUE(keys().empty());
  EXPECT_TRUE(world.things.empty());
}

// A kill at every point, forward and backward, and again at every point of the recovery: afterwards there is all or nothing.
TEST_F(JournalTest, ADeathAnywhereIsFinishedOrUndoneAtTheNextStart) {
  const Strings forward{"run first", "run first.done", "run second", "run second.done", "run third", "run third.done"};
  const Strings backward{"undo third", "undo third.done", "undo second", "undo second.done", "undo first", "undo first.done"};
  for (const bool finish : {false, true}) {
    for (const bool fails : {false, true}) {
      Strings deaths = forward;
      if (fails) deaths.insert(deaths.end(), backward.begin(), backward.end());
      for (const auto& death : deaths) {
        Strings again{""};
        again.insert(again.end(), forward.begin(), forward.end());
        again.insert(again.end(), backward.begin(), backward.end());
        for (const auto& second_death : again) {
          SCOPED_TRACE((finish ? "finish, " : "undo, ") + death + ", then " + second_death);
          const std::string kind = finish ? "drop" : "make";
          world.die_before = death;
          world.fail_at = fails ? "run third" : "";
          in_a_process([&](Journal& j) -> Task<> {
            (void)co_await j.execute(three_steps(world, kind, "op1", finish ? OnRecovery::finish : OnRecovery::undo));
          });
          if (keys() == Strings{"/names/db1=reserved"}) ADD_FAILURE() << "a reservation without a row";
          const bool died = !keys().empty() && keys().front() == "/journal/op1=row";
          EXPECT_TRUE(died || (fails && death == "run third.done"));
          world.fail_at.clear();
          world.die_before = second_death;
          in_a_process([&](Journal& j) -> Task<> { (void)co_await j.recover(); });
          world.die_before.clear();
          in_a_process([&](Journal& j) -> Task<> {
            auto problems = co_await j.recover();
            EXPECT_TRUE(problems.empty());
          });
          const Strings after = keys();
          if (after.empty()) {
            EXPECT_TRUE(world.things.empty());
            EXPECT_TRUE(!finish || fails);
          } else {
            EXPECT_EQ(after, (Strings{"/names/db1=made"}));
            EXPECT_EQ(world.things.size(), 3u);
            EXPECT_TRUE(finish);
          }
          in_a_process([&](Journal&) -> Task<> { (void)co_await store.commit(Transaction().erase("/names/db1")); });
          world.things.clear();
        }
      }
    }
  }
}

TEST_F(JournalTest, RowsAreRecoveredOldestFirstAndTheUnknownAreKept) {
  Strings order;
  in_a_process([&](Journal& j) -> Task<> {
    // Names sort against their age.
    for (std::string id : {"z", "m", "a"}) {
      auto p = three_steps(world, id == "m" ? "mystery" : "make", id, OnRecovery::undo);
      p.intent = {};
      p.steps.resize(1);
      p.steps[0].run = []() -> Task<Result<>> { co_return fail(ErrorKind::internal, "x"); };
      p.steps[0].undo = []() -> Task<Result<>> { co_return fail(ErrorKind::internal, "stuck"); };
      (void)co_await j.execute(std::move(p));
    }
    (void)co_await store.commit(Transaction().put("/journal/garbage", "[1,"));
  });
  in_a_process([&](Journal& j) -> Task<> {
    j.register_kind("make", [&](std::string id, json::object) -> Task<Result<Procedure>> {
      order.push_back(id);
      Procedure p;
      co_return p;
    });
    auto problems = co_await j.recover();
    EXPECT_EQ(problems.size(), 2u);
  });
  EXPECT_EQ(order, (Strings{"z", "a"}));
  EXPECT_EQ(keys(), (Strings{"/journal/garbage=row", "/journal/m=row"}));
}

}  // namespace
}  // namespace virga::engine
