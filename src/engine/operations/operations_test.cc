#include "engine/operations/operations.h"

#include <gtest/gtest.h>

#include <boost/asio/io_context.hpp>
#include <deque>

namespace virga::engine {
namespace {

using namespace std::chrono_literals;

const Caller alice{.username = "alice", .protocol = "tls", .address = "[::1]:1", .admin = true, .fingerprint = "aa"};
const Caller bob{.username = "bob", .protocol = "tls", .address = "[::1]:2", .admin = true, .fingerprint = "bb"};

/// Echoes what it is told, and remembers that it was destroyed.
class QueueChannel final : public Channel {
 public:
  explicit QueueChannel(bool* destroyed) : destroyed_(destroyed) {}
  ~QueueChannel() override { *destroyed_ = true; }
  Task<Result<Message>> read() override {
    if (queue_.empty()) co_return Message{Message::Kind::close, ""};
    auto m = std::move(queue_.front());
    queue_.pop_front();
    co_return m;
  }
  Task<Result<>> write(Message m) override {
    queue_.push_back(std::move(m));
    co_return Result<>();
  }
  Task<> close() override { co_return; }

 private:
  bool* destroyed_;
  std::deque<Message> queue_;
};

struct OperationsTest : ::testing::Test {
  boost::asio::io_context io;
  TaskGroup group{io.get_executor()};
  ManualClock clock;
  Events events{io.get_executor(), clock};
  Operations::Limits limits{.live = 50, .finished = 10, .retention = 20ms, .secret_lifetime = 30s};
  std::optional<Operations> made;
  Operations& ops() {
    if (!made) made.emplace(io.get_executor(), events, clock, limits);
    return *made;
  }
  void run() {
    io.run();
    io.restart();
    EXPECT_EQ(group.failures(), 0);
  }
  void run(Task<> task) {
    group.spawn("test", std::move(task));
    run();
  }
};

OperationSpec spec(std::string description = "Creating instance", bool may_cancel = false) {
  OperationSpec s;
  s.project = "default";
  s.description = std::move(description);
  s.resources = {{"instances", {"/1.0/instances/db1"}}};
  s.may_cancel = may_cancel;
  s.caller = alice;
  return s;
}

TEST_F(OperationsTest, RunsShowsProgressAndIsForgottenLater) {
  std::vector<std::string> seen;
  auto listener = events.listen({}, [&](const Event& e) {
    seen.push_back(std::string(e.metadata.at("status").as_string()) + "/" + json::serialize(e.metadata.at("metadata")));
  });
  auto started = ops().start(spec(), [](Operation& op) -> Task<Result<>> {
    op.set_metadata("progress", "half");
    co_return Result<>();
  });
  ASSERT_TRUE(started);
  auto op = *started;
  EXPECT_EQ(op->status(), OperationStatus::running) << "an answer to the client is made now";
  EXPECT_EQ(ops().find(op->id()), op);
  auto j = op->to_json();
  EXPECT_EQ(j.at("status_code").as_int64(), 103);
  EXPECT_EQ(j.at("class").as_string(), "task");
  EXPECT_EQ(json::serialize(j.at("resources")), R"({"instances":["/1.0/instances/db1"]})");
  run();
  EXPECT_EQ(op->status(), OperationStatus::success);
  EXPECT_EQ(seen, (std::vector<std::string>{"Running/null", R"(Running/{"progress":"half"})", R"(Success/{"progress":"half"})"}));
  EXPECT_EQ(ops().find(op->id()), nullptr) << "retention is over when the loop has nothing left to do";
  EXPECT_EQ(ops().running(), 0u);
}

TEST_F(OperationsTest, WaitReturnsAtTheEndOrAtTheTimeout) {
  limits.retention = 1s;
  Notification go(io.get_executor());
  auto op = *ops().start(spec(), [&](Operation&) -> Task<Result<>> {
    co_await go.wait();
    co_return fail(ErrorKind::busy, "no luck \xff");
  });
  auto test = [&]() -> Task<> {
    auto early = co_await ops().wait(op->id(), 5ms);
    EXPECT_TRUE(early && !(*early)->done());
    go.notify();
    auto late = co_await ops().wait(op->id(), std::nullopt);
    EXPECT_TRUE(late && (*late)->done());
    auto again = co_await ops().wait(op->id(), 0ms);
    EXPECT_TRUE(again && (*again)->done());
    auto none = co_await ops().wait("nope", 0ms);
    EXPECT_EQ(none.error().kind(), ErrorKind::not_found);
    co_await ops().stop();
  };
  run(test());
  EXPECT_EQ(op->to_json().at("err").as_string(), "no luck ?") << "tools may write what is no UTF-8";
  EXPECT_EQ(op->to_json().at("status_code").as_int64(), 400);
}

TEST_F(OperationsTest, CancelStopsTheBodyAtItsNextWait) {
  auto op = *ops().start(spec("Waiting", true), [](Operation&) -> Task<Result<>> {
    if (!co_await sleep_for(1h)) co_return fail(ErrorKind::cancelled, "stopped");
    co_return Result<>();
  });
  auto fixed = *ops().start(spec("Fixed", false), [](Operation&) -> Task<Result<>> {
    co_await sleep_for(10ms);
    co_return Result<>();
  });
  auto test = [&]() -> Task<> {
    EXPECT_EQ(ops().cancel(fixed->id()).error().kind(), ErrorKind::busy);
    EXPECT_TRUE(ops().cancel(op->id()));
    EXPECT_EQ(op->status(), OperationStatus::cancelling);
    EXPECT_TRUE(ops().cancel(op->id())) << "asking twice is harmless";
    (void)co_await ops().wait(op->id(), std::nullopt);
    EXPECT_EQ(ops().cancel(op->id()).error().kind(), ErrorKind::busy);
    EXPECT_EQ(ops().cancel("nope").error().kind(), ErrorKind::not_found);
  };
  run(test());
  EXPECT_EQ(op->status(), OperationStatus::cancelled);
  EXPECT_EQ(fixed->status(), OperationStatus::success);
}

TEST_F(OperationsTest, CancelBeforeTheBodyBeganNeverRunsIt) {
  bool ran = false;
  auto op = *ops().start(spec("Early", true), [&](Operation&) -> Task<Result<>> {
    ran = true;
    co_return Result<>();
  });
  EXPECT_TRUE(ops().cancel(op->id()));
  run();
  EXPECT_FALSE(ran);
  EXPECT_EQ(op->status(), OperationStatus::cancelled);
}

TEST_F(OperationsTest, AnExceptionEndsOnlyItsOperation) {
  auto op = *ops().start(spec(), [](Operation&) -> Task<Result<>> {
    throw std::runtime_error("bug");
    co_return Result<>();
  });
  run();
  EXPECT_EQ(op->status(), OperationStatus::failure);
  EXPECT_EQ(op->error()->kind(), ErrorKind::internal);
}

TEST_F(OperationsTest, LimitsHold) {
  limits.live = 3;
  limits.finished = 2;
  limits.retention = 1s;
  std::vector<OperationPtr> all;
  all.reserve(3);
  for (int i = 0; i < 3; ++i) all.push_back(*ops().start(spec(), [](Operation&) -> Task<Result<>> { co_return Result<>(); }));
  auto refused = ops().start(spec(), [](Operation&) -> Task<Result<>> { co_return Result<>(); });
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().kind(), ErrorKind::unavailable);
  auto test = [&]() -> Task<> {
    co_await sleep_for(1ms);
    for (auto& op : all) EXPECT_TRUE(op->done());
    EXPECT_EQ(ops().list().size(), 2u) << "the oldest finished one is forgotten first";
    EXPECT_EQ(ops().list().front()->id(), all.back()->id());
    EXPECT_EQ(ops().find(all.front()->id()), nullptr);
    EXPECT_EQ(ops().list("lab").size(), 0u);
    co_await ops().stop();
    EXPECT_EQ(ops().start(spec(), nullptr).error().kind(), ErrorKind::unavailable);
  };
  run(test());
}

TEST_F(OperationsTest, OneTenantDoesNotTakeAllTheRoom) {
  limits.of_one = 3;
  auto of = [](std::string who, bool admin) {
    auto s = spec();
    s.caller = {.username = std::move(who), .protocol = "tls", .address = "", .admin = admin, .fingerprint = ""};
    return s;
  };
  const auto nothing = [](Operation&) -> Task<Result<>> { co_return Result<>(); };
  for (int i = 0; i < 3; ++i) ASSERT_TRUE(ops().start(of("mallory", false), nothing));
  auto refused = ops().start(of("mallory", false), nothing);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().kind(), ErrorKind::unavailable);
  EXPECT_TRUE(ops().start(of("victim", false), nothing));
  for (int i = 0; i < 10; ++i) EXPECT_TRUE(ops().start(of("root", true), nothing));
  run();
  EXPECT_TRUE(ops().start(of("mallory", false), nothing)) << "what has ended counts no more";
  run();
}

TEST_F(OperationsTest, OneTenantDoesNotPushOutWhatTheOthersSeeOfTheirs) {
  limits.live = 1000;
  limits.finished = 10;
  limits.retention = 1h;
  auto of = [](std::string who) {
    auto s = spec();
    s.caller = {.username = std::move(who), .protocol = "tls", .address = "", .admin = false, .fingerprint = ""};
    return s;
  };
  const auto nothing = [](Operation&) -> Task<Result<>> { co_return Result<>(); };
  auto test = [&]() -> Task<> {
    const auto victims = (*ops().start(of("victim"), nothing))->id();
    std::string last;
    for (int i = 0; i < 30; ++i) last = (*ops().start(of("mallory"), nothing))->id();
    co_await sleep_for(1ms);
    EXPECT_NE(ops().find(victims), nullptr);
    EXPECT_NE(ops().find(last), nullptr);
    EXPECT_EQ(ops().list().size(), 3u) << "two of mallory's";
    co_await ops().stop();
  };
  run(test());
}

TEST_F(OperationsTest, StopCancelsAndWaits) {
  bool undone = false;
  auto op = *ops().start(spec(), [&](Operation&) -> Task<Result<>> {
    co_await sleep_for(1h);
    co_await shield();
    co_await sleep_for(2ms);
    undone = true;
    co_return fail(ErrorKind::cancelled, "shutting down");
  });
  auto test = [&]() -> Task<> {
    co_await sleep_for(1ms);
    co_await ops().stop();
    EXPECT_TRUE(undone);
  };
  run(test());
}

TEST_F(OperationsTest, AShutdownWaitsForWhatRunsButNotForEver) {
  const auto body = [](Operation&) -> Task<Result<>> {
    (void)co_await sleep_for(20ms);
    co_return Result<>();
  };
  const auto endless = [](Operation&) -> Task<Result<>> {
    (void)co_await sleep_for(60s);
    co_return Result<>();
  };
  auto test = [&]() -> Task<> {
    EXPECT_EQ(co_await ops().drain(60s), 0u) << "nothing runs";
    auto token = spec("token");
    token.op_class = OperationClass::token;
    EXPECT_TRUE(ops().start(token, endless));
    EXPECT_TRUE(ops().start(spec("one"), body));
    EXPECT_TRUE(ops().start(spec("two"), body));
    EXPECT_EQ(co_await ops().drain(60s), 0u) << "tokens are not waited for";
    EXPECT_TRUE(ops().start(spec("long"), endless));
    EXPECT_EQ(co_await ops().drain(5ms), 1u);
    EXPECT_EQ(co_await ops().drain(0ms), 1u);
    co_await ops().stop();
  };
  run(test());
}

TEST_F(OperationsTest, SecretsAreShownToTheCreatorOnlyAndWorkOnceForHim) {
  std::vector<std::string> events_seen;
  auto listener = events.listen({}, [&](const Event& e) { events_seen.push_back(json::serialize(e.metadata)); });
  auto s = spec("Executing command");
  s.op_class = OperationClass::websocket;
  s.channels = {"0", "control"};
  s.secret_metadata = {{"token", "hush"}};
  std::string echoed;
  auto op = *ops().start(s, [&](Operation& o) -> Task<Result<>> {
    auto channel = co_await o.wait_channel("0", 1s);
    if (!channel) co_return fail(channel.error());
    co_await (*channel)->write({Message::Kind::binary, "hello"});
    auto m = co_await (*channel)->read();
    echoed = m->data;
    auto none = co_await o.wait_channel("nope", 1s);
    EXPECT_EQ(none.error().kind(), ErrorKind::not_found);
    EXPECT_FALSE(o.channel_connected("control"));
    channel->reset();
    auto late = co_await o.wait_channel("control", 1ms);
    EXPECT_EQ(late.error().kind(), ErrorKind::timeout);
    co_return Result<>();
  });
  const auto shown = op->to_json_for_creator();
  const std::string secret(shown.at("metadata").at("fds").at("0").as_string());
  const std::string other(shown.at("metadata").at("fds").at("control").as_string());
  EXPECT_EQ(secret.size(), 64u);
  EXPECT_NE(secret, other);
  EXPECT_EQ(shown.at("metadata").at("token").as_string(), "hush");
  EXPECT_EQ(json::serialize(op->to_json()).find(secret), std::string::npos);

  EXPECT_TRUE(ops().may_connect(op->id(), secret, alice));
  EXPECT_FALSE(ops().may_connect(op->id(), secret, bob));
  EXPECT_FALSE(ops().may_connect(op->id(), "", alice));
  bool destroyed[5] = {};
  auto connect = [&](int i, std::string id, std::string sec, Caller who, std::optional<ErrorKind>* out) -> Task<> {
    auto r = co_await ops().connect(id, sec, std::make_unique<QueueChannel>(&destroyed[i]), who);
    if (!r) *out = r.error().kind();
  };
  std::optional<ErrorKind> results[5];
  group.spawn("wrong secret", connect(0, op->id(), std::string(64, '0'), alice, &results[0]));
  group.spawn("wrong person", connect(1, op->id(), secret, bob, &results[1]));
  group.spawn("right", connect(2, op->id(), secret, alice, &results[2]));
  group.spawn("again", connect(3, op->id(), secret, alice, &results[3]));
  group.spawn("empty", connect(4, op->id(), "", alice, &results[4]));
  run();
  EXPECT_EQ(results[0], ErrorKind::not_found);
  EXPECT_EQ(results[1], ErrorKind::not_found);
  EXPECT_EQ(results[2], std::nullopt);
  EXPECT_EQ(results[3], ErrorKind::not_found);
  EXPECT_EQ(results[4], ErrorKind::not_found);
  for (bool d : destroyed) EXPECT_TRUE(d);
  EXPECT_EQ(echoed, "hello");
  EXPECT_EQ(op->status(), OperationStatus::success);
  for (const auto& e : events_seen) {
    EXPECT_EQ(e.find(secret), std::string::npos);
    EXPECT_EQ(e.find(other), std::string::npos);
    EXPECT_EQ(e.find("hush"), std::string::npos);
  }
}

TEST_F(OperationsTest, AChannelNobodyTakesIsClosedAtTheEnd) {
  auto s = spec("Executing command");
  s.channels = {"0"};
  auto op = *ops().start(s, [&](Operation&) -> Task<Result<>> {
    co_await sleep_for(5ms);
    co_return Result<>();
  });
  const std::string secret(op->to_json_for_creator().at("metadata").at("fds").at("0").as_string());
  bool destroyed = false, returned = false;
  auto test = [&]() -> Task<> {
    auto r = co_await ops().connect(op->id(), secret, std::make_unique<QueueChannel>(&destroyed), alice);
    returned = r.has_value();
  };
  run(test());
  EXPECT_TRUE(destroyed);
  EXPECT_TRUE(returned);
}

TEST_F(OperationsTest, AnUnusedSecretExpires) {
  limits.secret_lifetime = 0ms;
  auto s = spec();
  s.channels = {"0"};
  auto op = *ops().start(s, [&](Operation&) -> Task<Result<>> {
    co_await sleep_for(5ms);
    co_return Result<>();
  });
  const std::string secret(op->to_json_for_creator().at("metadata").at("fds").at("0").as_string());
  bool destroyed = false;
  std::optional<ErrorKind> kind;
  auto test = [&]() -> Task<> {
    auto r = co_await ops().connect(op->id(), secret, std::make_unique<QueueChannel>(&destroyed), alice);
    if (!r) kind = r.error().kind();
  };
  run(test());
  EXPECT_EQ(kind, ErrorKind::not_found);
}

TEST_F(OperationsTest, AClaimNamesItsHolder) {
  auto op = *ops().start(spec("Starting instance"), [&](Operation& o) -> Task<Result<>> {
    auto claim = ops().claim("/1.0/instances/db1", o);
    EXPECT_TRUE(claim);
    co_await sleep_for(5ms);
    co_return Result<>();
  });
  auto test = [&]() -> Task<> {
    co_await sleep_for(1ms);
    auto second = ops().claim("/1.0/instances/db1", "restoring");
    EXPECT_EQ(second.error().kind(), ErrorKind::busy);
    EXPECT_EQ(second.error().message(), "instance 'db1' is busy: operation 'Starting instance' (" + op->id() + ") holds it");
    EXPECT_TRUE(ops().claim("/1.0/instances/db2", "restoring"));
    EXPECT_FALSE(ops().is_claimed("/1.0/instances/db2")) << "given back at once";
    auto impatient = co_await ops().claim_when_free("/1.0/instances/db1", "restoring", 1ms);
    EXPECT_EQ(impatient.error().kind(), ErrorKind::timeout);
    auto patient = co_await ops().claim_when_free("/1.0/instances/db1", "restoring", 10s);
    EXPECT_TRUE(patient);
    EXPECT_TRUE(op->done());
  };
  run(test());
}

}  // namespace
}  // namespace virga::engine
