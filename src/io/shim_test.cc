// The shim's client with the real virga-shim.
#include "io/shim.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include <boost/asio/io_context.hpp>
#include <cstdlib>
#include <filesystem>

#include "base/shim_protocol.h"
#include "io/file.h"

namespace virga::io {
namespace {

template <class F>
void run(F body) {
  boost::asio::io_context io;
  TaskGroup group(io.get_executor());
  group.spawn("test", body());
  io.run();
  EXPECT_EQ(group.failures(), 0);
}

class ShimTest : public testing::Test {
 protected:
  ShimTest() {
    // Longer than a socket's address on purpose.
    char name[] = "/tmp/virga-shim-test-XXXXXX";
    base_ = ::mkdtemp(name);
    dir_ = base_ + "/" + std::string(120, 'd');
    EXPECT_TRUE(make_directory(dir_));
  }
  ~ShimTest() override { EXPECT_TRUE(remove_tree(base_)); }

  ShimSpec shell(std::string script) const {
    ShimSpec s;
    s.program = VIRGA_BIN_DIR "/virga-shim";
    s.run_dir = dir_;
    s.argv = {"/bin/sh", "-c", std::move(script)};
    s.env = {"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/"};
    return s;
  }
  static bool lives(pid_t pid) {
    if (::kill(pid, 0) != 0) return false;
    auto stat = read_file("/proc/" + std::to_string(pid) + "/stat");
    return stat && stat->find(") Z ") == std::string::npos;
  }
  static Task<> until_gone(pid_t pid) {
    for (int i = 0; i < 500 && lives(pid); ++i) co_await sleep_for(Milliseconds(10));
    EXPECT_FALSE(lives(pid));
  }
  static Task<std::string> read_until(int fd, std::string_view wanted) {
    std::string got;
    for (int i = 0; i < 1000 && got.find(wanted) == std::string::npos; ++i) {
      char buffer[4096];
      const auto n = ::read(fd, buffer, sizeof buffer);
      if (n > 0)
        got.append(buffer, static_cast<std::size_t>(n));
      else if (n == 0)
        break;
      else
        co_await sleep_for(Milliseconds(5));
    }
    co_return got;
  }
  void expect_clean() const { EXPECT_TRUE(std::filesystem::is_empty(dir_)) << std::filesystem::directory_iterator(dir_)->path(); }

  std::string base_, dir_;
};

TEST_F(ShimTest, ExitStatusReachesUs) {
  run([this]() -> Task<> {
    auto shim = co_await Shim::start(shell("exit 7"));
    EXPECT_TRUE(shim) << shim.error().text();
    if (!shim) co_return;
    auto status = co_await (*shim)->wait_exit();
    EXPECT_EQ(status->code, 7);
    EXPECT_EQ(status->signal, 0);
    EXPECT_TRUE((*shim)->status().exited);
    auto done = co_await (*shim)->dismiss();
    EXPECT_TRUE(done) << done.error().text();
    EXPECT_FALSE(lives((*shim)->status().shim_pid));
    expect_clean();
  });
}

TEST_F(ShimTest, ReconnectsAfterTheConnectionWasDropped) {
  run([this]() -> Task<> {
    pid_t shim_pid, guest_pid;
    std::uint64_t start;
    {
      auto shim = co_await Shim::start(shell("exec sleep 300"));
      EXPECT_TRUE(shim) << shim.error().text();
      if (!shim) co_return;
      shim_pid = (*shim)->status().shim_pid;
      guest_pid = (*shim)->status().guest_pid;
      start = (*shim)->status().guest_start_time;
      EXPECT_EQ(start, process_start_time(guest_pid).value_or(0));
      auto refused = co_await (*shim)->dismiss();
      EXPECT_EQ(refused.error().kind(), ErrorKind::busy) << "a guest that runs is not dismissed";
    }
    auto again = co_await Shim::connect(dir_);
    EXPECT_TRUE(again) << again.error().text();
    if (!again) co_return;
    EXPECT_EQ((*again)->status().shim_pid, shim_pid);
    EXPECT_EQ((*again)->status().guest_pid, guest_pid);
    EXPECT_EQ((*again)->status().guest_start_time, start);
    auto second_start = co_await Shim::start(shell("true"));
    EXPECT_EQ(second_start.error().kind(), ErrorKind::busy);
    auto sent = co_await (*again)->signal(SIGTERM);
    EXPECT_TRUE(sent);
    auto status = co_await (*again)->wait_exit();
    EXPECT_EQ(status->signal, SIGTERM);
    EXPECT_EQ(status->code, 128 + SIGTERM);
    // The status is kept for a daemon that comes later.
    again->reset();
    auto third = co_await Shim::connect(dir_);
    EXPECT_TRUE(third);
    EXPECT_EQ((*third)->status().status.signal, SIGTERM);
    EXPECT_TRUE(co_await (*third)->dismiss());
    auto none = co_await Shim::connect(dir_);
    EXPECT_EQ(none.error().kind(), ErrorKind::not_found);
    expect_clean();
  });
}

TEST_F(ShimTest, StartErrorsArePrecise) {
  run([this]() -> Task<> {
    auto spec = shell("");
    spec.argv = {"/no/such/program"};
    auto none = co_await Shim::start(spec);
    EXPECT_EQ(none.error().kind(), ErrorKind::not_found);
    EXPECT_NE(none.error().text().find("execute '/no/such/program'"), std::string::npos) << none.error().text();
    expect_clean();
    auto group = shell("true");
    group.cgroup_procs = {"/no/such/cgroup.procs"};
    auto no_group = co_await Shim::start(group);
    EXPECT_NE(no_group.error().text().find("join the cgroup"), std::string::npos) << no_group.error().text();
    auto launcher = shell("echo it is broken >&2; sleep 300 & exit 3");
    launcher.pid_file = base_ + "/pid";
    auto failed = co_await Shim::start(launcher);
    EXPECT_EQ(failed.error().kind(), ErrorKind::unavailable);
    EXPECT_NE(failed.error().text().find("code 3: it is broken"), std::string::npos) << failed.error().text();
    expect_clean();
    auto hangs = shell("sleep 300");
    hangs.pid_file = base_ + "/pid";
    auto late = co_await Shim::start(hangs, Milliseconds(100));
    EXPECT_EQ(late.error().kind(), ErrorKind::timeout);
    expect_clean();
  });
}

TEST_F(ShimTest, SocketpairConsoleWithWatchersAndABoundedLog) {
  run([this]() -> Task<> {
    auto spec = shell(
        "while read line; do case $line in flood) yes 0123456789abcdef | head -c 300000;; end) break;; *) echo \"<$line>\";; esac; "
        "done <&7 >&7");
    spec.console = ConsoleSource::socketpair;
    spec.console_fd = 7;
    spec.console_log = base_ + "/console.log";
    spec.console_log_limit = 65536;
    auto shim = co_await Shim::start(spec);
    EXPECT_TRUE(shim) << shim.error().text();
    if (!shim) co_return;
    auto watcher = co_await open_console(dir_);
    auto sleeper = co_await open_console(dir_);  // never reads: must not stop the guest
    EXPECT_TRUE(watcher && sleeper);
    EXPECT_EQ(::write(watcher->get(), "hello\n", 6), 6);
    auto got = co_await read_until(watcher->get(), "<hello>");
    EXPECT_NE(got.find("<hello>"), std::string::npos) << got;
    EXPECT_EQ(::write(watcher->get(), "flood\nlast\nend\n", 15), 15);
    auto status = co_await (*shim)->wait_exit();
    EXPECT_EQ(status->code, 0);
    auto log = read_file(spec.console_log);
    EXPECT_LE(log->size(), 65536u);
    EXPECT_GE(log->size(), 32768u);
    EXPECT_EQ(log->substr(log->size() - 7), "<last>\n");
    EXPECT_TRUE(co_await (*shim)->dismiss());
    EXPECT_EQ((co_await open_console(dir_)).error().kind(), ErrorKind::not_found);
    expect_clean();
  });
}

TEST_F(ShimTest, TerminalConsole) {
  run([this]() -> Task<> {
    auto spec = shell("test -t 0 && test -t 1 && echo terminal; read x; echo got $x; exit 4");
    spec.console = ConsoleSource::pty;
    spec.console_log = base_ + "/console.log";
    auto shim = co_await Shim::start(spec);
    EXPECT_TRUE(shim) << shim.error().text();
    if (!shim) co_return;
    auto watcher = co_await open_console(dir_);
    EXPECT_TRUE(watcher);
    EXPECT_EQ(::write(watcher->get(), "typed\n", 6), 6);
    auto status = co_await (*shim)->wait_exit();
    EXPECT_EQ(status->code, 4);
    auto log = read_file(spec.console_log);
    EXPECT_NE(log->find("terminal"), std::string::npos) << *log;
    EXPECT_NE(log->find("got typed"), std::string::npos) << *log;
    EXPECT_TRUE(co_await (*shim)->dismiss());
  });
}

TEST_F(ShimTest, LauncherLeavesTheGuestBehind) {
  run([this]() -> Task<> {
    auto spec = shell("setsid sleep 300 & echo $! > " + base_ + "/pid");
    spec.pid_file = base_ + "/pid";
    auto shim = co_await Shim::start(spec);
    EXPECT_TRUE(shim) << shim.error().text();
    if (!shim) co_return;
    const auto& status = (*shim)->status();
    EXPECT_TRUE(status.launcher_done);
    EXPECT_GT(status.guest_pid, 1);
    EXPECT_TRUE(lives(status.guest_pid));
    EXPECT_TRUE(co_await (*shim)->signal(SIGKILL));
    auto end = co_await (*shim)->wait_exit();
    EXPECT_EQ(end->signal, SIGKILL);
    EXPECT_TRUE(co_await (*shim)->dismiss());
    // A guest that ends before its launcher does.
    auto quick = shell("(sh -c 'echo $$ > " + base_ + "/pid; exit 5' &); until [ -s " + base_ +
                       "/pid ]; do :; done; while kill -0 $(cat " + base_ + "/pid); do :; done");
    quick.pid_file = base_ + "/pid";
    auto second = co_await Shim::start(quick);
    EXPECT_TRUE(second) << second.error().text();
    if (!second) co_return;
    auto early = co_await (*second)->wait_exit();
    EXPECT_EQ(early->code, 5);
    EXPECT_TRUE(co_await (*second)->dismiss());
    auto lies = shell("echo 1 > " + base_ + "/pid");
    lies.pid_file = base_ + "/pid";
    EXPECT_FALSE(co_await Shim::start(lies)) << "a process that is not the launcher's is not taken";
    expect_clean();
  });
}

TEST_F(ShimTest, DestroyEndsEverything) {
  run([this]() -> Task<> {
    auto shim = co_await Shim::start(shell("trap '' TERM INT HUP; setsid sleep 300 & while true; do sleep 1; done"));
    EXPECT_TRUE(shim) << shim.error().text();
    if (!shim) co_return;
    const pid_t guest = (*shim)->status().guest_pid;
    const pid_t shim_pid = (*shim)->status().shim_pid;
    auto children = read_file("/proc/" + std::to_string(guest) + "/task/" + std::to_string(guest) + "/children");
    auto done = co_await (*shim)->destroy();
    EXPECT_TRUE(done) << done.error().text();
    EXPECT_FALSE(lives(guest));
    EXPECT_FALSE(lives(shim_pid));
    if (children && !children->empty()) EXPECT_FALSE(lives(std::atoi(children->c_str())));
    EXPECT_TRUE(co_await (*shim)->destroy()) << "again is success";
    expect_clean();
  });
}

TEST_F(ShimTest, DiesWithItsParentWhereAsked) {
  run([this]() -> Task<> {
    auto spec = shell("exec sleep 300");
    spec.die_with_parent = true;
    auto shim = co_await Shim::start(spec);
    EXPECT_TRUE(shim) << shim.error().text();
    if (!shim) co_return;
    const pid_t guest = (*shim)->status().guest_pid, parent = (*shim)->status().shim_pid;
    shim->reset();
    co_await until_gone(guest);
    co_await until_gone(parent);
    ::waitpid(parent, nullptr, 0);
    EXPECT_TRUE(co_await Shim::sweep(dir_));
    expect_clean();
  });
}

TEST_F(ShimTest, TheGuestOfAKilledShimDies) {
  run([this]() -> Task<> {
    auto spec = shell("setsid sleep 300 & echo $! > " + base_ + "/pid");
    spec.pid_file = base_ + "/pid";
    auto shim = co_await Shim::start(spec);
    EXPECT_TRUE(shim) << shim.error().text();
    if (!shim) co_return;
    const pid_t guest = (*shim)->status().guest_pid;
    ::kill((*shim)->status().shim_pid, SIGKILL);
    auto end = co_await (*shim)->wait_exit();
    EXPECT_EQ(end.error().kind(), ErrorKind::unavailable);
    EXPECT_EQ((co_await Shim::connect(dir_)).error().kind(), ErrorKind::not_found);
    EXPECT_TRUE(co_await Shim::sweep(dir_));
    co_await until_gone(guest);
    expect_clean();
    auto direct = co_await Shim::start(shell("exec sleep 300"));
    EXPECT_TRUE(direct) << direct.error().text();
    const pid_t second = (*direct)->status().guest_pid;
    ::kill((*direct)->status().shim_pid, SIGKILL);
    co_await until_gone(second);
    EXPECT_TRUE(co_await (*direct)->destroy());
    expect_clean();
  });
}

TEST_F(ShimTest, AStoppedShimIsDestroyedToo) {
  run([this]() -> Task<> {
    auto shim = co_await Shim::start(shell("exec sleep 300"));
    EXPECT_TRUE(shim) << shim.error().text();
    const pid_t guest = (*shim)->status().guest_pid;
    ::kill((*shim)->status().shim_pid, SIGSTOP);
    EXPECT_TRUE(co_await (*shim)->destroy());
    co_await until_gone(guest);
    expect_clean();
  });
}

TEST_F(ShimTest, DropsEverythingAndPassesOnlyWhatIsNamed) {
  if (::geteuid() != 0) GTEST_SKIP() << "needs root to drop to another user";
  run([this]() -> Task<> {
    auto spec = shell("cat /proc/self/status; ls /proc/self/fd | tr '\\n' ' '; id -u; id -G; cat /proc/self/oom_score_adj");
    spec.drop_to = {{54321, 54322}};
    spec.output_log = base_ + "/out.log";
    int pipe_ends[2];
    EXPECT_EQ(::pipe(pipe_ends), 0);
    spec.fds = {{pipe_ends[0], 9}};
    auto shim = co_await Shim::start(spec);
    ::close(pipe_ends[0]);
    ::close(pipe_ends[1]);
    EXPECT_TRUE(shim) << shim.error().text();
    if (!shim) co_return;
    auto end = co_await (*shim)->wait_exit();
    EXPECT_EQ(end->code, 0);
    auto out = read_file(spec.output_log).value_or("");
    for (const char* line : {"CapEff:\t0000000000000000", "CapPrm:\t0000000000000000", "CapBnd:\t0000000000000000",
                             "NoNewPrivs:\t1", "Uid:\t54321\t54321\t54321\t54321", "\n0 1 2 3 9 54321\n54322\n0\n"})
      EXPECT_NE(out.find(line), std::string::npos) << line << " is missing in " << out;
    EXPECT_TRUE(co_await (*shim)->dismiss());
  });
}

TEST_F(ShimTest, StandardStreamsMayBeGiven) {
  run([this]() -> Task<> {
    auto spec = shell("cat; echo err >&2");
    int in[2], out[2];
    EXPECT_EQ(::pipe2(in, O_CLOEXEC), 0);
    EXPECT_EQ(::pipe2(out, O_CLOEXEC), 0);
    spec.fds = {{in[0], 0}, {out[1], 1}, {out[1], 2}};
    auto shim = co_await Shim::start(spec);
    EXPECT_TRUE(shim) << shim.error().text();
    ::close(in[0]);
    ::close(out[1]);
    EXPECT_EQ(::write(in[1], "abc", 3), 3);
    ::close(in[1]);
    auto end = co_await (*shim)->wait_exit();
    EXPECT_EQ(end->code, 0);
    char text[32] = {};
    EXPECT_EQ(::read(out[0], text, sizeof text - 1), 7);
    EXPECT_STREQ(text, "abcerr\n");
    ::close(out[0]);
    EXPECT_TRUE(co_await (*shim)->dismiss());
  });
}

TEST_F(ShimTest, IsSmall) {
  struct stat st{};
  ASSERT_EQ(::stat(VIRGA_BIN_DIR "/virga-shim", &st), 0);
  EXPECT_LT(st.st_size, 1 << 20);
  run([this]() -> Task<> {
    auto shim = co_await Shim::start(shell("exec sleep 300"));
    EXPECT_TRUE(shim) << shim.error().text();
    auto text = read_file("/proc/" + std::to_string((*shim)->status().shim_pid) + "/status").value_or("");
    auto at = text.find("VmRSS:");
    EXPECT_NE(at, std::string::npos);
    EXPECT_LT(std::atoi(text.c_str() + at + 6), 1024) << "kB";
    EXPECT_TRUE(co_await (*shim)->destroy());
  });
}

}  // namespace
}  // namespace virga::io
