// Paths that attackers choose (S01, S03, S16 of the security guide): none leads outside, none blocks.
#include "io/beneath.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include <atomic>
#include <filesystem>
#include <thread>

#include "io/file.h"

namespace virga::io {
namespace {

class BeneathTest : public testing::Test {
 protected:
  BeneathTest() {
    char name[] = "/tmp/virga-beneath-XXXXXX";
    base_ = ::mkdtemp(name);
    for (const char* d : {"/root", "/root/etc", "/outside"}) EXPECT_TRUE(make_directory(base_ + d));
    EXPECT_TRUE(write_file_durably(base_ + "/outside/secret", "canary"));
    EXPECT_TRUE(write_file_durably(base_ + "/root/etc/hosts", "inside"));
    EXPECT_TRUE(write_file_durably(base_ + "/root/secret", "own"));
    root_.emplace(std::move(Beneath::open(base_ + "/root")).value());
  }
  ~BeneathTest() override {
    EXPECT_EQ(read_file(base_ + "/outside/secret").value_or(""), "canary") << "the canary was touched";
    EXPECT_EQ(std::distance(std::filesystem::directory_iterator(base_ + "/outside"), {}), 1) << "something was made outside";
    EXPECT_TRUE(remove_tree(base_));
  }
  void link(const std::string& target, const std::string& at) {
    ASSERT_EQ(::symlink(target.c_str(), (base_ + "/root/" + at).c_str()), 0);
  }
  static std::string text(const UniqueFd& fd) {
    char b[64];
    const auto n = ::read(fd.get(), b, sizeof b);
    return n > 0 ? std::string(b, static_cast<std::size_t>(n)) : "";
  }
  ErrorKind open_error(std::string_view path, Beneath::Links links = Beneath::Links::refuse) {
    auto fd = root_->open_file(path, O_RDONLY, links);
    EXPECT_FALSE(fd) << path << " gave " << (fd ? text(*fd) : "");
    return fd ? ErrorKind::internal : fd.error().kind();
  }
  std::string base_;
  std::optional<Beneath> root_;
};

TEST_F(BeneathTest, OpensWhatIsInside) {
  for (const char* path : {"etc/hosts", "/etc/hosts", "//etc//hosts", "./etc/./hosts"}) {
    auto fd = root_->open_file(path, O_RDONLY);
    ASSERT_TRUE(fd) << path << ": " << fd.error().text();
    EXPECT_EQ(text(*fd), "inside");
    EXPECT_NE(::fcntl(fd->get(), F_GETFD) & FD_CLOEXEC, 0);
    EXPECT_EQ(::fcntl(fd->get(), F_GETFL) & O_NONBLOCK, 0);
  }
  EXPECT_TRUE(root_->open_file("/", O_RDONLY | O_DIRECTORY));
  EXPECT_TRUE(root_->stat("/"));
  EXPECT_EQ(open_error("etc/none"), ErrorKind::not_found);
}

TEST_F(BeneathTest, RefusesNamesThatAreNone) {
  using std::string_view_literals::operator""sv;
  const std::string too_long(4096, 'a');
  for (std::string_view path : {""sv, ".."sv, "../outside/secret"sv, "etc/../../outside/secret"sv, "etc/.."sv, "/../etc"sv,
                                "etc/hosts\0x"sv, "\0"sv, std::string_view(too_long)}) {
    EXPECT_EQ(open_error(path), ErrorKind::invalid);
    EXPECT_FALSE(root_->make_directories(path, 0755));
    EXPECT_FALSE(root_->create_file(path, 0644));
    EXPECT_FALSE(root_->make_symlink(path, "x"));
    EXPECT_FALSE(root_->subdirectory(path));
    EXPECT_FALSE(root_->stat(path));
  }
  EXPECT_FALSE(root_->create_file("/", 0644));
  EXPECT_FALSE(root_->make_symlink("x", std::string("a\0b", 3)));
  for (std::string_view odd : {" "sv, "trailing "sv, "\xff\xfe"sv, "..."sv, "new\nline"sv})
    EXPECT_TRUE(root_->create_file(odd, 0600)) << odd;
}

TEST_F(BeneathTest, LinksDoNotLeadOutside) {
  link(base_ + "/outside", "absolute");
  link("../outside", "relative");
  link("/proc/self/root", "magic");
  link("/proc/self/cwd", "cwd");
  link(base_ + "/outside/secret", "file");
  link("/etc/hosts", "hosts");
  link("loop", "loop");
  for (const char* path : {"absolute/secret", "relative/secret", "magic/etc/passwd", "cwd", "file", "hosts", "loop"})
    EXPECT_EQ(open_error(path), ErrorKind::denied) << path;
  // Inside means: as a process chrooted there would see it.
  for (const char* path : {"absolute/secret", "magic/etc/passwd", "cwd", "file"})
    EXPECT_EQ(open_error(path, Beneath::Links::follow_inside), ErrorKind::not_found) << path;
  EXPECT_EQ(open_error("loop", Beneath::Links::follow_inside), ErrorKind::denied);
  auto hosts = root_->open_file("hosts", O_RDONLY, Beneath::Links::follow_inside);
  ASSERT_TRUE(hosts);
  EXPECT_EQ(text(*hosts), "inside") << "/etc/hosts of the root, not of the host";
  for (const char* dir : {"absolute", "relative", "magic"}) {
    EXPECT_EQ(root_->make_directories(std::string(dir) + "/made", 0755).error().kind(), ErrorKind::denied);
    EXPECT_EQ(root_->create_file(std::string(dir) + "/made", 0644).error().kind(), ErrorKind::denied);
    EXPECT_EQ(root_->make_symlink(std::string(dir) + "/made", "x").error().kind(), ErrorKind::denied);
    EXPECT_EQ(root_->subdirectory(dir).error().kind(), ErrorKind::denied);
    EXPECT_EQ(root_->stat(std::string(dir) + "/secret").error().kind(), ErrorKind::denied);
    EXPECT_TRUE(S_ISLNK(root_->stat(dir)->st_mode)) << "a link is described, not followed";
  }
  EXPECT_EQ(root_->create_file("file", 0644).error().kind(), ErrorKind::exists);
  EXPECT_FALSE(Beneath::open(base_ + "/root/relative")) << "the root itself is no link";
}

TEST_F(BeneathTest, MagicLinksAreRefusedBelowProc) {
  auto proc = Beneath::open("/proc");
  ASSERT_TRUE(proc);
  for (auto links : {Beneath::Links::refuse, Beneath::Links::follow_inside}) {
    EXPECT_FALSE(proc->open_file("self/root/etc/passwd", O_RDONLY, links));
    EXPECT_FALSE(proc->open_file("self/exe", O_RDONLY, links));
    EXPECT_FALSE(proc->open_file("self/fd/0", O_RDONLY, links));
  }
}

TEST_F(BeneathTest, NothingBlocks) {
  ASSERT_EQ(::mkfifo((base_ + "/root/fifo").c_str(), 0600), 0);
  EXPECT_FALSE(root_->open_file("fifo", O_WRONLY)) << "nobody reads";
  auto fifo = root_->open_file("fifo", O_RDONLY);  // hangs for good if O_NONBLOCK is forgotten
  EXPECT_TRUE(fifo);
}

TEST_F(BeneathTest, MakesDirectoriesFilesAndLinks) {
  EXPECT_TRUE(root_->make_directories("a/b//c/", 0751));
  EXPECT_TRUE(root_->make_directories("/a/b/c/d", 0700)) << "again and deeper";
  EXPECT_EQ(root_->stat("a/b/c")->st_mode & 07777, 0751u);
  EXPECT_EQ(root_->make_directories("secret/x", 0755).error().kind(), ErrorKind::invalid) << "a file on the way";
  auto file = root_->create_file("a/b/file", 0640);
  ASSERT_TRUE(file);
  EXPECT_EQ(root_->stat("a/b/file")->st_mode & 07777, 0640u);
  EXPECT_EQ(root_->create_file("a/b/file", 0640).error().kind(), ErrorKind::exists);
  EXPECT_EQ(root_->create_file("a/none/file", 0640).error().kind(), ErrorKind::not_found);
  EXPECT_TRUE(root_->make_symlink("a/link", "/anywhere at all"));
  auto sub = root_->subdirectory("a/b");
  ASSERT_TRUE(sub);
  EXPECT_TRUE(sub->stat("file"));
}

TEST_F(BeneathTest, ASwappedDirectoryDoesNotLeadOutside) {
  // S16: a guest swaps a directory for a link as fast as it can.
  EXPECT_TRUE(make_directory(base_ + "/root/d"));
  EXPECT_TRUE(write_file_durably(base_ + "/root/d/secret", "own"));
  link(base_ + "/outside", "l");
  std::atomic<bool> stop{false};
  std::thread guest([&] {
    const auto d = base_ + "/root/d", l = base_ + "/root/l";
    while (!stop) ::renameat2(AT_FDCWD, d.c_str(), AT_FDCWD, l.c_str(), RENAME_EXCHANGE);
  });
  int opened = 0;
  for (int i = 0; i < 20000; ++i) {
    auto fd = root_->open_file("d/secret", O_RDONLY, i % 2 ? Beneath::Links::refuse : Beneath::Links::follow_inside);
    if (!fd) continue;
    ++opened;
    ASSERT_EQ(text(*fd), "own");
  }
  stop = true;
  guest.join();
  EXPECT_GT(opened, 0);
}

}  // namespace
}  // namespace virga::io
