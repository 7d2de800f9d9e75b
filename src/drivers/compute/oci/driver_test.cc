// Real containers: busybox as a whole system, the real runtime, the real virga-shim.
#include "drivers/compute/oci/driver.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <boost/asio/io_context.hpp>
#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "base/random.h"
#include "io/cgroup.h"
#include "io/file.h"
#include "io/process.h"
#include "io/shim.h"

namespace virga::compute {
namespace {

namespace fs = std::filesystem;
constexpr IdRange ids{1'000'000, 65'536};

class OciDriverTest : public testing::Test {
 protected:
  void SetUp() override {
    if (::geteuid() != 0) GTEST_SKIP() << "needs root to make containers";
    if (!fs::exists("/bin/busybox")) GTEST_SKIP() << "needs busybox-static for a root";
    char name[] = "/tmp/virga-oci-XXXXXX";
    base_ = ::mkdtemp(name);
    ::chmod(base_.c_str(), 0711);
    tag_ = "test-" + std::to_string(::getpid());
    for (const char* d : {"/run", "/log"}) ASSERT_TRUE(io::make_directory(base_ + d, 0711));
    make_rootfs();
  }
  void TearDown() override {
    if (base_.empty()) return;
    auto group = io::CgroupLayout::probe().group("virga/" + tag_);
    EXPECT_FALSE(group.exists()) << "control groups are left";
    EXPECT_TRUE(group.kill_all());
    EXPECT_TRUE(group.remove());
    auto mounts = io::read_file("/proc/self/mountinfo").value_or("");
    EXPECT_EQ(mounts.find(base_), std::string::npos) << "mounts are left";
    EXPECT_TRUE(io::remove_tree(base_));
  }

  void make_rootfs() {
    const auto root = base_ + "/rootfs";
    for (const char* d : {"", "/bin", "/sbin", "/etc", "/root", "/tmp", "/home", "/var"})
      ASSERT_TRUE(io::make_directory(root + d, 0755));
    fs::copy_file("/bin/busybox", root + "/bin/busybox");
    for (const char* a : {"sh",   "cat",  "echo",   "sleep",    "ls",   "id",    "env",      "pwd", "stty", "yes",
                          "head", "grep", "reboot", "poweroff", "kill", "mount", "hostname", "tty", "wc",   "dd"})
      fs::create_symlink("busybox", root + "/bin/" + a);
    fs::create_symlink("../bin/busybox", root + "/sbin/init");
    std::ofstream(root + "/etc/inittab") << "::sysinit:/bin/sh -c 'echo booted as $(hostname) > /dev/console; echo up > /tmp/up'\n";
    std::ofstream(root + "/etc/passwd") << "root:x:0:0:root:/root:/bin/sh\nweb:x:1000:1000::/home:/bin/sh\n";
    std::ofstream(root + "/etc/os-release") << "NAME=Tiny\nVERSION_ID=7\n";
    fs::permissions(root + "/tmp", fs::perms::all | fs::perms::sticky_bit);
    ASSERT_EQ(::lchown(root.c_str(), ids.base, ids.base), 0);
    for (const auto& e : fs::recursive_directory_iterator(root)) ASSERT_EQ(::lchown(e.path().c_str(), ids.base, ids.base), 0);
  }

  GuestSpec spec() {
    GuestSpec s;
    s.id = random_uuid();
    s.name = "tiny";
    s.run_dir = base_ + "/run/" + s.id;
    s.log_dir = base_ + "/log";
    s.ids = ids;
    s.rootfs = base_ + "/rootfs";
    EXPECT_TRUE(io::make_directory(s.run_dir, 0711));
    return s;
  }

  /// Runs the body with a driver; the driver is shut down afterwards.
  template <class F>
  void with_driver(F body) {
    boost::asio::io_context io;
    BlockingPool pool("test", 2);
    TaskGroup group(io.get_executor());
    auto main = [&]() -> Task<> {
      auto driver = co_await open(io.get_executor(), pool);
      if (driver) {
        co_await body(*driver);
        co_await driver->shut_down();
      }
    };
    group.spawn("test", main());
    io.run();
    EXPECT_EQ(group.failures(), 0);
  }
  Task<std::unique_ptr<Driver>> open(Executor executor, BlockingPool& pool) {
    OciOptions options{.shim_program = VIRGA_BIN_DIR "/virga-shim",
                       .files_program = VIRGA_BIN_DIR "/virga-files",
                       .run_root = base_ + "/oci",
                       .cgroup_tag = tag_,
                       .pool = pool,
                       .executor = executor};
    auto driver = co_await open_oci_driver(std::move(options));
    EXPECT_TRUE(driver) << driver.error().text();
    if (!driver) co_return nullptr;
    EXPECT_NE((*driver)->info().version, "") << ((*driver)->info().warnings.empty() ? "" : (*driver)->info().warnings[0]);
    co_return std::move(*driver);
  }

  Task<bool> launch(Driver& driver, GuestSpec s) {
    auto created = co_await driver.create(s);
    EXPECT_TRUE(created) << created.error().text();
    if (!created) co_return false;
    EXPECT_EQ(created->state, State::created);
    EXPECT_GT(created->pid, 1);
    auto started = co_await driver.start(s.id);
    EXPECT_TRUE(started) << started.error().text();
    EXPECT_EQ(driver.status(s.id).state, State::running);
    co_return started.has_value();
  }
  Task<> until(std::function<bool()> what, const char* name) {
    for (int i = 0; i < 1000 && !what(); ++i) co_await sleep_for(Milliseconds(10));
    EXPECT_TRUE(what()) << name;
  }
  Task<> until_up() {
    co_await until([this] { return io::exists(base_ + "/rootfs/tmp/up"); }, "the container boots");
  }
  struct Output {
    int code = -1;
    std::string out, err;
  };
  static Task<std::string> drain(ExecSession& session, ExecSession::Stream stream) {
    std::string all;
    for (;;) {
      auto part = co_await session.read(stream);
      EXPECT_TRUE(part) << part.error().text();
      if (!part || part->empty()) break;
      all += *part;
    }
    co_return all;
  }
  static Task<Output> run(Driver& driver, std::string id, ExecSpec s, std::string input = {}) {
    Output o;
    auto session = co_await driver.exec()->exec(id, std::move(s));
    EXPECT_TRUE(session) << session.error().text();
    if (!session) co_return o;
    if (!input.empty()) EXPECT_TRUE(co_await (*session)->write(input));
    EXPECT_TRUE(co_await (*session)->close_input());
    o.out = co_await drain(**session, ExecSession::Stream::output);
    o.err = co_await drain(**session, ExecSession::Stream::error);
    o.code = (co_await (*session)->wait()).value_or(-2);
    co_return o;
  }
  static Task<Output> shell(Driver& driver, std::string id, std::string script) {
    ExecSpec s;
    s.command = {"sh", "-c", std::move(script)};
    co_return co_await run(driver, std::move(id), std::move(s));
  }
  static bool lives(pid_t pid) {
    auto stat = io::read_file("/proc/" + std::to_string(pid) + "/stat");
    return stat && stat->find(") Z ") == std::string::npos;
  }
  void expect_gone(const GuestSpec& s, pid_t pid) {
    EXPECT_FALSE(lives(pid));
    EXPECT_TRUE(fs::is_empty(s.run_dir)) << fs::directory_iterator(s.run_dir)->path();
    EXPECT_FALSE(io::exists(base_ + "/oci/" + s.id));
    EXPECT_FALSE(io::CgroupLayout::probe().group("virga/" + tag_ + "/" + s.id).exists());
  }

  std::string base_, tag_;
};

TEST_F(OciDriverTest, LivesAndIsTakenAway) {
  with_driver([this](Driver& driver) -> Task<> {
    std::vector<GuestEvent> events;
    driver.on_event([&](GuestEvent e) { events.push_back(std::move(e)); });
    auto s = spec();
    s.memory = Bytes{256} << 20;
    s.cpus = 1;
    s.processes = 200;
    if (!co_await launch(driver, s)) co_return;
    const auto status = driver.status(s.id);
    EXPECT_EQ(io::process_start_time(status.pid).value_or(0), status.start_time);
    auto again = co_await driver.create(s);
    EXPECT_EQ(again.error().kind(), ErrorKind::busy);
    EXPECT_TRUE(co_await driver.start(s.id)) << "runs already";
    co_await until_up();
    co_await until(
        [&] { return io::read_file(base_ + "/log/console.log").value_or("").find("booted as tiny") != std::string::npos; },
        "console output");

    // Its own ids, namespaces and limits, as seen from outside and inside.
    struct stat st{};
    EXPECT_EQ(::stat(("/proc/" + std::to_string(status.pid)).c_str(), &st), 0);
    EXPECT_EQ(st.st_uid, ids.base);
    auto inside = co_await shell(driver, s.id,
                                 "id -u; cat /proc/self/uid_map; grep Seccomp: /proc/self/status; ls /proc/self/fd | wc -l; cat "
                                 "/proc/kcore | wc -c; echo x > /proc/sys/vm/drop_caches || echo denied");
    EXPECT_EQ(inside.code, 0) << inside.err;
    EXPECT_NE(inside.out.find("0\n         0    1000000      65536\nSeccomp:\t2\n4\n0\ndenied\n"), std::string::npos)
        << inside.out << inside.err;
    // S50: the init holds its terminal and nothing of ours.
    for (const auto& fd : fs::directory_iterator("/proc/" + std::to_string(status.pid) + "/fd")) {
      const auto target = fs::read_symlink(fd).string();
      EXPECT_TRUE(target.starts_with("/dev/")) << fd.path() << " is " << target;
    }
    auto stats = co_await driver.stats(s.id);
    EXPECT_TRUE(stats) << stats.error().text();
    if (stats) {
      EXPECT_EQ(stats->memory_total, Bytes{256} << 20);
      EXPECT_GE(stats->processes, 1);
      EXPECT_GT(stats->cpu_ns, 0u);
      EXPECT_EQ(stats->os_name, "Tiny");
      EXPECT_EQ(stats->os_version, "7");
      EXPECT_EQ(stats->host_name, "tiny");
      EXPECT_EQ(stats->interfaces.size(), 1u) << "lo";
      if (!stats->interfaces.empty()) EXPECT_EQ(stats->interfaces[0].type, "loopback");
    }
    EXPECT_TRUE(co_await driver.set_limits(s.id, {.cpus = 2, .memory = Bytes{128} << 20, .processes = 100}));
    EXPECT_EQ((co_await driver.stats(s.id))->memory_total, Bytes{128} << 20);

    EXPECT_TRUE(co_await driver.pause(s.id));
    EXPECT_EQ(driver.status(s.id).state, State::paused);
    ExecSpec ls;
    ls.command = {"ls"};
    EXPECT_EQ((co_await driver.exec()->exec(s.id, ls)).error().kind(), ErrorKind::unavailable);
    EXPECT_TRUE(co_await driver.resume(s.id));
    EXPECT_EQ(driver.status(s.id).state, State::running);

    auto stopped = co_await driver.stop(s.id, Milliseconds(20'000));
    EXPECT_TRUE(stopped) << stopped.error().text();
    EXPECT_EQ(driver.status(s.id).state, State::stopped);
    EXPECT_TRUE(co_await driver.stop(s.id, Milliseconds(1))) << "does not run: success";
    EXPECT_TRUE(events.empty()) << "stop() is no event";
    EXPECT_TRUE(co_await driver.remove(s.id));
    EXPECT_TRUE(co_await driver.remove(s.id)) << "absent is success";
    EXPECT_EQ(driver.status(s.id).state, State::absent);
    expect_gone(s, status.pid);
  });
}

TEST_F(OciDriverTest, EventsOfGuestsThatEndByThemselves) {
  with_driver([this](Driver& driver) -> Task<> {
    std::vector<GuestEvent> events;
    driver.on_event([&](GuestEvent e) { events.push_back(std::move(e)); });
    auto s = spec();
    for (const char* how : {"reboot -f", "poweroff -f"}) {
      events.clear();
      if (!co_await launch(driver, s)) co_return;
      co_await until_up();
      (void)co_await shell(driver, s.id, how);
      co_await until([&] { return !events.empty(); }, how);
      EXPECT_EQ(events.size(), 1u);
      if (events.empty()) co_return;
      EXPECT_EQ(events[0].id, s.id);
      EXPECT_EQ(events[0].reboot, std::string(how) == "reboot -f");
      EXPECT_EQ(events[0].exit_code, 0);
      EXPECT_EQ(driver.status(s.id).state, State::stopped);
      // Started again over what is left, as the engine does after a reboot.
    }
    EXPECT_TRUE(co_await driver.remove(s.id));
    expect_gone(s, -1);
  });
}

TEST_F(OciDriverTest, ForcedAtAnyMoment) {
  with_driver([this](Driver& driver) -> Task<> {
    int events = 0;
    driver.on_event([&](GuestEvent) { ++events; });
    auto s = spec();
    auto created = co_await driver.create(s);
    EXPECT_TRUE(created) << created.error().text();
    EXPECT_TRUE(co_await driver.remove(s.id)) << "created only";
    expect_gone(s, created ? created->pid : -1);
    if (!co_await launch(driver, s)) co_return;
    const auto pid = driver.status(s.id).pid;
    EXPECT_TRUE(co_await driver.pause(s.id));
    EXPECT_TRUE(co_await driver.remove(s.id)) << "paused";
    expect_gone(s, pid);
    if (!co_await launch(driver, s)) co_return;
    auto late = co_await driver.stop(s.id, Milliseconds(1));
    EXPECT_EQ(late.error().kind(), ErrorKind::timeout);
    EXPECT_TRUE(co_await driver.remove(s.id)) << "while it shuts down";
    EXPECT_EQ(events, 0);
    // A stop of what was created only.
    created = co_await driver.create(s);
    EXPECT_TRUE(created);
    EXPECT_TRUE(co_await driver.stop(s.id, Milliseconds(5'000)));
    EXPECT_TRUE(co_await driver.remove(s.id));
    expect_gone(s, -1);
  });
}

TEST_F(OciDriverTest, ADaemonThatComesLaterAdoptsThem) {
  auto s = spec();
  GuestStatus before;
  with_driver([&](Driver& driver) -> Task<> {
    co_await launch(driver, s);
    co_await until_up();
    before = driver.status(s.id);
  });
  EXPECT_TRUE(lives(before.pid)) << "the guest outlives its daemon";
  with_driver([&](Driver& driver) -> Task<> {
    std::vector<GuestEvent> events;
    driver.on_event([&](GuestEvent e) { events.push_back(std::move(e)); });
    auto adopted = co_await driver.adopt(s.id, s.run_dir);
    EXPECT_TRUE(adopted) << adopted.error().text();
    EXPECT_EQ(adopted->state, State::running);
    EXPECT_EQ(adopted->pid, before.pid);
    EXPECT_EQ(adopted->start_time, before.start_time);
    auto r = co_await shell(driver, s.id, "echo here");
    EXPECT_EQ(r.out, "here\n") << r.err;
    EXPECT_EQ((co_await driver.stats(s.id))->os_name, "Tiny") << "the root is remembered";
    EXPECT_TRUE(co_await driver.pause(s.id));
  });
  with_driver([&](Driver& driver) -> Task<> {
    auto adopted = co_await driver.adopt(s.id, s.run_dir);
    EXPECT_EQ(adopted->state, State::paused);
    EXPECT_TRUE(co_await driver.resume(s.id));
  });
  // It ends while no daemon lives.
  ::kill(before.pid, SIGKILL);
  with_driver([&](Driver& driver) -> Task<> {
    std::vector<GuestEvent> events;
    driver.on_event([&](GuestEvent e) { events.push_back(std::move(e)); });
    co_await until([&] { return !lives(before.pid); }, "the end");
    auto adopted = co_await driver.adopt(s.id, s.run_dir);
    EXPECT_TRUE(adopted) << adopted.error().text();
    co_await until([&] { return events.size() == 1; }, "an event for what was missed");
    EXPECT_EQ(driver.status(s.id).state, State::stopped);
    EXPECT_TRUE(co_await driver.remove(s.id));
    expect_gone(s, before.pid);
    auto none = co_await driver.adopt(s.id, s.run_dir);
    EXPECT_EQ(none->state, State::absent);
  });
}

TEST_F(OciDriverTest, ALostShimTakesItsContainerAlong) {
  auto s = spec();
  with_driver([&](Driver& driver) -> Task<> {
    std::vector<GuestEvent> events;
    driver.on_event([&](GuestEvent e) { events.push_back(std::move(e)); });
    if (!co_await launch(driver, s)) co_return;
    auto shim = co_await io::Shim::connect(s.run_dir);
    EXPECT_TRUE(shim);
    ::kill((*shim)->status().shim_pid, SIGKILL);
    co_await until([&] { return events.size() == 1; }, "an event");
    EXPECT_FALSE(lives(driver.status(s.id).pid));
    EXPECT_TRUE(co_await driver.remove(s.id));
    expect_gone(s, -1);
    // And where no daemon lived meanwhile.
    if (!co_await launch(driver, s)) co_return;
  });
  pid_t init = -1, shim_pid = -1;
  with_driver([&](Driver& driver) -> Task<> {
    init = (co_await driver.adopt(s.id, s.run_dir))->pid;
    shim_pid = (*co_await io::Shim::connect(s.run_dir))->status().shim_pid;
  });
  ::kill(shim_pid, SIGKILL);
  ::waitpid(shim_pid, nullptr, 0);
  with_driver([&](Driver& driver) -> Task<> {
    auto adopted = co_await driver.adopt(s.id, s.run_dir);
    EXPECT_EQ(adopted->state, State::absent);
    EXPECT_TRUE(co_await driver.remove(s.id));
    expect_gone(s, init);
  });
}

TEST_F(OciDriverTest, ADaemonKilledAtAnyMomentLeavesNothingThatStays) {
  auto s = spec();
  for (int moment = 0; moment < 16; ++moment) {
    ASSERT_TRUE(io::make_directory(s.run_dir, 0711));
    const pid_t daemon = ::fork();
    if (daemon == 0) {
      with_driver([&](Driver& driver) -> Task<> {
        for (;;) {
          if (!co_await driver.create(s)) ::_exit(1);
          (void)co_await driver.start(s.id);
          ExecSpec e;
          e.command = {"sleep", "1000"};
          auto session = co_await driver.exec()->exec(s.id, e);
          (void)co_await driver.remove(s.id);
        }
      });
      ::_exit(0);
    }
    // Spread over one round of about 120 ms that begins once the runtimes are probed: the guest's configuration appears.
    for (int i = 0; i < 2000 && !io::exists(s.run_dir + "/config.json"); ++i) ::usleep(1000);
    ::usleep(static_cast<useconds_t>(moment) * 8'000);
    ::kill(daemon, SIGKILL);
    int status = 0;
    ::waitpid(daemon, &status, 0);
    ASSERT_TRUE(WIFSIGNALED(status)) << "the daemon failed by itself";
    with_driver([&](Driver& driver) -> Task<> {
      auto adopted = co_await driver.adopt(s.id, s.run_dir);
      EXPECT_TRUE(adopted) << adopted.error().text();
      pid_t pid = -1;
      if (adopted && adopted->state == State::running) {
        pid = adopted->pid;
        auto r = co_await shell(driver, s.id, "echo works");
        EXPECT_EQ(r.out, "works\n") << "moment " << moment;
      }
      auto removed = co_await driver.remove(s.id);
      EXPECT_TRUE(removed) << removed.error().text() << " at moment " << moment;
      expect_gone(s, pid);
      if (moment % 4 == 0) {  // and a new one of the same name comes up
        EXPECT_TRUE(co_await launch(driver, s));
        EXPECT_TRUE(co_await driver.remove(s.id));
      }
    });
    if (HasFailure()) return;
  }
}

TEST_F(OciDriverTest, ManyAtOnce) {
  with_driver([this](Driver& driver) -> Task<> {
    constexpr int guests = 10;
    std::vector<GuestSpec> specs;
    for (int i = 0; i < guests; ++i) specs.push_back(spec());
    int works = 0;
    auto life = [&](GuestSpec s) -> Task<> {
      if (!co_await launch(driver, s)) co_return;
      for (int i = 0; i < 3; ++i) {
        auto r = co_await shell(driver, s.id, "echo $((40+2)); exit 5");
        EXPECT_EQ(r.out, "42\n") << r.err;
        works += r.code == 5;
      }
      EXPECT_TRUE(co_await driver.pause(s.id));
      EXPECT_TRUE(co_await driver.resume(s.id));
      auto removed = co_await driver.remove(s.id);
      EXPECT_TRUE(removed) << removed.error().text();
    };
    TaskGroup group(co_await current_executor());
    for (const auto& s : specs) group.spawn("life", life(s));
    co_await group.join();
    EXPECT_EQ(works, guests * 3);
    for (const auto& s : specs) expect_gone(s, -1);
  });
}

TEST_F(OciDriverTest, AProbeThatWasCutShortIsTakenAway) {
  const auto group = io::CgroupLayout::probe().group("virga/" + tag_ + "/probe-0123");
  ASSERT_TRUE(group.create());
  ASSERT_TRUE(io::make_directory(base_ + "/oci", 0711));
  ASSERT_TRUE(io::make_directory(base_ + "/oci/probe-0123", 0711));
  with_driver([](Driver&) -> Task<> { co_return; });
  EXPECT_FALSE(group.exists());
  EXPECT_TRUE(fs::is_empty(base_ + "/oci"));
}

TEST_F(OciDriverTest, ExecStreamsCodesAndEnvironment) {
  with_driver([this](Driver& driver) -> Task<> {
    auto s = spec();
    if (!co_await launch(driver, s)) co_return;
    auto r = co_await shell(driver, s.id, "pwd; env; echo oops >&2; exit 42");
    EXPECT_EQ(r.code, 42);
    EXPECT_EQ(r.err, "oops\n");
    for (const char* line : {"/root\n", "HOME=/root\n", "USER=root\n", "PATH=/usr/local/sbin:"})
      EXPECT_NE(r.out.find(line), std::string::npos) << line << r.out;
    ExecSpec cat;
    cat.command = {"cat"};
    cat.uid = cat.gid = 1000;
    cat.environment = {{"X", "y z"}};
    auto big = std::string(300'000, 'q') + "end";
    auto echoed = [&]() -> Task<Output> {
      // More than the pipes hold: who writes must wait for who reads.
      auto session = co_await driver.exec()->exec(s.id, cat);
      EXPECT_TRUE(session) << session.error().text();
      Output o;
      if (!session) co_return o;
      TaskGroup writer(co_await current_executor());
      auto feed = [&]() -> Task<> {
        EXPECT_TRUE(co_await (*session)->write(big));
        EXPECT_TRUE(co_await (*session)->close_input());
      };
      writer.spawn("writer", feed());
      o.out = co_await drain(**session, ExecSession::Stream::output);
      o.code = (co_await (*session)->wait()).value_or(-2);
      co_await writer.join();
      co_return o;
    };
    auto copied = co_await echoed();
    EXPECT_EQ(copied.code, 0);
    EXPECT_EQ(copied.out, big);
    ExecSpec who;
    who.command = {"sh", "-c", "id -u; id -g; pwd; echo $X"};
    who.uid = who.gid = 1000;
    who.environment = {{"X", "y z"}};
    auto as_web = co_await run(driver, s.id, who);
    EXPECT_EQ(as_web.out, "1000\n1000\n/home\ny z\n") << as_web.err;
    who.command = {"pwd"};
    who.cwd = "/tmp";
    EXPECT_EQ((co_await run(driver, s.id, who)).out, "/tmp\n");

    ExecSpec none;
    none.command = {"no-such-program"};
    const auto absent = co_await run(driver, s.id, none);
    EXPECT_EQ(absent.code, 127);
    EXPECT_EQ(absent.err, "'no-such-program': command not found\n");
    none.command = {"/no/such/path"};
    EXPECT_EQ((co_await run(driver, s.id, none)).code, 127);
    none.command = {"/etc/passwd"};
    EXPECT_EQ((co_await run(driver, s.id, none)).code, 126);
    none.command = {"pwd"};
    none.cwd = "/proc/self/fd/7";
    EXPECT_EQ((co_await driver.exec()->exec(s.id, none)).error().kind(), ErrorKind::invalid);
    EXPECT_EQ((co_await driver.exec()->exec(random_uuid(), who)).error().kind(), ErrorKind::not_found);

    // Something in the background keeps the stream open: the command's end is the end.
    auto background = co_await shell(driver, s.id, "sleep 1000 & echo started");
    EXPECT_EQ(background.out, "started\n");
    EXPECT_EQ(background.code, 0);

    ExecSpec sleeper;
    sleeper.command = {"sleep", "1000"};
    auto session = co_await driver.exec()->exec(s.id, sleeper);
    EXPECT_TRUE(session);
    EXPECT_TRUE(co_await (*session)->signal(SIGTERM));
    EXPECT_EQ((co_await (*session)->wait()).value_or(-2), 128 + SIGTERM);
    session->reset();
    auto gone = [&] { return !io::exists(s.run_dir + "/exec") || fs::is_empty(s.run_dir + "/exec"); };
    co_await until(gone, "session directories are removed");
    EXPECT_TRUE(co_await driver.remove(s.id));
    expect_gone(s, -1);
  });
}

TEST_F(OciDriverTest, ExecWithATerminal) {
  with_driver([this](Driver& driver) -> Task<> {
    auto s = spec();
    if (!co_await launch(driver, s)) co_return;
    ExecSpec i;
    i.command = {"sh", "-c", "tty; stty size; read x; stty size; echo \"got $x\"; echo err >&2; exit 3"};
    i.interactive = true;
    i.columns = 101;
    i.rows = 33;
    auto session = co_await driver.exec()->exec(s.id, i);
    EXPECT_TRUE(session) << session.error().text();
    if (!session) co_return;
    std::string out;
    while (out.find("33 101") == std::string::npos) {
      auto part = co_await (*session)->read(ExecSession::Stream::output);
      EXPECT_TRUE(part && !part->empty());
      if (!part || part->empty()) co_return;
      out += *part;
    }
    EXPECT_NE(out.find("/dev/pts/"), std::string::npos) << out;
    EXPECT_TRUE(co_await (*session)->resize(120, 40));
    EXPECT_TRUE(co_await (*session)->write("typed\n"));
    out = co_await drain(**session, ExecSession::Stream::output);
    EXPECT_NE(out.find("40 120"), std::string::npos) << out;
    EXPECT_NE(out.find("got typed"), std::string::npos) << out;
    EXPECT_NE(out.find("err"), std::string::npos) << out;
    EXPECT_EQ((co_await (*session)->wait()).value_or(-2), 3);
    EXPECT_EQ((co_await (*session)->read(ExecSession::Stream::error)).value_or("x"), "");
    session->reset();
    // A session that is destroyed kills its command.
    i.command = {"sh", "-c", "echo $$ > /tmp/pid; exec sleep 1000"};
    auto killed = co_await driver.exec()->exec(s.id, i);
    EXPECT_TRUE(killed);
    co_await until([&] { return io::exists(base_ + "/rootfs/tmp/pid"); }, "the command runs");
    killed->reset();
    auto alone = [&] {
      for (pid_t p : io::CgroupLayout::probe().group("virga/" + tag_ + "/" + s.id).processes())
        if (io::read_file("/proc/" + std::to_string(p) + "/cmdline").value_or("").starts_with("sleep")) return false;
      return true;
    };
    co_await until(alone, "the command is killed");
    EXPECT_TRUE(co_await driver.remove(s.id));
  });
}

TEST_F(OciDriverTest, OutputThatNobodyReadsStopsTheCommandOnly) {
  with_driver([this](Driver& driver) -> Task<> {
    auto s = spec();
    if (!co_await launch(driver, s)) co_return;
    ExecSpec loud;
    loud.command = {"yes"};
    auto session = co_await driver.exec()->exec(s.id, loud);
    EXPECT_TRUE(session);
    // S19: after the pipe is full the command sleeps in its write, and we hold none of it.
    auto pid = [&]() -> pid_t {
      for (pid_t p : io::CgroupLayout::probe().group("virga/" + tag_ + "/" + s.id).processes())
        if (io::read_file("/proc/" + std::to_string(p) + "/cmdline").value_or("").starts_with("yes")) return p;
      return -1;
    };
    co_await until(
        [&] {
          return pid() > 0 &&
                 io::read_file("/proc/" + std::to_string(pid()) + "/wchan").value_or("pipe").find("pipe") != std::string::npos;
        },
        "blocked");
    auto part = co_await (*session)->read(ExecSession::Stream::output);
    EXPECT_TRUE(part && !part->empty() && part->size() <= 65536u);
    EXPECT_TRUE(co_await (*session)->signal(SIGKILL));
    EXPECT_EQ((co_await (*session)->wait()).value_or(-2), 137);
    session->reset();
    EXPECT_TRUE(co_await driver.remove(s.id));
  });
}

TEST_F(OciDriverTest, FailedStartsLeaveNothing) {
  with_driver([this](Driver& driver) -> Task<> {
    auto s = spec();
    auto bad = s;
    bad.rootfs = base_ + "/none";
    EXPECT_FALSE(co_await driver.create(bad));
    expect_gone(s, -1);
    fs::remove(base_ + "/rootfs/sbin/init");
    auto no_init = co_await driver.create(s);
    EXPECT_NE(no_init.error().text().find("/sbin/init"), std::string::npos) << no_init.error().text();
    // The runtime itself refuses: an init it may not execute is found out by it alone.
    std::ofstream(base_ + "/rootfs/sbin/init") << "#!/no/such/interpreter\n";
    ::chmod((base_ + "/rootfs/sbin/init").c_str(), 0755);
    fs::remove(base_ + "/rootfs/dev");
    fs::create_symlink("/etc", base_ + "/rootfs/dev");
    auto linked = co_await driver.create(s);
    EXPECT_EQ(linked.error().kind(), ErrorKind::invalid) << linked.error().text();
    expect_gone(s, -1);
    EXPECT_EQ(driver.status(s.id).state, State::absent);
    EXPECT_EQ((co_await driver.start(s.id)).error().kind(), ErrorKind::not_found);
    EXPECT_TRUE(co_await driver.stop(s.id, Milliseconds(1)));
  });
}

}  // namespace
}  // namespace virga::compute
