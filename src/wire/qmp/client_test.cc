#include "wire/qmp/client.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <boost/asio/io_context.hpp>
#include <filesystem>

#include "io/process.h"
#include "io/unix_socket.h"
#include "wire/qmp/message.h"

namespace virga::qmp {
namespace {

using namespace std::chrono_literals;

constexpr std::string_view greeting =
    R"({"QMP": {"version": {"qemu": {"micro": 22, "minor": 2, "major": 7}, "package": "Debian"}, "capabilities": ["oob"]}})";

/// The other end of the socket: the test reads commands and answers by hand.
struct FakeQemu {
  io::UniqueFd ours, theirs;
  std::string buffer;
  FakeQemu() {
    int pair[2];
    if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair) != 0) std::abort();
    ours.reset(pair[0]);
    theirs.reset(pair[1]);
  }
  Task<> send(std::string text) {
    std::size_t done = 0;
    while (done < text.size()) {
      const auto n = ::send(ours.get(), text.data() + done, text.size() - done, MSG_NOSIGNAL);
      if (n > 0) {
        done += static_cast<std::size_t>(n);
      } else if (errno != EAGAIN || !co_await io::wait_writable(ours.get())) {
        co_return;
      }
    }
  }
  Task<json::object> receive() {
    for (;;) {
      if (auto end = buffer.find('\n'); end != std::string::npos) {
        auto line = parse_json_object(buffer.substr(0, end));
        buffer.erase(0, end + 1);
        EXPECT_TRUE(line.has_value());
        co_return line ? *line : json::object{};
      }
      char chunk[4096];
      const auto n = ::read(ours.get(), chunk, sizeof chunk);
      if (n > 0) {
        buffer.append(chunk, static_cast<std::size_t>(n));
      } else if (n == 0 || errno != EAGAIN || !co_await io::wait_readable(ours.get())) {
        co_return json::object{};
      }
    }
  }
  Task<> answer(std::int64_t id, std::string result = "{}") {
    co_await send(fmt::format("{{\"return\": {}, \"id\": {}}}\r\n", result, id));
  }
  Task<> greet() {
    co_await send(std::string(greeting) + "\r\n");
    auto capabilities = co_await receive();
    EXPECT_EQ(capabilities["execute"], "qmp_capabilities");
    co_await answer(capabilities["id"].as_int64());
  }
};

struct Loop {
  boost::asio::io_context io;
  TaskGroup group{io.get_executor()};
  void run() {
    io.run_for(20s);
    EXPECT_EQ(group.size(), 0u) << "the test hangs";
    EXPECT_EQ(group.failures(), 0);
  }
};

TEST(QmpMessage, RefusesNonsense) {
  for (auto text :
       {"", "{", "[]", "{}", R"({"event": 7})", R"({"event": ""})", R"({"return": 1, "id": "x"})", R"({"return": 1, "id": -4})",
        R"({"QMP": 1})", R"({"id": 1})", R"({"error": "x", "id": 1})", R"({"return": {}, "return": {}})"})
    EXPECT_FALSE(parse_message(text).has_value()) << text;
  EXPECT_FALSE(parse_message(std::string(1000, '[')).has_value());
  auto error = parse_message(R"({"error": {"class": "DeviceNotFound", "desc": "no 'x'\u001b[1m"}, "id": 3})");
  ASSERT_TRUE(error.has_value());
  auto& reply = std::get<Reply>(*error);
  EXPECT_EQ(reply.id, 3u);
  EXPECT_EQ(reply.result.error().kind(), ErrorKind::not_found);
  EXPECT_EQ(reply.result.error().message(), "no 'x' [1m") << "control characters do not reach a terminal";
}

TEST(QmpClient, AnswersByIdWhateverTheOrderAndPassesEvents) {
  Loop loop;
  FakeQemu qemu;
  auto server = [&]() -> Task<> {
    co_await qemu.greet();
    auto one = co_await qemu.receive();
    auto two = co_await qemu.receive();
    EXPECT_EQ(one["arguments"].as_object()["path"], "a,b\"c");
    co_await qemu.send(R"({"event": "STOP", "data": {"n": 1}, "timestamp": {"seconds": 1, "microseconds": 2}})"
                       "\n");
    co_await qemu.answer(two["id"].as_int64(), "2");
    co_await qemu.answer(one["id"].as_int64(), "1");
  };
  std::string events;
  auto body = [&]() -> Task<> {
    auto client = co_await Client::negotiate(std::move(qemu.theirs));
    EXPECT_TRUE(client.has_value());
    EXPECT_EQ((*client)->version(), "7.2.22");
    (*client)->on_event([&](Event e) { events += e.name + std::to_string(e.data["n"].as_int64()); });
    TaskGroup calls(co_await current_executor());
    int first = 0, second = 0;
    auto call = [&](const char* name, int& into) -> Task<> {
      json::object arguments;
      arguments["path"] = "a,b\"c";
      auto r = co_await (*client)->execute(name, std::move(arguments));
      into = r ? static_cast<int>(r->as_int64()) : -1;
    };
    calls.spawn("first", call("first", first));
    calls.spawn("second", call("second", second));
    co_await calls.join();
    EXPECT_EQ(first, 1);
    EXPECT_EQ(second, 2);
    EXPECT_EQ(events, "STOP1");
  };
  loop.group.spawn("server", server());
  loop.group.spawn("body", body());
  loop.run();
}

TEST(QmpClient, ASilentQemuCostsTheTimeOutOnly) {
  Loop loop;
  FakeQemu qemu;
  auto server = [&]() -> Task<> {
    co_await qemu.greet();
    auto late = co_await qemu.receive();
    auto next = co_await qemu.receive();
    co_await qemu.answer(late["id"].as_int64(), "\"late\"");
    co_await qemu.answer(next["id"].as_int64(), "\"next\"");
  };
  auto body = [&]() -> Task<> {
    auto client = co_await Client::negotiate(std::move(qemu.theirs));
    EXPECT_TRUE(client.has_value());
    auto slow = co_await (*client)->execute("slow", {}, 20ms);
    EXPECT_FALSE(slow.has_value());
    EXPECT_EQ(slow.error().kind(), ErrorKind::timeout);
    auto next = co_await (*client)->execute("next");
    EXPECT_TRUE(next.has_value());
    EXPECT_EQ(*next, json::value("next")) << "the late answer belongs to nobody";
  };
  loop.group.spawn("server", server());
  loop.group.spawn("body", body());
  loop.run();
}

TEST(QmpClient, NoGreetingTimesOutAndCancelIsTold) {
  Loop loop;
  FakeQemu silent, cancelled;
  auto body = [&]() -> Task<> {
    auto client = co_await Client::negotiate(std::move(silent.theirs), 20ms);
    EXPECT_EQ(client.error().kind(), ErrorKind::timeout);
  };
  auto victim = [&]() -> Task<> {
    auto client = co_await Client::negotiate(std::move(cancelled.theirs));
    EXPECT_EQ(client.error().kind(), ErrorKind::cancelled);
  };
  loop.group.spawn("body", body());
  auto id = loop.group.spawn("victim", victim());
  auto canceller = [&]() -> Task<> {
    co_await sleep_for(5ms);
    loop.group.cancel(id);
  };
  loop.group.spawn("canceller", canceller());
  loop.run();
}

TEST(QmpClient, NonsenseAndEndlessLinesCloseTheConnection) {
  for (const bool endless : {false, true}) {
    Loop loop;
    FakeQemu qemu;
    auto server = [&]() -> Task<> {
      co_await qemu.greet();
      co_await qemu.receive();
      co_await qemu.send(endless ? std::string(max_line + (1u << 20), ' ') : std::string("{\"return\": \n"));
    };
    std::string closed;
    auto body = [&]() -> Task<> {
      auto client = co_await Client::negotiate(std::move(qemu.theirs));
      EXPECT_TRUE(client.has_value());
      (*client)->on_close([&](Error e) { closed = e.chain(); });
      auto r = co_await (*client)->execute("x", {}, 15s);
      EXPECT_EQ(r.error().kind(), ErrorKind::unavailable) << r.error().text();
      EXPECT_FALSE((*client)->connected());
      auto again = co_await (*client)->execute("y");
      EXPECT_EQ(again.error().kind(), ErrorKind::unavailable);
    };
    loop.group.spawn("server", server());
    loop.group.spawn("body", body());
    loop.run();
    EXPECT_NE(closed.find(endless ? "longer" : "nonsense"), std::string::npos) << closed;
  }
}

TEST(QmpClient, AQemuThatReadsNothingGetsABoundedQueue) {
  Loop loop;
  FakeQemu qemu;
  auto server = [&]() -> Task<> { co_await qemu.greet(); };
  auto body = [&]() -> Task<> {
    auto client = co_await Client::negotiate(std::move(qemu.theirs));
    EXPECT_TRUE(client.has_value());
    bool refused = false;
    for (int i = 0; i < 100 && !refused; ++i) {
      json::object arguments;
      arguments["filler"] = std::string(100'000, 'x');
      auto r = co_await (*client)->execute("x", std::move(arguments), 1ms);
      refused = r.error().kind() == ErrorKind::unavailable;
    }
    EXPECT_TRUE(refused);
  };
  loop.group.spawn("server", server());
  loop.group.spawn("body", body());
  loop.run();
}

TEST(QmpClient, DestroyingItFailsWhoWaits) {
  Loop loop;
  FakeQemu qemu;
  auto server = [&]() -> Task<> { co_await qemu.greet(); };
  std::unique_ptr<Client> client;
  bool told = false;
  auto waiter = [&]() -> Task<> {
    auto c = co_await Client::negotiate(std::move(qemu.theirs));
    EXPECT_TRUE(c.has_value());
    client = std::move(*c);
    client->on_close([&](Error) { told = true; });
    auto r = co_await client->execute("never");
    EXPECT_EQ(r.error().kind(), ErrorKind::unavailable);
  };
  auto destroyer = [&]() -> Task<> {
    for (json::object o; o["execute"] != "never";) o = co_await qemu.receive();
    client.reset();
  };
  auto both = [&]() -> Task<> {
    co_await server();
    co_await destroyer();
  };
  loop.group.spawn("waiter", waiter());
  loop.group.spawn("both", both());
  loop.run();
  EXPECT_FALSE(told) << "who destroys it knows";
}

TEST(QmpClient, RealQemuOverALongPath) {
  if (::access("/usr/bin/qemu-system-x86_64", X_OK) != 0) GTEST_SKIP() << "qemu-system-x86_64 is not installed";
  char pattern[] = "/tmp/virga-qmp-XXXXXX";
  ASSERT_NE(::mkdtemp(pattern), nullptr);
  const std::string base = pattern;
  const std::string directory = base + "/" + std::string(120, 'd');
  std::filesystem::create_directory(directory);
  const auto path = directory + "/qmp.sock";
  Loop loop;
  auto body = [&]() -> Task<> {
    auto listener = io::listen_unix(path);
    EXPECT_TRUE(listener.has_value());
    io::ProcessSpec spec;
    spec.argv = {"/usr/bin/qemu-system-x86_64",
                 "-machine",
                 "none",
                 "-nodefaults",
                 "-no-user-config",
                 "-display",
                 "none",
                 "-chardev",
                 "socket,id=q,fd=3,server=on,wait=off",
                 "-mon",
                 "chardev=q,mode=control"};
    spec.fds = {{listener->get(), 3}};
    auto qemu = io::Process::start(spec);
    EXPECT_TRUE(qemu.has_value());
    bool closed = false;
    for (int connection = 0; connection < 2; ++connection) {
      auto client = co_await Client::connect(path);
      EXPECT_TRUE(client.has_value()) << client.error().text();
      auto status = co_await (*client)->execute("query-status");
      EXPECT_TRUE(status.has_value());
      auto bad = co_await (*client)->execute("no-such-command");
      EXPECT_EQ(bad.error().kind(), ErrorKind::unsupported);
      if (connection == 0) continue;
      (*client)->on_close([&](Error) { closed = true; });
      (void)co_await (*client)->execute("quit");
      auto ended = co_await qemu->wait();
      EXPECT_TRUE(ended.has_value());
      EXPECT_EQ(ended->code, 0);
    }
  };
  loop.group.spawn("body", body());
  loop.run();
  std::filesystem::remove_all(base);
}

}  // namespace
}  // namespace virga::qmp
