#include <gtest/gtest.h>

#include <boost/asio/io_context.hpp>

#include "engine/operations/log.h"
#include "engine/operations/operations.h"
#include "store/memory/store.h"

namespace virga::engine {
namespace {

using namespace std::chrono_literals;

/// One daemon after the other on the same store.
struct LogTest : ::testing::Test {
  boost::asio::io_context io;
  TaskGroup group{io.get_executor()};
  MemoryStore store;
  ManualClock clock;
  struct Life {
    Life(Executor executor, Store& store, const Clock& clock, std::size_t finished)
        : events(executor, clock),
          log(executor, store),
          operations(executor, events, clock, {.finished = finished, .retention = 1h}) {
      operations.set_log(log);
    }
    Events events;
    OperationLog log;
    Operations operations;
  };
  std::unique_ptr<Life> life;

  void run(Task<> task) {
    group.spawn("test", std::move(task));
    io.run();
    io.restart();
    EXPECT_EQ(group.failures(), 0);
  }
  Task<> begin(std::size_t finished = 100) {
    life = std::make_unique<Life>(io.get_executor(), store, clock, finished);
    auto restored = co_await life->operations.restore();
    EXPECT_TRUE(restored);
  }
  Task<> end() {
    co_await life->operations.stop();
    co_await life->log.stop();
  }
  Task<std::string> one(Result<> result, OperationClass op_class = OperationClass::task) {
    OperationSpec spec;
    spec.project = "lab";
    spec.description = "Testing";
    spec.op_class = op_class;
    spec.resources = {{"instances", {"/1.0/instances/db1"}}};
    spec.metadata = {{"command", json::array{"ls"}}, {"environment", json::object{{"PASSWORD", "hush"}}}};
    spec.secret_metadata = {{"token", "whisper"}};
    spec.channels = {"0"};
    spec.caller = {.username = "kim", .protocol = "tls", .address = "[::1]:1", .admin = false, .fingerprint = "aa"};
    Operations::Body body = [result](Operation&) -> Task<Result<>> { co_return result; };
    clock.advance(1s);  // the order after a restart is that of the times they began at
    auto op = life->operations.start(std::move(spec), std::move(body));
    auto done = co_await life->operations.wait((*op)->id(), std::nullopt);
    EXPECT_TRUE(done);
    co_return (*op)->id();
  }
};

TEST_F(LogTest, WhatEndedIsListedAfterARestartWithItsOutcome) {
  std::string good, bad, token;
  auto test = [&]() -> Task<> {
    co_await begin();
    good = co_await one(Result<>());
    Result<> failure = fail(ErrorKind::busy, "no \xff luck");
    bad = co_await one(std::move(failure));
    token = co_await one(Result<>(), OperationClass::token);
    co_await end();
    auto all = co_await store.list("/operations/");
    for (const auto& document : *all) {
      EXPECT_EQ(document.value.find("hush"), std::string::npos);
      EXPECT_EQ(document.value.find("whisper"), std::string::npos);
    }
    co_await begin();
    auto op = life->operations.find(good);
    EXPECT_TRUE(op && op->status() == OperationStatus::success && op->spec().project == "lab");
    if (op) EXPECT_EQ(json::serialize(op->to_json().at("resources")), R"({"instances":["/1.0/instances/db1"]})");
    if (op) EXPECT_EQ(json::serialize(op->to_json().at("metadata")), R"({"command":["ls"]})");
    op = life->operations.find(bad);
    EXPECT_TRUE(op && op->status() == OperationStatus::failure && op->to_json().at("err").as_string() == "no ? luck");
    EXPECT_EQ(life->operations.find(token), nullptr);
    EXPECT_EQ(life->operations.cancel(good).error().kind(), ErrorKind::busy);
    auto waited = co_await life->operations.wait(good, std::nullopt);
    EXPECT_TRUE(waited);
    EXPECT_EQ(life->operations.list("lab").front()->id(), bad) << "newest first";
    co_await end();
    clock.advance(2h);
    co_await begin();
    co_await sleep_for(1ms);
    EXPECT_TRUE(life->operations.list().empty()) << "too old";
    co_await end();
    auto left = co_await store.list("/operations/");
    EXPECT_TRUE(left->empty());
  };
  run(test());
}

TEST_F(LogTest, IsBounded) {
  auto test = [&]() -> Task<> {
    co_await begin(25);  // of which one tenant has a fifth
    for (int i = 0; i < 20; ++i) (void)co_await one(Result<>());
    co_await end();
    auto all = co_await store.list("/operations/");
    EXPECT_EQ(all->size(), 5u);
  };
  run(test());
}

TEST_F(LogTest, TellsWhatBecameOfWorkThatADaemonLeftHalfDone) {
  auto test = [&]() -> Task<> {
    Transaction t;
    t.put("/operations/long", R"({"id":"long","class":"task","description":"Creating instance","created_at":"2027-01-15T08:00:00Z",
        "updated_at":"2027-01-15T08:00:00Z","status":"Running","status_code":103,"resources":{},"metadata":null,"may_cancel":true,"err":"",
        "location":"none","project":"lab","caller":{}})");
    t.put("/operations/broken", "{");
    auto put = co_await store.commit(std::move(t));
    EXPECT_TRUE(put);
    co_await begin();
    auto op = life->operations.find("long");
    EXPECT_TRUE(op && op->status() == OperationStatus::failure);
    life->operations.recovered("long", "instance-create", true);
    EXPECT_TRUE(op && op->status() == OperationStatus::success && !op->error());
    life->operations.recovered("short", "instance-start", false);
    op = life->operations.find("short");
    EXPECT_TRUE(op && op->spec().description == "Starting instance" && op->done() && op->error());
    co_await end();
    co_await begin();
    EXPECT_EQ(life->operations.find("long")->status(), OperationStatus::success);
    EXPECT_EQ(life->operations.find("short")->status(), OperationStatus::failure);
    co_await end();
  };
  run(test());
}

}  // namespace
}  // namespace virga::engine
