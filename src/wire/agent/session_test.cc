// The daemon's session against the real virga-agent on this host, and against agents that misbehave.
#include "wire/agent/session.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include <boost/asio/io_context.hpp>
#include <filesystem>

#include "io/file.h"
#include "io/process.h"
#include "io/unix_socket.h"

namespace virga::agent {
namespace {

using namespace std::chrono_literals;

std::string agent_program() {
  return (std::filesystem::read_symlink("/proc/self/exe").parent_path() / "virga-agent").string();
}

struct Loop {
  boost::asio::io_context io;
  TaskGroup group{io.get_executor()};
  void run(Task<> body) {
    group.spawn("test", std::move(body));
    io.run_for(60s);
    EXPECT_EQ(group.size(), 0u) << "the test hangs";
    EXPECT_EQ(group.failures(), 0);
  }
};

struct Pair {
  io::UniqueFd ours, theirs;
  Pair() {
    int fds[2];
    if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds) != 0) std::abort();
    ours.reset(fds[0]);
    theirs.reset(fds[1]);
  }
};

/// A real agent on one end of a socket pair.
struct Agent {
  std::optional<io::Process> process;
  std::unique_ptr<Session> session;
  static Task<Agent> start() {
    Agent a;
    Pair pair;
    io::ProcessSpec spec;
    spec.argv = {agent_program(), "--stdio"};
    spec.fds = {{pair.theirs.get(), 0}, {pair.theirs.get(), 1}, {2, 2}};
    auto p = io::Process::start(spec);
    EXPECT_TRUE(p.has_value()) << p.error().text();
    if (p) a.process.emplace(std::move(*p));
    a.session = std::make_unique<Session>(co_await current_executor(), std::move(pair.ours));
    auto ready = co_await a.session->wait_ready(10s);
    EXPECT_TRUE(ready.has_value()) << ready.error().text();
    co_return a;
  }
  Task<std::unique_ptr<Command>> run(std::vector<std::string> argv, bool terminal = false) {
    ExecRequest request;
    request.argv = std::move(argv);
    request.terminal = terminal;
    auto c = co_await session->exec(std::move(request));
    EXPECT_TRUE(c.has_value()) << c.error().text();
    co_return std::move(*c);
  }
};

Task<std::string> read_all(Command& c, Channel channel) {
  std::string all;
  for (;;) {
    auto part = co_await c.read(channel);
    EXPECT_TRUE(part.has_value()) << part.error().text();
    if (!part || part->empty()) co_return all;
    all += *part;
  }
}

Task<int> code_of(Command& c) {
  auto code = co_await c.wait();
  EXPECT_TRUE(code.has_value()) << code.error().text();
  co_return code.value_or(-1);
}

TEST(Agent, StreamsStdinEnvironmentUserAndCode) {
  Loop loop;
  auto body = []() -> Task<> {
    auto agent = co_await Agent::start();
    ExecRequest request;
    request.argv = {"sh", "-c", "cat; echo \"$A|$HOME|$(id -u):$(id -g):$(id -G)|$PWD\" >&2; exit 7"};
    request.environment = {"A=it's, \"quoted\"\n"};
    request.cwd = "/tmp";
    request.uid = 65534;
    request.gid = 65533;
    auto c = co_await agent.session->exec(std::move(request));
    EXPECT_TRUE(c.has_value());
    EXPECT_TRUE((co_await (*c)->write("hello")).has_value());
    EXPECT_TRUE((co_await (*c)->close_input()).has_value());
    auto out = co_await read_all(**c, Channel::output);
    auto err = co_await read_all(**c, Channel::error);
    EXPECT_EQ(out, "hello");
    EXPECT_EQ(err, "it's, \"quoted\"\n|/nonexistent|65534:65533:65533|/tmp\n");
    EXPECT_EQ(co_await code_of(**c), 7);
    auto after = co_await (*c)->write("more");
    EXPECT_EQ(after.error().kind(), ErrorKind::unavailable);
  };
  loop.run(body());
}

TEST(Agent, MissingProgramsAndDirectoriesEndLikeInAShell) {
  Loop loop;
  auto body = []() -> Task<> {
    auto agent = co_await Agent::start();
    auto c = co_await agent.run({"no-such-program"});
    auto text = co_await read_all(*c, Channel::error);
    EXPECT_NE(text.find("no-such-program"), std::string::npos);
    EXPECT_EQ(co_await code_of(*c), 127);
    auto d = co_await agent.run({"/etc/passwd"});
    EXPECT_EQ(co_await code_of(*d), 126);
    ExecRequest bad;
    bad.argv = {std::string("a\0b", 3)};
    auto refused = co_await agent.session->exec(std::move(bad));
    EXPECT_EQ(refused.error().kind(), ErrorKind::invalid);
    ExecRequest huge;
    huge.argv = {"true", std::string(40'000, 'x')};
    auto too_long = co_await agent.session->exec(std::move(huge));
    EXPECT_EQ(too_long.error().kind(), ErrorKind::invalid);
  };
  loop.run(body());
}

TEST(Agent, TerminalSizeResizeAndEof) {
  Loop loop;
  auto body = []() -> Task<> {
    auto agent = co_await Agent::start();
    ExecRequest request;
    request.argv = {"sh", "-c", "tty >/dev/null && stty size; while read line; do stty size; echo \"got $line\"; done; echo end"};
    request.terminal = true;
    request.columns = 100;
    request.rows = 30;
    auto c = co_await agent.session->exec(std::move(request));
    EXPECT_TRUE(c.has_value());
    std::string seen;
    auto until = [&](std::string what) -> Task<> {
      while (seen.find(what) == std::string::npos) {
        auto part = co_await (*c)->read(Channel::output);
        if (!part || part->empty()) {
          ADD_FAILURE() << "ended before '" << what << "': " << seen;
          co_return;
        }
        seen += *part;
      }
    };
    co_await until("30 100");
    EXPECT_TRUE((co_await (*c)->resize(132, 50)).has_value());
    EXPECT_TRUE((co_await (*c)->write("line\n")).has_value());
    co_await until("50 132");
    co_await until("got line");
    EXPECT_TRUE((co_await (*c)->close_input()).has_value());
    co_await until("end");
    EXPECT_EQ(co_await code_of(**c), 0);
    auto error_stream = co_await read_all(**c, Channel::error);
    EXPECT_EQ(error_stream, "");
  };
  loop.run(body());
}

TEST(Agent, SignalsReachTheGroupAndCloseKills) {
  Loop loop;
  auto body = []() -> Task<> {
    auto agent = co_await Agent::start();
    auto c = co_await agent.run({"sh", "-c", "sleep 1000 & echo ready; wait"});
    EXPECT_EQ((co_await c->read(Channel::output)).value_or(""), "ready\n");
    EXPECT_TRUE((co_await c->signal(SIGTERM)).has_value());
    EXPECT_EQ(co_await code_of(*c), 128 + SIGTERM);
    EXPECT_EQ(co_await read_all(*c, Channel::output), "") << "the background sleep was in the group";

    auto d = co_await agent.run({"sh", "-c", "echo $$; exec sleep 1000"});
    const auto pid = std::stoi((co_await d->read(Channel::output)).value_or("0"));
    EXPECT_GT(pid, 1);
    d.reset();
    for (int i = 0; i < 2000 && io::process_start_time(pid); ++i) EXPECT_TRUE(co_await sleep_for(5ms));
    EXPECT_FALSE(io::process_start_time(pid).has_value()) << "nobody reads it any more: it is killed";
  };
  loop.run(body());
}

TEST(Agent, AFloodWaitsForItsReader) {
  Loop loop;
  auto body = []() -> Task<> {
    auto agent = co_await Agent::start();
    auto flood = co_await agent.run({"sh", "-c", "head -c 50000000 /dev/zero; echo done >&2"});
    // While nobody reads the flood, another command works, and the flood stands still at its window.
    for (int i = 0; i < 20; ++i) {
      auto other = co_await agent.run({"echo", "hi"});
      EXPECT_EQ(co_await read_all(*other, Channel::output), "hi\n");
    }
    std::size_t total = 0;
    for (;;) {
      auto part = co_await flood->read(Channel::output);
      EXPECT_TRUE(part.has_value());
      if (!part || part->empty()) break;
      EXPECT_LE(part->size(), output_window);
      total += part->size();
    }
    EXPECT_EQ(total, 50'000'000u);
    EXPECT_EQ(co_await read_all(*flood, Channel::error), "done\n");
    EXPECT_EQ(co_await code_of(*flood), 0);
  };
  loop.run(body());
}

TEST(Agent, LargeInputIsTakenAtTheReadersPace) {
  Loop loop;
  auto body = []() -> Task<> {
    auto agent = co_await Agent::start();
    auto c = co_await agent.run({"sh", "-c", "sleep 0.05; sha256sum"});
    std::string text(3'000'000, 0);
    for (std::size_t i = 0; i < text.size(); ++i) text[i] = static_cast<char>(i * i >> 3);
    EXPECT_TRUE((co_await c->write(text)).has_value());
    EXPECT_TRUE((co_await c->close_input()).has_value());
    auto sum = co_await read_all(*c, Channel::output);
    auto spec = io::ProcessSpec{};
    spec.argv = {"sha256sum"};
    spec.input = text;
    auto expected = co_await io::run_process(std::move(spec));
    EXPECT_EQ(sum, expected->out);
    // A command that closes its input early makes the writer fail instead of wait for ever.
    auto closer = co_await agent.run({"sh", "-c", "exec <&-; sleep 1000"});
    auto written = co_await closer->write(text);
    EXPECT_EQ(written.error().kind(), ErrorKind::unavailable);
  };
  loop.run(body());
}

TEST(Agent, ABackgroundChildThatHoldsThePipeIsNotWaitedFor) {
  Loop loop;
  auto body = []() -> Task<> {
    auto agent = co_await Agent::start();
    auto c = co_await agent.run({"sh", "-c", "sleep 30 & echo $!; exit 3"});
    EXPECT_EQ(co_await code_of(*c), 3);
    auto out = co_await read_all(*c, Channel::output);
    co_await read_all(*c, Channel::error);
    ::kill(std::stoi(out), SIGKILL);
  };
  loop.run(body());
}

TEST(Agent, WhatACommandLeftInThePipeArrivesThoughABackgroundChildHoldsIt) {
  Loop loop;
  auto body = []() -> Task<> {
    auto agent = co_await Agent::start();
    const auto begin = std::chrono::steady_clock::now();
    // All of it is in the pipe when the command ends; then nothing comes any more that would wake anybody.
    auto c = co_await agent.run({"sh", "-c", "sleep 30 & printf '%-8d' $!; head -c 60000 /dev/zero; exit 3"});
    EXPECT_EQ(co_await code_of(*c), 3);
    auto out = co_await read_all(*c, Channel::output);
    co_await read_all(*c, Channel::error);
    EXPECT_EQ(out.size(), 60'008u);
    EXPECT_LT(std::chrono::steady_clock::now() - begin, 20s);
    ::kill(std::stoi(out.substr(0, 8)), SIGKILL);
  };
  loop.run(body());
}

TEST(Agent, ManyCommandsAtOnceAndABoundOnThem) {
  Loop loop;
  auto body = []() -> Task<> {
    auto agent = co_await Agent::start();
    std::vector<std::unique_ptr<Command>> running;
    running.reserve(max_commands);
    for (std::size_t i = 0; i < max_commands; ++i) running.push_back(co_await agent.run({"cat"}));
    ExecRequest one_more;
    one_more.argv = {"true"};
    auto refused = co_await agent.session->exec(std::move(one_more));
    EXPECT_EQ(refused.error().kind(), ErrorKind::busy);
    for (std::size_t i = 0; i < running.size(); ++i) {
      EXPECT_TRUE((co_await running[i]->write(std::to_string(i))).has_value());
      EXPECT_TRUE((co_await running[i]->close_input()).has_value());
    }
    for (std::size_t i = 0; i < running.size(); ++i) {
      EXPECT_EQ(co_await read_all(*running[i], Channel::output), std::to_string(i));
      EXPECT_EQ(co_await code_of(*running[i]), 0);
    }
    running.clear();
    auto again = co_await agent.run({"true"});
    EXPECT_EQ(co_await code_of(*again), 0);
  };
  loop.run(body());
}

TEST(Agent, TellsTheState) {
  Loop loop;
  auto body = []() -> Task<> {
    auto agent = co_await Agent::start();
    EXPECT_TRUE((co_await agent.session->ping(2s)).has_value());
    auto state = co_await agent.session->state(2s);
    EXPECT_TRUE(state.has_value()) << state.error().text();
    EXPECT_GT(state->processes, 1u);
    EXPECT_GT(state->memory_total, state->memory_used);
    EXPECT_GT(state->memory_used, 0u);
    EXPECT_GT(state->cpu_ns, 0u);
    EXPECT_FALSE(state->kernel.empty());
    bool loopback = false;
    for (const auto& i : state->interfaces) loopback = loopback || (i.name == "lo" && i.type == "loopback");
    EXPECT_TRUE(loopback);
  };
  loop.run(body());
}

TEST(Agent, ARestartedDaemonGetsAFreshSessionWhateverWasInFlight) {
  char pattern[] = "/tmp/virga-agent-XXXXXX";
  ASSERT_NE(::mkdtemp(pattern), nullptr);
  const std::string path = std::string(pattern) + "/agent.sock";
  Loop loop;
  auto body = [&]() -> Task<> {
    io::ProcessSpec spec;
    spec.argv = {agent_program(), "--socket", path};
    auto agent = io::Process::start(spec);
    EXPECT_TRUE(agent.has_value());
    while (!io::exists(path)) EXPECT_TRUE(co_await sleep_for(2ms));
    int leftover = 0;
    for (int round = 0; round < 3; ++round) {
      Result<io::UniqueFd> fd = co_await io::connect_unix(path);
      while (!fd) {
        EXPECT_TRUE(co_await sleep_for(2ms));
        fd = co_await io::connect_unix(path);
      }
      Session session(co_await current_executor(), std::move(*fd));
      auto ready = co_await session.wait_ready(5s);
      EXPECT_TRUE(ready.has_value()) << ready.error().text();
      if (leftover > 0) {
        for (int i = 0; i < 2000 && io::process_start_time(leftover); ++i) EXPECT_TRUE(co_await sleep_for(5ms));
        EXPECT_FALSE(io::process_start_time(leftover).has_value()) << "the former session's command lives on";
      }
      ExecRequest request;
      request.argv = {"sh", "-c", "echo $$; exec cat /dev/zero"};
      auto c = co_await session.exec(std::move(request));
      EXPECT_TRUE(c.has_value());
      leftover = std::stoi((co_await (*c)->read(Channel::output)).value_or("0"));
    }
    EXPECT_TRUE(agent->kill(SIGTERM).has_value());
    EXPECT_TRUE((co_await agent->wait()).has_value());
  };
  loop.run(body());
  std::filesystem::remove_all(pattern);
}

/// An agent made of raw frames.
struct Hostile {
  Pair pair;
  std::unique_ptr<Decoder> decoder = std::make_unique<Decoder>();
  std::vector<std::pair<Type, std::pair<std::uint32_t, std::string>>> got;
  Task<> send(Type type, std::uint32_t stream, std::string payload) {
    std::vector<Byte> out(max_encoded);
    const auto n = encode_frame(static_cast<std::uint8_t>(type), stream, payload.data(), payload.size(), out.data());
    co_await raw(std::string(reinterpret_cast<char*>(out.data()), n));
  }
  Task<> raw(std::string bytes) {
    std::size_t done = 0;
    while (done < bytes.size()) {
      const auto n = ::send(pair.theirs.get(), bytes.data() + done, bytes.size() - done, MSG_NOSIGNAL);
      if (n > 0) {
        done += static_cast<std::size_t>(n);
      } else if (errno != EAGAIN || !co_await io::wait_writable(pair.theirs.get())) {
        co_return;
      }
    }
  }
  /// The next frame of that type.
  Task<std::pair<std::uint32_t, std::string>> expect(Type type) {
    for (;;) {
      while (!got.empty()) {
        auto first = got.front();
        got.erase(got.begin());
        if (first.first == type) co_return first.second;
      }
      Byte buffer[4096];
      const auto n = ::read(pair.theirs.get(), buffer, sizeof buffer);
      if (n == 0 || (n < 0 && (errno != EAGAIN || !co_await io::wait_readable(pair.theirs.get()))))
        co_return std::pair<std::uint32_t, std::string>{};
      if (n > 0)
        decoder->feed(buffer, static_cast<std::size_t>(n), [&](const Frame& f) {
          got.push_back({static_cast<Type>(f.type), {f.stream, std::string(reinterpret_cast<const char*>(f.payload), f.size)}});
          return true;
        });
    }
  }
  Task<> welcome() {
    auto hello = co_await expect(Type::hello);
    co_await send(Type::welcome, 0, hello.second);
  }
};

TEST(HostileAgent, OnlyTheRightNonceOpensASession) {
  Loop loop;
  auto body = []() -> Task<> {
    Hostile agent;
    Session session(co_await current_executor(), std::move(agent.pair.ours));
    co_await agent.raw(std::string("tail of an old frame\0", 21));
    auto hello = co_await agent.expect(Type::hello);
    auto wrong = hello.second;
    wrong.back() ^= 1;
    co_await agent.send(Type::welcome, 0, wrong);
    co_await agent.send(Type::data, 1, "\x01old output");
    auto early = co_await session.wait_ready(30ms);
    EXPECT_EQ(early.error().kind(), ErrorKind::timeout);
    co_await agent.send(static_cast<Type>(99), 0, "from the future");
    co_await agent.send(Type::welcome, 0, hello.second + "more fields");
    auto ready = co_await session.wait_ready(5s);
    EXPECT_TRUE(ready.has_value());
    auto silent = co_await session.ping(20ms);
    EXPECT_EQ(silent.error().kind(), ErrorKind::timeout);
  };
  loop.run(body());
}

TEST(HostileAgent, WhoeverBreaksTheProtocolLosesTheConnection) {
  const std::vector<std::pair<Type, std::string>> cases = {
      {Type::data, "\x01" + std::string(32000, 'x')},  // three of them are more than the window
      {Type::data, std::string(1, '\0') + "x"},        // output in the direction of input
      {Type::data, "\x07x"},
      {Type::exit, std::string("\xff\xff\xff\xff", 4)},
      {Type::window, std::string("\0\xff\xff\xff\xff", 5)},
      {Type::window, std::string("\x01\x01\0\0\0", 5)},
      {Type::started, "x"},
      {Type::end, ""},
  };
  for (const auto& [type, payload] : cases) {
    Loop loop;
    auto body = [&]() -> Task<> {
      Hostile agent;
      Session session(co_await current_executor(), std::move(agent.pair.ours));
      bool told = false;
      session.on_close([&](Error) { told = true; });
      co_await agent.welcome();
      EXPECT_TRUE((co_await session.wait_ready(5s)).has_value());
      TaskGroup group(co_await current_executor());
      auto server = [&]() -> Task<> {
        auto exec = co_await agent.expect(Type::exec);
        co_await agent.send(Type::started, exec.first, std::string("\x02\0\0\0\0\x10\0\0", 8));
        for (int i = 0; i < 3; ++i) co_await agent.send(type, exec.first, payload);
      };
      group.spawn("server", server());
      ExecRequest request;
      request.argv = {"x"};
      auto c = co_await session.exec(std::move(request));
      if (c) {
        auto code = co_await (*c)->wait();
        EXPECT_EQ(code.error().kind(), ErrorKind::unavailable);
      }
      EXPECT_FALSE(session.connected()) << static_cast<int>(type);
      EXPECT_TRUE(told);
      co_await group.join();
    };
    loop.run(body());
  }
}

TEST(HostileAgent, ARestartOfTheAgentFailsItsCommandsAndIsGreetedAgain) {
  Loop loop;
  auto body = []() -> Task<> {
    Hostile agent;
    Session session(co_await current_executor(), std::move(agent.pair.ours));
    co_await agent.welcome();
    EXPECT_TRUE((co_await session.wait_ready(5s)).has_value());
    TaskGroup group(co_await current_executor());
    auto server = [&]() -> Task<> {
      auto exec = co_await agent.expect(Type::exec);
      co_await agent.send(Type::started, exec.first, std::string("\x02\0\0\0\0\x10\0\0", 8));
      co_await agent.raw(
          std::string("\x05"
                      "ab\0",
                      4));
      co_await agent.send(Type::announce, 0, "");
      // The cut frame may be noticed before the announcement, so one or two greetings come.
      for (auto hello = co_await agent.expect(Type::hello); !hello.second.empty(); hello = co_await agent.expect(Type::hello))
        co_await agent.send(Type::welcome, 0, hello.second);
    };
    group.spawn("server", server());
    ExecRequest request;
    request.argv = {"x"};
    auto c = co_await session.exec(std::move(request));
    EXPECT_TRUE(c.has_value());
    auto code = co_await (*c)->wait();
    EXPECT_EQ(code.error().kind(), ErrorKind::unavailable);
    auto read = co_await (*c)->read(Channel::output);
    EXPECT_EQ(read.error().kind(), ErrorKind::unavailable);
    EXPECT_TRUE((co_await session.wait_ready(5s)).has_value());
    group.cancel();
    co_await group.join();
  };
  loop.run(body());
}

TEST(HostileAgent, AGuestThatReadsNothingMakesWritersWait) {
  Loop loop;
  auto body = []() -> Task<> {
    Hostile agent;
    Session session(co_await current_executor(), std::move(agent.pair.ours));
    co_await agent.welcome();
    EXPECT_TRUE((co_await session.wait_ready(5s)).has_value());
    TaskGroup group(co_await current_executor());
    auto server = [&]() -> Task<> {
      auto exec = co_await agent.expect(Type::exec);
      co_await agent.send(Type::started, exec.first, std::string("\x02\0\0\0\0\0\0\x01", 8));  // room for 16 MiB
    };
    group.spawn("server", server());
    ExecRequest request;
    request.argv = {"x"};
    auto c = co_await session.exec(std::move(request));
    EXPECT_TRUE(c.has_value());
    bool cancelled = false;
    auto writer = [&]() -> Task<> {
      auto r = co_await (*c)->write(std::string(8u << 20, 'x'));
      cancelled = !r && r.error().kind() == ErrorKind::cancelled;
    };
    auto id = group.spawn("writer", writer());
    auto asked = co_await session.ping(50ms);
    EXPECT_FALSE(asked.has_value());
    group.cancel(id);
    co_await group.join();
    EXPECT_TRUE(cancelled);
  };
  loop.run(body());
}

}  // namespace
}  // namespace virga::agent
