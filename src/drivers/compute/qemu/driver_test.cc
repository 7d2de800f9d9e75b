// The driver with real QEMU and a tiny real guest, emulated: a few boots of some seconds each.
#include "drivers/compute/qemu/driver.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <boost/asio/io_context.hpp>
#include <filesystem>
#include <fstream>
#include <set>

#include "base/random.h"
#include "io/file.h"
#include "io/netlink.h"
#include "io/process.h"
#include "io/shim.h"

namespace virga::compute {
namespace {

namespace fs = std::filesystem;
using namespace std::chrono_literals;

constexpr std::uint32_t guest_user = 1'234'500;

/// Kernel and initrd are made once for all tests.
class Qemu : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    if (const char* given = std::getenv("VIRGA_TEST_BASE"))  // a process that another one of us looks after
      base = given;
    else
      make_guest();
    // The taps live in a network namespace of this program's own, which goes away with it. Making the guest may have needed the
    // network.
    if (missing.empty() && ::unshare(CLONE_NEWNET) != 0) missing = "needs root (a network namespace)";
  }
  static void make_guest() {
    char pattern[] = "/tmp/virga-qemu-test-XXXXXX";
    base = ::mkdtemp(pattern);
    fs::permissions(base, fs::perms(0711));
    const auto script = fs::path(VIRGA_SOURCE_DIR "/../tests/support/tiny_initrd.sh");
    boost::asio::io_context io;
    TaskGroup group(io.get_executor());
    auto make = [&]() -> Task<> {
      io::ProcessSpec spec;
      spec.argv = {script.string(), VIRGA_BIN_DIR "/virga-agent", base + "/guest"};
      spec.env = {"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root"};
      auto made = co_await io::check_process(std::move(spec), {.timeout = 300s});
      if (!made) missing = made.error().text();
      // One file as strict image stores keep it, and one that everybody may read: both must boot.
      if (made) fs::permissions(base + "/guest/vmlinuz", fs::perms(0600));
    };
    group.spawn("tiny guest", make());
    io.run();
    if (missing.empty() && ::access("/usr/bin/qemu-system-x86_64", X_OK) != 0) missing = "qemu-system-x86_64 is not installed";
  }
  static void TearDownTestSuite() {
    if (std::getenv("VIRGA_TEST_BASE") == nullptr) fs::remove_all(base);
  }
  void SetUp() override {
    if (!missing.empty()) GTEST_SKIP() << missing;
  }
  static std::string base;
  static std::string missing;
};
std::string Qemu::base;
std::string Qemu::missing;

/// A loop, a driver, and the places of one guest.
struct World {
  explicit World(const std::string& base) : World(base, nullptr) {}
  /// `there`: the home of a world that another process looks after.
  World(const std::string& base, const char* there)
      : id(there != nullptr ? fs::path(there).filename().string() : random_uuid()),
        home(there != nullptr ? there : base + "/" + id) {
    fs::create_directories(home + "/run");
    fs::create_directories(home + "/log");
    fs::permissions(home, fs::perms(0700));
  }
  ~World() {
    pool.reset();
    EXPECT_TRUE(fs::is_empty(home + "/run")) << "left behind in the run directory";
    fs::remove_all(home);
  }
  void run(Task<> body) {
    pool = std::make_unique<BlockingPool>("test", 2);
    group.spawn("test", std::move(body));
    io.run_for(280s);
    EXPECT_EQ(group.size(), 0u) << "the test hangs";
    EXPECT_EQ(group.failures(), 0);
  }
  Task<std::unique_ptr<Driver>> open() {
    QemuOptions options{.shim_program = VIRGA_BIN_DIR "/virga-shim",
                        .cgroup_tag = "test-" + id.substr(0, 8),
                        .pool = *pool,
                        .executor = io.get_executor()};
    if (const char* other = std::getenv("VIRGA_TEST_QEMU")) options.qemu_program = other;
    auto driver = co_await open_qemu_driver(std::move(options));
    EXPECT_TRUE(driver.has_value());
    (*driver)->on_event([this](GuestEvent e) { events.push_back(std::move(e)); });
    co_return std::move(*driver);
  }
  GuestSpec spec(const std::string& base) const {
    GuestSpec s;
    s.id = id;
    s.project = "default";
    s.name = "tiny";
    s.kind = Kind::virtual_machine;
    s.run_dir = home + "/run";
    s.log_dir = home + "/log";
    s.ids = {guest_user, 1};
    s.memory = Bytes(192) << 20;
    s.direct_boot = DirectBoot{base + "/guest/vmlinuz", base + "/guest/initrd", "console=ttyS0 quiet panic=1"};
    return s;
  }
  boost::asio::io_context io;
  TaskGroup group{io.get_executor()};
  std::unique_ptr<BlockingPool> pool;
  std::string id, home;
  std::vector<GuestEvent> events;
};

Task<std::string> check(std::vector<std::string> argv) {
  io::ProcessSpec spec;
  spec.argv = std::move(argv);
  auto out = co_await io::check_process(std::move(spec));
  EXPECT_TRUE(out.has_value()) << out.error().text();
  co_return out.value_or("");
}

Task<std::string> read_all(ExecSession& session, ExecSession::Stream stream) {
  std::string all;
  for (;;) {
    auto part = co_await session.read(stream);
    EXPECT_TRUE(part.has_value()) << part.error().text();
    if (!part || part->empty()) co_return all;
    all += *part;
  }
}

struct Outcome {
  int code = -1;
  std::string out, err;
};

Task<Outcome> run_in_guest(Driver& driver, std::string id, std::vector<std::string> argv, std::string input = {}) {
  ExecSpec spec;
  spec.command = std::move(argv);
  auto session = co_await driver.exec()->exec(id, std::move(spec));
  EXPECT_TRUE(session.has_value()) << session.error().text();
  Outcome o;
  if (!session) co_return o;
  if (!input.empty()) EXPECT_TRUE((co_await (*session)->write(std::move(input))).has_value());
  EXPECT_TRUE((co_await (*session)->close_input()).has_value());
  o.out = co_await read_all(**session, ExecSession::Stream::output);
  o.err = co_await read_all(**session, ExecSession::Stream::error);
  o.code = (co_await (*session)->wait()).value_or(-1);
  co_return o;
}

std::string status_line(pid_t pid, const std::string& key) {
  std::ifstream file("/proc/" + std::to_string(pid) + "/status");
  for (std::string line; std::getline(file, line);)
    if (line.starts_with(key + ":")) return line.substr(key.size() + 2);
  return {};
}

/// S50: what QEMU holds. Its own event machinery aside, only what the plan passed.
void expect_declared_descriptors(pid_t pid, const std::string& base, const std::string& home) {
  int sockets = 0, taps = 0;
  for (const auto& entry : fs::directory_iterator("/proc/" + std::to_string(pid) + "/fd")) {
    const auto to = fs::read_symlink(entry.path()).string();
    if (to.starts_with("anon_inode:[")) continue;
    if (to.starts_with("socket:"))
      ++sockets;
    else if (to == "/dev/net/tun")
      ++taps;
    else if (to.starts_with("pipe:"))
      EXPECT_TRUE(entry.path().filename() == "1" || entry.path().filename() == "2") << entry.path();
    else
      EXPECT_TRUE(to == "/dev/null" || to.starts_with(home + "/disk") || to.starts_with(base + "/guest/") ||
                  to.starts_with("/memfd:boot"))
          << entry.path().filename() << " -> " << to;
  }
  EXPECT_LE(sockets, 5) << "two listening, two connected, the console";
  EXPECT_LE(taps, 1);
}

void expect_confined(pid_t pid) {
  const auto user = std::to_string(guest_user);
  EXPECT_EQ(status_line(pid, "Uid"), user + "\t" + user + "\t" + user + "\t" + user);
  EXPECT_EQ(status_line(pid, "Gid"), user + "\t" + user + "\t" + user + "\t" + user);
  EXPECT_EQ(status_line(pid, "Groups"), " ") << "no supplementary groups";
  for (auto set : {"CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"}) EXPECT_EQ(status_line(pid, set), "0000000000000000") << set;
  EXPECT_EQ(status_line(pid, "Seccomp"), "2");
  EXPECT_EQ(status_line(pid, "NoNewPrivs"), "1");
}

Task<> interactive_session(Driver& driver, std::string id) {
  ExecSpec spec;
  spec.command = {"sh", "-c", "stty size; read x; stty size; sleep 1000"};
  spec.interactive = true;
  spec.columns = 90;
  spec.rows = 20;
  auto session = co_await driver.exec()->exec(id, std::move(spec));
  EXPECT_TRUE(session.has_value()) << session.error().text();
  if (!session) co_return;
  std::string seen;
  for (int round = 0; round < 2; ++round) {
    const std::string wanted = round == 0 ? "20 90" : "40 120";
    while (seen.find(wanted) == std::string::npos) {
      auto part = co_await (*session)->read(ExecSession::Stream::output);
      EXPECT_TRUE(part && !part->empty()) << seen;
      if (!part || part->empty()) co_return;
      seen += *part;
    }
    if (round == 1) break;
    EXPECT_TRUE((co_await (*session)->resize(120, 40)).has_value());
    EXPECT_TRUE((co_await (*session)->write("\n")).has_value());
  }
  EXPECT_TRUE((co_await (*session)->signal(SIGKILL)).has_value());
  EXPECT_EQ((co_await (*session)->wait()).value_or(-1), 128 + SIGKILL);
}

TEST_F(Qemu, ALifeFromCreateToACleanStop) {
  World world(base);
  auto body = [&]() -> Task<> {
    auto spec = world.spec(base);
    co_await check({"qemu-img", "create", "-q", "-f", "qcow2", world.home + "/disk-base.qcow2", "64M"});
    co_await check({"qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", "disk-base.qcow2", world.home + "/disk.qcow2"});
    spec.disks.push_back({.device = "root", .path = world.home + "/disk.qcow2", .backing = {world.home + "/disk-base.qcow2"}});
    auto netlink = io::Netlink::open();
    EXPECT_TRUE(netlink && netlink->create_tap("vtest0", 0, "virga test"));
    spec.nics.push_back({.device = "eth0", .guest_name = {}, .host_name = "vtest0", .mac = "00:16:3e:aa:bb:cc", .mtu = 1450});

    auto driver = co_await world.open();
    auto created = co_await driver->create(spec);
    EXPECT_TRUE(created.has_value()) << created.error().text();
    if (!created) co_return;
    EXPECT_EQ(created->state, State::created);
    auto twice = co_await driver->create(spec);
    EXPECT_EQ(twice.error().kind(), ErrorKind::busy);
    const auto pid = created->pid;
    expect_confined(pid);
    EXPECT_TRUE((co_await driver->start(world.id)).has_value());
    EXPECT_TRUE((co_await driver->start(world.id)).has_value()) << "running already is success";
    EXPECT_EQ(driver->status(world.id).state, State::running);

    auto hello = co_await run_in_guest(*driver, world.id, {"sh", "-c", "cat; echo err >&2; exit 9"}, "in");
    EXPECT_EQ(hello.code, 9);
    EXPECT_EQ(hello.out, "in");
    EXPECT_EQ(hello.err, "err\n");
    expect_declared_descriptors(pid, base, world.home);
    // The disk is the guest's, with its serial number, and what it writes lands in the overlay.
    auto disk = co_await run_in_guest(
        *driver, world.id,
        {"sh", "-c", "cat /sys/block/vda/serial; echo; echo virga-was-here | dd of=/dev/vda conv=fsync 2>/dev/null"});
    EXPECT_EQ(disk.out, "virga_root\n");
    auto nic = co_await run_in_guest(
        *driver, world.id,
        {"sh", "-c",
         "cat /sys/class/net/eth0/address /sys/class/net/eth0/mtu; ip addr add 10.9.8.7/24 dev eth0; ip link set eth0 up"});
    EXPECT_EQ(nic.out, "00:16:3e:aa:bb:cc\n1450\n");
    co_await interactive_session(*driver, world.id);

    auto stats = co_await driver->stats(world.id);
    EXPECT_TRUE(stats.has_value());
    EXPECT_GT(stats->processes, 5);
    EXPECT_GT(stats->cpu_ns, 100'000'000u);
    EXPECT_EQ(stats->memory_total, Bytes(192) << 20);
    EXPECT_LT(stats->memory_used, stats->memory_total);
    EXPECT_EQ(stats->os_name, "virga tiny");
    bool address = false;
    for (const auto& i : stats->interfaces)
      if (i.name == "eth0")
        address = i.host_name == "vtest0" && !i.addresses.empty() && i.addresses[0].address == "10.9.8.7" &&
                  i.addresses[0].netmask == "24";
    EXPECT_TRUE(address);

    EXPECT_TRUE((co_await driver->set_limits(world.id, {.cpus = {}, .memory = Bytes(150) << 20, .processes = {}})).has_value());
    auto more = co_await driver->set_limits(world.id, {.cpus = {}, .memory = Bytes(500) << 20, .processes = {}});
    EXPECT_EQ(more.error().kind(), ErrorKind::unsupported);
    auto wider = co_await driver->set_limits(world.id, {.cpus = 4, .memory = Bytes(150) << 20, .processes = {}});
    EXPECT_EQ(wider.error().kind(), ErrorKind::unsupported);

    EXPECT_TRUE((co_await driver->pause(world.id)).has_value());
    EXPECT_EQ(driver->status(world.id).state, State::paused);
    ExecSpec paused_exec;
    paused_exec.command = {"true"};
    auto refused = co_await driver->exec()->exec(world.id, std::move(paused_exec));
    EXPECT_EQ(refused.error().kind(), ErrorKind::unavailable);
    auto paused_stats = co_await driver->stats(world.id);
    EXPECT_TRUE(paused_stats && paused_stats->memory_used > 0);
    EXPECT_TRUE((co_await driver->resume(world.id)).has_value());

    // The daemon goes and comes again: the guest is the same process, and exec works.
    co_await driver->shut_down();
    driver = co_await world.open();
    auto adopted = co_await driver->adopt(world.id, spec.run_dir);
    EXPECT_TRUE(adopted.has_value()) << adopted.error().text();
    EXPECT_EQ(adopted->state, State::running);
    EXPECT_EQ(adopted->pid, pid);
    EXPECT_EQ(adopted->start_time, created->start_time);
    auto again = co_await run_in_guest(*driver, world.id, {"echo", "still here"});
    EXPECT_EQ(again.out, "still here\n");
    auto after = co_await driver->stats(world.id);
    EXPECT_TRUE(after && after->memory_total == Bytes(192) << 20);

    auto stopped = co_await driver->stop(world.id, 60s);
    EXPECT_TRUE(stopped.has_value()) << stopped.error().text();
    EXPECT_EQ(driver->status(world.id).state, State::stopped);
    EXPECT_FALSE(io::process_start_time(pid).has_value());
    EXPECT_TRUE((co_await driver->stop(world.id, 1s)).has_value()) << "stopped already is success";
    EXPECT_TRUE((co_await driver->remove(world.id)).has_value());
    EXPECT_TRUE((co_await driver->remove(world.id)).has_value()) << "absent is success";
    EXPECT_EQ(driver->status(world.id).state, State::absent);
    EXPECT_TRUE(world.events.empty()) << "nobody is told of an end that was asked for";
    auto content = co_await check({"qemu-io", "-r", "-f", "qcow2", "-c", "read -v 0 16", world.home + "/disk.qcow2"});
    EXPECT_NE(content.find("virga.was.here"), std::string::npos) << content;
    EXPECT_TRUE(netlink->delete_link("vtest0").has_value());
    EXPECT_NE(io::read_file(world.home + "/log/console.log").value_or("").find("/ #"), std::string::npos)
        << "the console was logged";
    co_await driver->shut_down();
  };
  world.run(body());
}

TEST_F(Qemu, ForcedEndIsQuickAndAnEndByItselfIsTold) {
  World world(base);
  auto body = [&]() -> Task<> {
    auto driver = co_await world.open();
    auto spec = world.spec(base);
    for (int round = 0; round < 3; ++round) {
      const auto start = std::chrono::steady_clock::now();
      auto created = co_await driver->create(spec);
      EXPECT_TRUE(created.has_value()) << created.error().text();
      if (!created) co_return;
      EXPECT_TRUE((co_await driver->start(world.id)).has_value());
      std::printf(
          "create and start: %lld ms\n",
          static_cast<long long>(std::chrono::duration_cast<Milliseconds>(std::chrono::steady_clock::now() - start).count()));
      if (round == 2) break;
      const auto began = std::chrono::steady_clock::now();
      EXPECT_TRUE((co_await driver->remove(world.id)).has_value());
      const auto took = std::chrono::duration_cast<Milliseconds>(std::chrono::steady_clock::now() - began);
      std::printf("forced stop: %lld ms\n", static_cast<long long>(took.count()));
      EXPECT_LT(took, 2s);
      EXPECT_FALSE(io::process_start_time(created->pid).has_value());
      EXPECT_TRUE(fs::is_empty(spec.run_dir));
    }
    ::kill(driver->status(world.id).pid, SIGKILL);
    while (world.events.empty()) EXPECT_TRUE(co_await sleep_for(2ms));
    EXPECT_EQ(world.events[0].id, world.id);
    EXPECT_EQ(world.events[0].exit_code, 128 + SIGKILL);
    EXPECT_EQ(driver->status(world.id).state, State::stopped);
    // A start right behind it, without remove(), finds the place free.
    auto again = co_await driver->create(spec);
    EXPECT_TRUE(again.has_value()) << again.error().text();
    EXPECT_TRUE((co_await driver->remove(world.id)).has_value());
    co_await driver->shut_down();
  };
  world.run(body());
}

TEST_F(Qemu, AGuestRebootsInItsQemuAndPowersItselfOff) {
  World world(base);
  auto body = [&]() -> Task<> {
    auto driver = co_await world.open();
    auto created = co_await driver->create(world.spec(base));
    EXPECT_TRUE(created.has_value()) << created.error().text();
    if (!created) co_return;
    EXPECT_TRUE((co_await driver->start(world.id)).has_value());
    ExecSpec spec;
    spec.command = {"sh", "-c", "touch /marker; echo b >/proc/sysrq-trigger; sleep 1000"};
    auto session = co_await driver->exec()->exec(world.id, std::move(spec));
    EXPECT_TRUE(session.has_value()) << session.error().text();
    if (!session) co_return;
    auto lost = co_await (*session)->wait();
    EXPECT_EQ(lost.error().kind(), ErrorKind::unavailable) << "its machine went away under it";
    auto marker = co_await run_in_guest(*driver, world.id, {"ls", "/marker"});
    EXPECT_EQ(marker.code, 1) << "a fresh boot has a fresh root";
    EXPECT_EQ(driver->status(world.id).pid, created->pid);
    EXPECT_TRUE(world.events.empty());

    // The console is the guest's serial port, in both directions.
    auto console = co_await io::open_console(world.home + "/run");
    EXPECT_TRUE(console.has_value()) << console.error().text();
    const std::string line = "\necho con$((40+2))sole\n";
    EXPECT_EQ(::write(console->get(), line.data(), line.size()), static_cast<ssize_t>(line.size()));
    while (io::read_file(world.home + "/log/console.log").value_or("").find("con42sole") == std::string::npos)
      if (!co_await sleep_for(10ms)) co_return;

    // An agent that dies takes its commands along, and the next one is found.
    auto killer = co_await run_in_guest(*driver, world.id,
                                        {"sh", "-c", "(sleep 0.2; kill -9 $(pidof virga-agent)) >/dev/null 2>&1 </dev/null &"});
    EXPECT_EQ(killer.code, 0);
    ExecSpec sleeper;
    sleeper.command = {"sleep", "1000"};
    auto victim = co_await driver->exec()->exec(world.id, std::move(sleeper));
    if (victim) EXPECT_EQ((co_await (*victim)->wait()).error().kind(), ErrorKind::unavailable);
    auto next = co_await run_in_guest(*driver, world.id, {"echo", "next"});
    EXPECT_EQ(next.out, "next\n");

    ExecSpec off;
    off.command = {"poweroff"};
    auto going = co_await driver->exec()->exec(world.id, std::move(off));  // how it ends depends on whom init kills first
    EXPECT_TRUE(going.has_value());
    while (world.events.empty())
      if (!co_await sleep_for(5ms)) co_return;
    EXPECT_EQ(world.events[0].exit_code, 0);
    EXPECT_FALSE(world.events[0].reboot);
    EXPECT_TRUE((co_await driver->remove(world.id)).has_value());
    co_await driver->shut_down();
  };
  world.run(body());
}

/// Run by the next test in a process of its own, which a fault point kills.
TEST_F(Qemu, DISABLED_CreateAndStart) {
  World world(base, std::getenv("VIRGA_TEST_GUEST"));
  auto body = [&]() -> Task<> {
    auto driver = co_await world.open();
    EXPECT_TRUE((co_await driver->create(world.spec(base))).has_value());
  };
  world.run(body());
}

TEST_F(Qemu, ADaemonKilledInTheMiddleOfACreateLeavesNothingThatIsNotFound) {
#ifndef VIRGA_FAULTS
  GTEST_SKIP() << "this build has no fault points";
#endif
  for (const std::string point : {"qemu.create.prepared", "qemu.create.started"}) {
    World world(base);
    auto body = [&]() -> Task<> {
      io::ProcessSpec spec;
      spec.argv = {fs::read_symlink("/proc/self/exe").string(), "--gtest_also_run_disabled_tests",
                   "--gtest_filter=Qemu.DISABLED_CreateAndStart"};
      spec.env = {"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "VIRGA_FAULT_KILL=" + point, "VIRGA_TEST_GUEST=" + world.home,
                  "VIRGA_TEST_BASE=" + base};
      auto daemon = co_await io::run_process(std::move(spec), {.timeout = 120s});
      EXPECT_TRUE(daemon.has_value()) << daemon.error().text();
      EXPECT_EQ(daemon->status.signal, SIGKILL) << daemon->out << daemon->err;
      EXPECT_FALSE(fs::is_empty(world.home + "/run"));
      auto driver = co_await world.open();
      auto adopted = co_await driver->adopt(world.id, world.home + "/run");
      EXPECT_TRUE(adopted.has_value()) << adopted.error().text();
      EXPECT_EQ(adopted->state, point == "qemu.create.started" ? State::created : State::absent);
      EXPECT_TRUE((co_await driver->remove(world.id)).has_value());
      EXPECT_TRUE(fs::is_empty(world.home + "/run"));
      if (adopted->pid > 0) EXPECT_FALSE(io::process_start_time(adopted->pid).has_value());
      auto again = co_await driver->create(world.spec(base));
      EXPECT_TRUE(again.has_value()) << again.error().text();
      EXPECT_TRUE((co_await driver->remove(world.id)).has_value());
      co_await driver->shut_down();
    };
    world.run(body());
  }
}

TEST_F(Qemu, AHangingQemuHoldsNobodyUp) {
  World world(base);
  auto body = [&]() -> Task<> {
    auto driver = co_await world.open();
    auto created = co_await driver->create(world.spec(base));
    EXPECT_TRUE(created.has_value()) << created.error().text();
    if (!created) co_return;
    EXPECT_TRUE((co_await driver->start(world.id)).has_value());
    ::kill(created->pid, SIGSTOP);
    EXPECT_EQ(driver->status(world.id).state, State::running);
    EXPECT_TRUE((co_await driver->stats(world.id)).has_value());
    auto stopped = co_await driver->stop(world.id, 100ms);
    EXPECT_EQ(stopped.error().kind(), ErrorKind::timeout);
    co_await driver->shut_down();
    driver = co_await world.open();
    auto adopted = co_await driver->adopt(world.id, world.home + "/run");
    EXPECT_TRUE(adopted.has_value()) << adopted.error().text();
    EXPECT_EQ(adopted->pid, created->pid);
    const auto began = std::chrono::steady_clock::now();
    EXPECT_TRUE((co_await driver->remove(world.id)).has_value());
    EXPECT_LT(std::chrono::steady_clock::now() - began, 2s);
    EXPECT_FALSE(io::process_start_time(created->pid).has_value());
    co_await driver->shut_down();
  };
  world.run(body());
}

TEST_F(Qemu, AMonitorThatComesLateTellsThatTheGuestIsPaused) {
  World world(base);
  auto body = [&]() -> Task<> {
    auto driver = co_await world.open();
    auto created = co_await driver->create(world.spec(base));
    EXPECT_TRUE(created.has_value()) << created.error().text();
    if (!created) co_return;
    EXPECT_TRUE((co_await driver->start(world.id)).has_value());
    EXPECT_TRUE((co_await driver->pause(world.id)).has_value());
    co_await driver->shut_down();
    ::kill(created->pid, SIGSTOP);
    driver = co_await world.open();
    auto adopted = co_await driver->adopt(world.id, world.home + "/run");
    EXPECT_TRUE(adopted.has_value()) << adopted.error().text();
    ::kill(created->pid, SIGCONT);
    for (int i = 0; i < 400 && driver->status(world.id).state != State::paused; ++i) co_await sleep_for(50ms);
    EXPECT_EQ(driver->status(world.id).state, State::paused);
    EXPECT_TRUE((co_await driver->resume(world.id)).has_value());
    EXPECT_TRUE((co_await driver->remove(world.id)).has_value());
    co_await driver->shut_down();
  };
  world.run(body());
}

TEST_F(Qemu, AFailedCreateLeavesNothingAndSaysWhy) {
  World world(base);
  auto body = [&]() -> Task<> {
    auto driver = co_await world.open();
    auto spec = world.spec(base);
    spec.disks.push_back({.device = "root", .path = world.home + "/nowhere.qcow2"});
    auto missing_disk = co_await driver->create(spec);
    EXPECT_EQ(missing_disk.error().kind(), ErrorKind::not_found) << missing_disk.error().text();
    EXPECT_TRUE(fs::is_empty(spec.run_dir));

    std::ofstream(world.home + "/disk.qcow2") << "no qcow2 at all, but long enough to have a header of seventy-two bytes and more";
    spec.disks[0].path = world.home + "/disk.qcow2";
    auto bad_disk = co_await driver->create(spec);
    EXPECT_EQ(bad_disk.error().kind(), ErrorKind::invalid) << bad_disk.error().text();

    spec.disks.clear();
    spec.nics.push_back({.device = "eth0", .guest_name = {}, .host_name = "vnone9", .mac = "00:16:3e:aa:bb:cc"});
    auto no_tap = co_await driver->create(spec);
    EXPECT_EQ(no_tap.error().kind(), ErrorKind::not_found) << no_tap.error().text();

    spec.nics.clear();
    spec.direct_boot->kernel = world.home + "/disk.qcow2";  // QEMU itself refuses this one
    auto no_kernel = co_await driver->create(spec);
    EXPECT_EQ(no_kernel.error().kind(), ErrorKind::unavailable);
    EXPECT_NE(no_kernel.error().text().find("QEMU does not start"), std::string::npos) << no_kernel.error().text();
    EXPECT_TRUE(fs::is_empty(spec.run_dir));
    EXPECT_EQ(driver->status(world.id).state, State::absent);

    auto nobody = co_await driver->adopt(world.id, spec.run_dir);
    EXPECT_TRUE(nobody && nobody->state == State::absent);
    EXPECT_TRUE((co_await driver->remove(world.id)).has_value());
    ExecSpec exec;
    exec.command = {"true"};
    auto absent = co_await driver->exec()->exec("nobody", std::move(exec));
    EXPECT_EQ(absent.error().kind(), ErrorKind::not_found);
    co_await driver->shut_down();
  };
  world.run(body());
}

TEST_F(Qemu, FirmwareBootMakesItsVariables) {
  if (!fs::exists("/usr/share/OVMF/OVMF_CODE_4M.fd")) GTEST_SKIP() << "ovmf is not installed";
  World world(base);
  auto body = [&]() -> Task<> {
    auto driver = co_await world.open();
    auto spec = world.spec(base);
    spec.direct_boot.reset();
    spec.firmware = FirmwareBoot{world.home + "/variables.fd", false};
    spec.disks.push_back({.device = "root", .path = world.home + "/disk.raw", .format = DiskFormat::raw});
    EXPECT_TRUE(io::write_file(world.home + "/disk.raw", "").has_value());
    fs::resize_file(world.home + "/disk.raw", 1 << 20);
    auto created = co_await driver->create(spec);
    EXPECT_TRUE(created.has_value()) << created.error().text();
    if (!created) co_return;
    EXPECT_TRUE((co_await driver->start(world.id)).has_value());
    EXPECT_EQ(fs::file_size(world.home + "/variables.fd"), fs::file_size("/usr/share/OVMF/OVMF_VARS_4M.fd"));
    expect_confined(created->pid);
    // The firmware has come up when it writes to its console.
    while (io::read_file(world.home + "/log/console.log").value_or("").find("BdsDxe") == std::string::npos) {
      EXPECT_EQ(driver->status(world.id).state, State::running);
      if (driver->status(world.id).state != State::running || !co_await sleep_for(20ms)) break;
    }
    EXPECT_TRUE((co_await driver->remove(world.id)).has_value());
    co_await driver->shut_down();
  };
  world.run(body());
}

}  // namespace
}  // namespace virga::compute
