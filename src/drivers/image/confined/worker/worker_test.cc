#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <functional>
#include <string>

#include "drivers/image/confined/worker/disk_header.h"
#include "drivers/image/confined/worker/entry_name.h"
#include "drivers/image/confined/worker/metadata.h"
#include "drivers/image/confined/worker/sandbox.h"
#include "io/file.h"

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define VIRGA_SANITIZED 1
#endif
#endif

namespace virga::image {
namespace {

TEST(EntryName, Grammar) {
  for (const char* name : {"a", "a/b", "./a", "a/", "./a/b/", "...", "..a", "a..", " ", "a b/\xff"})
    EXPECT_TRUE(clean_name(name)) << name;
  EXPECT_EQ(*clean_name("./a/b/"), "a/b");
  EXPECT_EQ(*clean_name("."), "");
  EXPECT_EQ(*clean_name("./"), "");
  using namespace std::string_view_literals;
  for (auto name : {""sv, "/"sv, "//"sv, "/a"sv, ".."sv, "../a"sv, "a/../b"sv, "a/.."sv, "a//b"sv, "a/./b"sv, "a\0b"sv, ".//a"sv,
                    "././a"sv, "a//"sv, "./."sv, "./.."sv})
    EXPECT_FALSE(clean_name(name)) << name;
  EXPECT_FALSE(clean_name(std::string(256, 'a')));
  EXPECT_FALSE(clean_name(std::string(5000, 'a')));
  EXPECT_EQ(split_name("a/b/c"), std::pair("a/b"sv, "c"sv));
  EXPECT_EQ(split_name("a"), std::pair(""sv, "a"sv));
  EXPECT_EQ(printable("a\x1b[31m"), "a?[31m");
}

TEST(Metadata, DecodesWhatBuildersWrite) {
  auto m = decode_metadata(
      "architecture: \"x86_64\"\ncreation_date: 1717200000\nexpiry_date: 1719792000\nproperties:\n  architecture: amd64\n  "
      "release: 12\n  empty:\n"
      "templates:\n  /etc/hosts:\n    when:\n    - create\n    - copy\n    create_only: true\n    template: hosts.tpl\n    "
      "properties:\n      a: 1\n");
  ASSERT_TRUE(m) << m.error().text();
  EXPECT_EQ(m->expiry_date, 1'719'792'000);
  EXPECT_EQ(m->properties.at("release"), "12");
  EXPECT_EQ(m->properties.at("empty"), "");
  EXPECT_TRUE(m->templates.at("/etc/hosts").create_only);
  EXPECT_EQ(m->templates.at("/etc/hosts").when.size(), 2u);
  EXPECT_EQ(m->templates.at("/etc/hosts").properties.at("a"), "1");
}

TEST(DiskHeader, EveryByteMayBeAnything) {
  // A version 3 header for 16 MiB, its tables at clusters 1 and 2 of a file of four.
  std::string head(65536, '\0');
  auto put = [&](std::size_t at, std::uint64_t v, int n) {
    for (int i = 0; i < n; ++i) head[at + static_cast<std::size_t>(i)] = static_cast<char>(v >> (8 * (n - 1 - i)));
  };
  head.replace(0, 4, "QFI\xfb");
  put(4, 3, 4);
  put(20, 16, 4);
  put(24, 16u << 20, 8);
  put(36, 1, 4);
  put(40, 0x20000, 8);
  put(48, 0x10000, 8);
  put(56, 1, 4);
  put(96, 4, 4);
  put(100, 104, 4);
  constexpr Bytes size = 4 * 65536;
  auto good = inspect_qcow2(head, size);
  ASSERT_TRUE(good) << good.error().text();
  EXPECT_EQ(good->virtual_size, 16u << 20);
  EXPECT_FALSE(inspect_qcow2(head, 0x20000)) << "the L1 table is behind the end";
  for (std::size_t n = 0; n < 104; ++n) EXPECT_FALSE(inspect_qcow2(std::string_view(head).substr(0, n), size)) << n;
  for (std::size_t at = 0; at < 120; ++at)
    for (int v = 0; v < 256; ++v) {
      auto changed = head;
      changed[at] = static_cast<char>(v);
      auto r = inspect_qcow2(changed, size);
      if (r) {
        EXPECT_LE(r->virtual_size, max_virtual_disk);
        EXPECT_GE(r->cluster_bits, 9u);
        EXPECT_LE(r->cluster_bits, 21u);
      }
    }
}

/// Runs `inside` in a child that has entered the sandbox; its result is the exit code, 200 where entering failed, 128 + signal
/// where killed.
int confined(const Sandbox& sandbox, const std::function<int()>& inside) {
  const pid_t pid = ::fork();
  if (pid == 0) {
    if (auto r = enter(sandbox); !r) ::_exit(200);
    ::_exit(inside());
  }
  int status = 0;
  ::waitpid(pid, &status, 0);
  return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

class SandboxTest : public ::testing::Test {
 protected:
  void SetUp() override {
    char name[] = "/tmp/virga-sandbox-XXXXXX";
    ASSERT_NE(::mkdtemp(name), nullptr);
    base_ = name;
    std::filesystem::create_directory(base_ + "/in");
    fd_ = ::open((base_ + "/in").c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    sandbox_.largest_file = 4096;
    sandbox_.keeps_owners = true;
    sandbox_.places = {{fd_, true}};
  }
  void TearDown() override {
    ::close(fd_);
    EXPECT_TRUE(io::remove_tree(base_));
  }
  std::string base_;
  int fd_ = -1;
  Sandbox sandbox_;
};

TEST_F(SandboxTest, WritesInsideOnly) {
  const auto inside = base_ + "/in/f", outside = base_ + "/f";
  EXPECT_EQ(confined(sandbox_, [&] { return ::open(inside.c_str(), O_WRONLY | O_CREAT, 0600) >= 0 ? 0 : errno; }), 0);
  EXPECT_EQ(confined(sandbox_,
                     [&] {
                       const int fd = ::openat(fd_, "owned", O_WRONLY | O_CREAT, 0600);
                       return ::fchown(fd, 1234, 1234) == 0 ? 0 : errno;
                     }),
            0);
  // Without Landlock the extractor's own openat2 walls remain, and this would show it: the development kernels all have it.
  EXPECT_EQ(confined(sandbox_, [&] { return ::open(outside.c_str(), O_WRONLY | O_CREAT, 0600) >= 0 ? 0 : errno; }), EACCES);
  EXPECT_EQ(confined(sandbox_, [&] { return ::open("/etc/passwd", O_RDONLY) >= 0 ? 0 : errno; }), EACCES);
  EXPECT_NE(confined(sandbox_, [&] { return ::mknodat(fd_, "dev", S_IFCHR | 0600, 259) == 0 ? 0 : errno; }), 0);
  EXPECT_EQ(confined(sandbox_, [&] { return ::mknodat(fd_, "fifo", S_IFIFO | 0600, 0) == 0 ? 0 : errno; }), 0);
  EXPECT_EQ(confined(sandbox_,
                     [&] {
                       const int fd = ::openat(fd_, "large", O_WRONLY | O_CREAT, 0600);
                       return ::ftruncate(fd, 1 << 20) == 0 ? 0 : errno;
                     }),
            EFBIG);
}

TEST_F(SandboxTest, NoNetworkNoProgramsNoMemory) {
#ifdef VIRGA_SANITIZED
  GTEST_SKIP() << "the sanitizers need more system calls and memory than the filter allows";
#endif
  EXPECT_EQ(confined(sandbox_, [] { return ::socket(AF_INET, SOCK_STREAM, 0) >= 0 ? 0 : 1; }), 128 + SIGSYS);
  EXPECT_EQ(confined(sandbox_, [] { return ::socket(AF_UNIX, SOCK_STREAM, 0) >= 0 ? 0 : 1; }), 128 + SIGSYS);
  EXPECT_EQ(confined(sandbox_, [] { return ::execl("/bin/true", "true", nullptr); }), 128 + SIGSYS);
  EXPECT_EQ(confined(sandbox_, [] { return ::fork() >= 0 ? 0 : 1; }), 128 + SIGSYS);
  EXPECT_EQ(confined(sandbox_, [] { return ::kill(::getppid(), 0) == 0 ? 0 : 1; }), 128 + SIGSYS);
  EXPECT_EQ(confined(sandbox_, [] { return ::chroot("/") == 0 ? 0 : 1; }), 128 + SIGSYS);
  EXPECT_EQ(confined(sandbox_, [] { return ::setuid(0) == 0 ? 0 : errno; }), ENOSYS);
  EXPECT_EQ(confined(sandbox_,
                     [] {
                       auto* p = static_cast<char*>(::malloc(300u << 20));
                       return p == nullptr ? 7 : 0;
                     }),
            7);
}

}  // namespace
}  // namespace virga::image
