#include "io/mount.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>

#include "io/file.h"
#include "io/idmap.h"

namespace virga::io {
namespace {

using testing::ElementsAre;
namespace fs = std::filesystem;

TEST(MountInfo, IsParsedWithEscapesAndOptionalFields) {
  auto mounts = parse_mountinfo(
      "36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 shared:2 - ext3 /dev/root rw,errors=continue\n"
      "nonsense\n"
      "37 35 0:5 / /a\\040b\\134c rw - tmpfs none rw\n"
      "38 35 0:5 / /short rw -\n");
  ASSERT_EQ(mounts.size(), 2u);
  EXPECT_EQ(mounts[0].id, 36);
  EXPECT_EQ(mounts[0].type, "ext3");
  EXPECT_EQ(mounts[0].source, "/dev/root");
  EXPECT_EQ(mounts[1].mount_point, "/a b\\c");
}

/// A directory in a private mount namespace of this process: whatever a test leaves mounted goes with it.
class MountTest : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    if (::geteuid() != 0) return;
    ASSERT_EQ(::unshare(CLONE_NEWNS), 0);
    ASSERT_EQ(::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr), 0);
  }
  void SetUp() override {
    if (::geteuid() != 0) GTEST_SKIP() << "mounting needs root";
    char name[] = "/var/tmp/virga-mount-XXXXXX";
    ASSERT_NE(::mkdtemp(name), nullptr);
    base = name;
  }
  void TearDown() override {
    if (base.empty()) return;
    EXPECT_TRUE(unmount_below(base));
    EXPECT_TRUE(remove_tree(base));
  }
  std::string dir(const std::string& name) {
    fs::create_directories(base + "/" + name);
    return base + "/" + name;
  }
  std::string base;
};

TEST_F(MountTest, BindShowsATreeReadOnlyAndUnmountTakesAllOfTheStack) {
  auto from = dir("from"), to = dir("to");
  ASSERT_TRUE(write_file_durably(from + "/file", "x"));
  EXPECT_EQ(is_mounted(to), false);
  ASSERT_TRUE(bind_mount(from, to, {.readonly = true}));
  EXPECT_EQ(is_mounted(to), true);
  EXPECT_TRUE(exists(to + "/file"));
  EXPECT_FALSE(write_file_durably(to + "/other", "x"));
  ASSERT_TRUE(bind_mount(from, to));
  auto below = mounts_below(base);
  ASSERT_TRUE(below);
  EXPECT_EQ(below->size(), 2u);
  EXPECT_TRUE(unmount(to));
  EXPECT_EQ(is_mounted(to), false);
  EXPECT_TRUE(unmount(to)) << "not mounted is success";
  EXPECT_TRUE(unmount(base + "/absent"));
  EXPECT_EQ(is_mounted(base + "/absent"), false);
}

TEST_F(MountTest, ShiftIsVisibleThroughTheMountOnly) {
  auto from = dir("from"), to = dir("to");
  ASSERT_TRUE(write_file_durably(from + "/file", "x"));
  ASSERT_EQ(::chown((from + "/file").c_str(), 5, 6), 0);
  auto range = open_id_range(2'000'000, 65536);
  ASSERT_TRUE(range) << range.error().text();
  auto bound = bind_mount(from, to, {.user_namespace = range->get()});
  ASSERT_TRUE(bound) << bound.error().text();
  struct stat st{};
  ASSERT_EQ(::stat((to + "/file").c_str(), &st), 0);
  EXPECT_EQ(st.st_uid, 2'000'005u);
  EXPECT_EQ(st.st_gid, 2'000'006u);
  ASSERT_EQ(::stat((from + "/file").c_str(), &st), 0);
  EXPECT_EQ(st.st_uid, 5u);
}

TEST_F(MountTest, OverlayWritesToItsUpperLayer) {
  OverlayOptions o{.lower = dir("lower"), .upper = dir("upper"), .work = dir("work"), .source = "test"};
  auto to = dir("to");
  ASSERT_TRUE(write_file_durably(o.lower + "/file", "old"));
  auto mounted = mount_overlay(o, to);
  ASSERT_TRUE(mounted) << mounted.error().text();
  ASSERT_TRUE(write_file_durably(to + "/file", "new"));
  EXPECT_EQ(read_file(to + "/file"), "new");
  EXPECT_EQ(read_file(o.lower + "/file"), "old");
  EXPECT_EQ(read_file(o.upper + "/file"), "new");
}

TEST_F(MountTest, ErrorsSayWhatTheKernelDisliked) {
  OverlayOptions o{.lower = base + "/absent", .upper = dir("upper"), .work = dir("work"), .source = "test"};
  auto r = mount_overlay(o, dir("to"));
  ASSERT_FALSE(r);
  EXPECT_EQ(r.error().kind(), ErrorKind::not_found) << r.error().text();
  o.lower = dir("a:b");
  EXPECT_EQ(mount_overlay(o, dir("to")).error().kind(), ErrorKind::invalid);
  EXPECT_EQ(bind_mount(base + "/absent", base + "/to").error().kind(), ErrorKind::not_found);
  EXPECT_FALSE(overlay_path_ok("/a,b"));
}

TEST_F(MountTest, MountInUseDisappearsAtOnce) {
  auto from = dir("from"), to = dir("to");
  ASSERT_TRUE(bind_mount(from, to));
  UniqueFd user(::open(to.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  ASSERT_TRUE(user);
  EXPECT_TRUE(unmount(to));
  EXPECT_EQ(is_mounted(to), false);
}

/// What holds a range for a moment has copies of all our descriptors, locks among them: with us it ends, however we end.
TEST(IdRange, LeavesNobodyBehindWhenWeAreKilled) {
  if (::geteuid() != 0) GTEST_SKIP() << "needs root";
  ASSERT_EQ(::prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0), 0);  // orphans become ours
  for (int round = 0; round < 20; ++round) {
    const pid_t daemon = ::fork();
    ASSERT_GE(daemon, 0);
    if (daemon == 0)
      for (;;)
        if (!open_id_range(2'000'000, 65536)) ::_exit(1);
    ::usleep(static_cast<useconds_t>(5'000 + 137 * round));
    ASSERT_EQ(::kill(daemon, SIGKILL), 0);
    int status = 0;
    ASSERT_EQ(::waitpid(daemon, &status, 0), daemon);
    ASSERT_TRUE(WIFSIGNALED(status)) << "no ranges could be made";
    // Nobody is left, or who is left ends at once.
    for (int patience = 0;; ++patience) {
      const pid_t orphan = ::waitpid(-1, &status, WNOHANG);
      if (orphan < 0 && errno == ECHILD) break;
      if (orphan > 0) continue;
      ASSERT_LT(patience, 1000) << "a child lives on";
      ::usleep(1'000);
    }
  }
  ::prctl(PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0);
}

TEST(IdRange, RefusesWhatIsNoGuestsRange) {
  EXPECT_EQ(open_id_range(0, 65536).error().kind(), ErrorKind::invalid);
  EXPECT_EQ(open_id_range(1'000'000, 0).error().kind(), ErrorKind::invalid);
  EXPECT_EQ(open_id_range(0xffff'0000u, 65536).error().kind(), ErrorKind::invalid);
}

}  // namespace
}  // namespace virga::io
