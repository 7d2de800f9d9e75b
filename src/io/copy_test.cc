#include "io/copy.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <functional>

#include "io/file.h"

namespace virga::io {
namespace {

namespace fs = std::filesystem;

struct stat stat_of(const std::string& path) {
  struct stat st{};
  EXPECT_EQ(::lstat(path.c_str(), &st), 0) << path;
  return st;
}
std::string attribute(const std::string& path, const char* name) {
  std::string value(256, '\0');
  const auto n = ::lgetxattr(path.c_str(), name, value.data(), value.size());
  return n < 0 ? "(none)" : value.substr(0, static_cast<std::size_t>(n));
}
void write(const std::string& path, const std::string& text) {
  std::ofstream(path) << text;
}

class CopyTest : public testing::Test {
 protected:
  void SetUp() override {
    if (::geteuid() != 0) GTEST_SKIP() << "owners need root";
    char name[] = "/var/tmp/virga-copy-XXXXXX";
    ASSERT_NE(::mkdtemp(name), nullptr);
    base = name;
    from = base + "/from";
    to = base + "/to";
    fs::create_directories(from + "/etc/deep");
    write(from + "/etc/hostname", "web\n");
    write(from + "/etc/deep/file", "deep");
    for (const auto* path : {"", "/etc", "/etc/deep", "/etc/hostname", "/etc/deep/file"}) own(path, 1'000'000);
  }
  void TearDown() override {
    if (!base.empty()) EXPECT_TRUE(remove_tree(base));
  }
  void own(const std::string& path, uid_t id) { ASSERT_EQ(::lchown((from + path).c_str(), id, id), 0); }
  Result<> copy() { return copy_tree(from, to, options, control); }

  std::string base, from, to;
  CopyTreeOptions options{.ids = IdMove{.from = 1'000'000, .to = 5'000'000, .count = 65536}};
  TransferControl control;
};

TEST_F(CopyTest, MovesOwnersIntoTheNewRangeAndKeepsModesAndTimes) {
  own("/etc/hostname", 1'000'033);
  ASSERT_EQ(::chmod((from + "/etc/hostname").c_str(), 06751), 0);
  own("/etc/deep/file", 65'534);  // outside of the range
  const timespec times[2] = {{100, 5}, {200, 6}};
  ASSERT_EQ(::utimensat(AT_FDCWD, (from + "/etc").c_str(), times, 0), 0);
  ASSERT_TRUE(copy());
  EXPECT_EQ(read_file(to + "/etc/deep/file").value(), "deep");
  EXPECT_EQ(stat_of(to).st_uid, 5'000'000u);
  EXPECT_EQ(stat_of(to + "/etc/hostname").st_uid, 5'000'033u);
  EXPECT_EQ(stat_of(to + "/etc/hostname").st_mode & 07777, 06751u);
  EXPECT_EQ(stat_of(to + "/etc/deep/file").st_uid, 65'534u);
  EXPECT_EQ(stat_of(to + "/etc").st_mtim.tv_sec, 200);
  EXPECT_EQ(stat_of(to + "/etc").st_mtim.tv_nsec, 6);
  EXPECT_EQ(control.bytes, 8u);
}

TEST_F(CopyTest, KeepsWhatAnOverlayNotes) {
  ASSERT_EQ(::mknod((from + "/etc/gone").c_str(), S_IFCHR, makedev(0, 0)), 0);
  ASSERT_EQ(::setxattr((from + "/etc/deep").c_str(), "trusted.overlay.opaque", "y", 1, 0), 0);
  ASSERT_EQ(::setxattr((from + "/etc/hostname").c_str(), "trusted.overlay.origin", "h", 1, 0), 0);
  ASSERT_TRUE(copy());
  const auto whiteout = stat_of(to + "/etc/gone");
  EXPECT_TRUE(S_ISCHR(whiteout.st_mode) && whiteout.st_rdev == 0);
  EXPECT_EQ(whiteout.st_uid, 0u);
  EXPECT_EQ(attribute(to + "/etc/deep", "trusted.overlay.opaque"), "y");
  EXPECT_EQ(attribute(to + "/etc/hostname", "trusted.overlay.origin"), "h");
  options.same_lower = false;
  to += "2";
  ASSERT_TRUE(copy());
  EXPECT_EQ(attribute(to + "/etc/deep", "trusted.overlay.opaque"), "y");
  EXPECT_EQ(attribute(to + "/etc/hostname", "trusted.overlay.origin"), "(none)");
}

TEST_F(CopyTest, MovesTheIdsInCapabilitiesAndAccessLists) {
  const auto file = from + "/etc/hostname";
  const std::string capability("\x01\x00\x00\x03\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x40\x42\x0f\x00",
                               24);
  ASSERT_EQ(::setxattr(file.c_str(), "security.capability", capability.data(), capability.size(), 0), 0);
  std::string list("\x02\x00\x00\x00", 4);
  auto entry = [&](char tag, char permissions, std::uint32_t id) {
    list += std::string{tag, 0, permissions, 0};
    for (int i = 0; i < 4; ++i) list += static_cast<char>(id >> (8 * i) & 0xff);
  };
  entry(0x01, 6, 0xffffffff);
  entry(0x02, 4, 1'000'005);
  entry(0x04, 4, 0xffffffff);
  entry(0x10, 4, 0xffffffff);
  entry(0x20, 4, 0xffffffff);
  const bool lists = ::setxattr(file.c_str(), "system.posix_acl_access", list.data(), list.size(), 0) == 0;
  ASSERT_TRUE(copy());
  auto copied = attribute(to + "/etc/hostname", "security.capability");
  ASSERT_EQ(copied.size(), 24u);
  EXPECT_EQ(copied.substr(20), std::string("\x40\x4b\x4c\x00", 4));  // 5 000 000
  if (!lists) GTEST_SKIP() << "the file system has no access lists";
  copied = attribute(to + "/etc/hostname", "system.posix_acl_access");
  ASSERT_EQ(copied.size(), list.size());
  EXPECT_EQ(copied.substr(16, 4), std::string("\x45\x4b\x4c\x00", 4));  // 5 000 005
}

TEST_F(CopyTest, KeepsHolesLinksAndSpecialFiles) {
  write(from + "/big", "begin");
  ASSERT_EQ(::truncate((from + "/big").c_str(), 64 << 20), 0);
  ASSERT_EQ(::link((from + "/etc/hostname").c_str(), (from + "/again").c_str()), 0);
  ASSERT_EQ(::symlink("../../etc/passwd", (from + "/etc/link").c_str()), 0);
  ASSERT_EQ(::mkfifo((from + "/pipe").c_str(), 0600), 0);
  ASSERT_TRUE(copy());
  EXPECT_EQ(stat_of(to + "/big").st_size, 64 << 20);
  EXPECT_LT(stat_of(to + "/big").st_blocks * 512, 1 << 20);
  EXPECT_EQ(stat_of(to + "/again").st_ino, stat_of(to + "/etc/hostname").st_ino);
  EXPECT_EQ(fs::read_symlink(to + "/etc/link"), "../../etc/passwd");
  EXPECT_TRUE(S_ISFIFO(stat_of(to + "/pipe").st_mode));
}

TEST_F(CopyTest, RemembersOnlySoManyLinks) {
  for (const std::string name : {"a", "b"}) {
    write(from + "/" + name, "x");
    ASSERT_EQ(::link((from + "/" + name).c_str(), (from + "/" + name + "2").c_str()), 0);
  }
  options.most_memory = 200;
  auto refused = copy();
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().kind(), ErrorKind::unsupported);
  to += "2";
  options.most_memory = 400;
  EXPECT_TRUE(copy());
}

TEST_F(CopyTest, LinksWhatIsTheSameInAnEarlierCopy) {
  ASSERT_TRUE(copy());
  options.earlier = to;
  to += "2";
  write(from + "/etc/hostname", "new\n");
  own("/etc/hostname", 1'000'000);
  ASSERT_TRUE(copy());
  EXPECT_EQ(stat_of(to + "/etc/deep/file").st_ino, stat_of(options.earlier + "/etc/deep/file").st_ino);
  EXPECT_EQ(read_file(to + "/etc/hostname").value(), "new\n");
  EXPECT_EQ(read_file(options.earlier + "/etc/hostname").value(), "web\n");
}

/// What a call does in a process that may have no more than 2 MiB of data more than now; its exit status.
int with_little_memory(const std::function<bool()>& call) {
  const auto child = ::fork();
  if (child == 0) {
    std::size_t pages = 0, data = 0;
    std::ifstream statm("/proc/self/statm");
    for (int n = 0; n < 6; ++n) statm >> (n == 5 ? data : pages);
    const rlim_t limit = data * 4096 + (2u << 20);
    const rlimit both{limit, limit};
    ::_exit(::setrlimit(RLIMIT_DATA, &both) == 0 && call() ? 0 : 1);
  }
  int status = -1;
  ::waitpid(child, &status, 0);
  return status;
}

TEST_F(CopyTest, ADirectoryWithManyNamesTakesNoMemoryForThem) {
#if defined(__SANITIZE_ADDRESS__) || __has_feature(address_sanitizer)
  GTEST_SKIP() << "the sanitizer takes memory of its own";
#endif
  constexpr int files = 20'000;
  const std::string tail(200, 'n');
  fs::create_directory(from + "/many");
  for (int n = 0; n < files; ++n) ASSERT_EQ(::mkfifo(fmt::format("{}/many/{}{}", from, n, tail).c_str(), 0600), 0);
  EXPECT_EQ(with_little_memory([&] { return copy().has_value(); }), 0);
  int copied = 0;
  for (fs::directory_iterator it(to + "/many"), end; it != end; ++it) ++copied;
  EXPECT_EQ(copied, files);
  EXPECT_EQ(with_little_memory([&] { return remove_tree(to).has_value(); }), 0);
  EXPECT_FALSE(exists(to));
}

TEST_F(CopyTest, StopsAndRefusesWhatIsThere) {
  control.stop = true;
  auto stopped = copy();
  ASSERT_FALSE(stopped);
  EXPECT_EQ(stopped.error().kind(), ErrorKind::cancelled);
  control.stop = false;
  auto there = copy();
  ASSERT_FALSE(there);
  EXPECT_EQ(there.error().kind(), ErrorKind::exists);
}

}  // namespace
}  // namespace virga::io
