// Control groups: the layouts as text, v2 on a directory that looks like it, and this host's own hierarchy for real.
#include "io/cgroup.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "io/file.h"

namespace virga::io {
namespace {

using Kind = CgroupLayout::Kind;

TEST(CgroupLayout, KnowsTheThreeLayouts) {
  const char* v1 =
      "34 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw shared:3 - cgroup cgroup rw,cpu,cpuacct\n"
      "35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
      "36 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd\n";
  auto old = CgroupLayout::parse(v1);
  EXPECT_EQ(old.kind(), Kind::v1);
  EXPECT_TRUE(old.has("cpu") && old.has("cpuacct") && old.has("memory"));
  EXPECT_FALSE(old.has("pids"));
  auto files = old.group("virga/t/g").procs_files();
  ASSERT_EQ(files.size(), 2u) << "a hierarchy of two controllers is joined once";
  EXPECT_EQ(files[0], "/sys/fs/cgroup/cpu,cpuacct/virga/t/g/cgroup.procs");
  EXPECT_EQ(CgroupLayout::parse(std::string(v1) + "41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n").kind(),
            Kind::hybrid);
  EXPECT_EQ(CgroupLayout::parse("30 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n").kind(), Kind::v2);
  EXPECT_EQ(CgroupLayout::parse("").kind(), Kind::none);
  EXPECT_EQ(CgroupLayout::parse("").group("x").create().error().kind(), ErrorKind::unsupported);
  EXPECT_EQ(CgroupLayout::parse("garbage\n1 2 - \n - - -\n").kind(), Kind::none);
}

class FakeV2 : public testing::Test {
 protected:
  FakeV2() {
    char name[] = "/tmp/virga-cgroup-XXXXXX";
    root_ = ::mkdtemp(name);
    put("cgroup.controllers", "cpuset cpu io memory pids\n");
    put("cgroup.subtree_control", "");
    layout_ = CgroupLayout::unified_at(root_);
  }
  ~FakeV2() override { EXPECT_TRUE(remove_tree(root_)); }
  void put(const std::string& file, const std::string& text) { std::ofstream(root_ + "/" + file) << text; }
  std::string get(const std::string& file) { return read_file(root_ + "/" + file).value_or("(none)"); }
  std::string root_;
  CgroupLayout layout_;
};

TEST_F(FakeV2, WhoHasNoLimitOfProcessesGetsAPartOfTheHosts) {
  std::filesystem::create_directories(root_ + "/sys/kernel");
  put("sys/kernel/pid_max", "4194304\n");
  put("sys/kernel/threads-max", "100000\n");
  EXPECT_EQ(default_process_limit(root_), 15'000u);
  put("sys/kernel/pid_max", "32768\n");
  EXPECT_EQ(default_process_limit(root_), 4'915u);
  EXPECT_EQ(default_process_limit("/nowhere"), 4'915u);
}

TEST_F(FakeV2, LimitsAndUsage) {
  auto group = layout_.group("virga/t/g");
  EXPECT_FALSE(group.exists());
  EXPECT_EQ(group.usage().error().kind(), ErrorKind::not_found);
  ASSERT_TRUE(group.create());
  EXPECT_TRUE(group.create()) << "again is success";
  EXPECT_TRUE(get("cgroup.subtree_control").starts_with("+pids")) << "each controller is written by itself";
  EXPECT_EQ(group.procs_files(), std::vector<std::string>{root_ + "/virga/t/g/cgroup.procs"});
  for (const char* f : {"cpu.max", "memory.max", "pids.max", "cgroup.freeze"}) put(std::string("virga/t/g/") + f, "");
  EXPECT_TRUE(group.limit_cpus(1.5));
  EXPECT_EQ(get("virga/t/g/cpu.max"), "150000 100000");
  EXPECT_TRUE(group.limit_memory(Bytes{512} << 20));
  EXPECT_EQ(get("virga/t/g/memory.max"), "536870912");
  EXPECT_TRUE(group.limit_processes(100));
  EXPECT_EQ(get("virga/t/g/pids.max"), "100");
  EXPECT_FALSE(group.limit_cpus(0.0));
  put("virga/t/g/cpu.stat", "usage_usec 1234\nuser_usec 1000\n");
  put("virga/t/g/memory.current", "1000000\n");
  put("virga/t/g/memory.peak", "2000000\n");
  put("virga/t/g/memory.stat", "anon 1\ninactive_file 400000\n");
  put("virga/t/g/memory.swap.current", "5\n");
  put("virga/t/g/memory.events", "oom 3\noom_kill 2\n");
  put("virga/t/g/pids.current", "7\n");
  auto u = group.usage();
  ASSERT_TRUE(u);
  EXPECT_EQ(u->cpu_ns, 1234000u);
  EXPECT_EQ(u->memory, 600000u);
  EXPECT_EQ(u->memory_peak, 2000000u);
  EXPECT_EQ(u->memory_limit, 536870912u);
  EXPECT_EQ(u->swap, 5u);
  EXPECT_EQ(u->oom_kills, 2u);
  EXPECT_EQ(u->processes, 7u);
  put("virga/t/g/memory.max", "max\n");
  EXPECT_FALSE(group.usage()->memory_limit);
}

TEST_F(FakeV2, FreezeWaitsForTheKernel) {
  auto group = layout_.group("g");
  ASSERT_TRUE(group.create());
  put("g/cgroup.freeze", "");
  put("g/cgroup.events", "populated 1\nfrozen 0\n");
  EXPECT_EQ(group.freeze(std::chrono::milliseconds(20)).error().kind(), ErrorKind::timeout);
  EXPECT_EQ(get("g/cgroup.freeze"), "0") << "thawed again";
  put("g/cgroup.events", "populated 1\nfrozen 1\n");
  EXPECT_TRUE(group.freeze());
  EXPECT_TRUE(group.frozen());
  put("g/cgroup.procs", "12\n34\n");
  std::filesystem::create_directory(root_ + "/g/sub");
  put("g/sub/cgroup.procs", "56\n");
  EXPECT_EQ(group.processes(), (std::vector<pid_t>{12, 34, 56}));
}

TEST(Cgroup, ThisHost) {
  auto layout = CgroupLayout::probe();
  if (layout.kind() == Kind::none || !layout.has("memory") || !layout.has("pids") || !layout.has("cpu"))
    GTEST_SKIP() << "this host offers no cpu, memory and pids controllers: " << layout.describe();
  if (::geteuid() != 0) GTEST_SKIP() << "needs root to make control groups";
  auto parent = layout.group("virga-test-" + std::to_string(::getpid()));
  auto group = layout.group("virga-test-" + std::to_string(::getpid()) + "/guest");
  auto created = group.create();
  ASSERT_TRUE(created) << created.error().text();
  const pid_t child = ::fork();
  if (child == 0) {
    for (const auto& file : group.procs_files())
      if (!write_control(file, "0")) ::_exit(1);
    // Something to count: a little work, and memory that is really there.
    volatile char* memory = static_cast<volatile char*>(std::malloc(32u << 20));
    for (std::size_t i = 0; i < (32u << 20); i += 4096) memory[i] = 1;
    if (::fork() == 0)
      for (;;) ::pause();
    for (;;) ::pause();
  }
  auto wait_for = [&](auto what) {
    for (int i = 0; i < 2000 && !what(); ++i) ::usleep(2000);
    return what();
  };
  EXPECT_TRUE(wait_for([&] { return group.processes().size() == 2 && group.usage()->memory > (30u << 20); }))
      << "two processes, 32 MiB";
  auto u = group.usage();
  ASSERT_TRUE(u);
  EXPECT_EQ(u->processes, 2u);
  EXPECT_GT(u->cpu_ns, 0u);
  EXPECT_GE(u->memory_peak, u->memory);
  EXPECT_FALSE(u->memory_limit);
  EXPECT_TRUE(group.limit_cpus(0.5));
  EXPECT_TRUE(group.limit_processes(64));
  for (Bytes limit : {Bytes{256} << 20, Bytes{128} << 20, Bytes{512} << 20}) {  // falling and rising
    auto limited = group.limit_memory(limit);
    EXPECT_TRUE(limited) << limited.error().text();
    EXPECT_EQ(group.usage()->memory_limit, limit);
  }
  EXPECT_TRUE(group.limit_memory(std::nullopt));
  EXPECT_FALSE(group.usage()->memory_limit);
  auto frozen = group.freeze();
  EXPECT_TRUE(frozen) << frozen.error().text();
  EXPECT_TRUE(group.frozen());
  EXPECT_TRUE(group.thaw());
  EXPECT_FALSE(group.frozen());
  EXPECT_TRUE(group.freeze());
  EXPECT_EQ(group.remove(std::chrono::milliseconds(5)).error().kind(), ErrorKind::busy);
  // The killed child is ours to reap; it leaves the group as a zombie already.
  auto killed = group.kill_all();
  EXPECT_TRUE(killed) << killed.error().text();
  ::waitpid(child, nullptr, 0);
  auto removed = group.remove();
  EXPECT_TRUE(removed) << removed.error().text();
  EXPECT_TRUE(group.remove()) << "absent is success";
  EXPECT_TRUE(group.kill_all()) << "absent is success";
  parent.remove_if_empty();
  EXPECT_FALSE(parent.exists());
}

}  // namespace
}  // namespace virga::io
