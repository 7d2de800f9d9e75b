#include "io/process.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/stat.h>

#include <boost/asio/io_context.hpp>
#include <filesystem>

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

TEST(Process, CollectsStreamsAndCode) {
  run([]() -> Task<> {
    ProcessSpec spec;
    spec.argv = {"sh", "-c", "cat; echo err >&2; exit 3"};
    spec.input = "hello";
    auto r = co_await run_process(std::move(spec));
    EXPECT_TRUE(r.has_value());
    EXPECT_EQ(r->out, "hello");
    EXPECT_EQ(r->err, "err\n");
    EXPECT_EQ(r->status.code, 3);
  });
}

TEST(Process, PassesOnlyTheNamedDescriptors) {
  run([]() -> Task<> {
    ProcessSpec spec;
    int p[2];
    EXPECT_EQ(::pipe(p), 0);  // on purpose without O_CLOEXEC
    spec.argv = {"sh", "-c", "ls /proc/self/fd | tr '\\n' ' '"};
    spec.fds = {{p[0], 5}};
    auto r = co_await run_process(std::move(spec));
    ::close(p[0]);
    ::close(p[1]);
    EXPECT_TRUE(r.has_value());
    EXPECT_EQ(r->out, "0 1 2 3 5 ") << "3 is ls reading the directory";
  });
}

TEST(Process, TimesOutOverflowsAndMisses) {
  run([]() -> Task<> {
    ProcessSpec slow;
    slow.argv = {"sleep", "20"};
    auto r = co_await run_process(std::move(slow), {.timeout = Milliseconds(20)});
    EXPECT_EQ(r.error().kind(), ErrorKind::timeout);
    ProcessSpec loud;
    loud.argv = {"sh", "-c", "yes"};
    auto l = co_await run_process(std::move(loud), {.max_output = 1000});
    EXPECT_EQ(l.error().kind(), ErrorKind::unavailable);
    ProcessSpec none;
    none.argv = {"no-such-program-here"};
    auto n = co_await run_process(std::move(none));
    EXPECT_EQ(n.error().kind(), ErrorKind::not_found);
  });
}

TEST(File, RemoveTreeCopesWithDepthAndLeavesSymlinkTargets) {
  auto base = std::filesystem::temp_directory_path() / ("virga-rm-" + std::to_string(::getpid()));
  std::filesystem::create_directory(base);
  std::filesystem::create_directory(base / "kept");
  std::filesystem::create_directory(base / "gone");
  std::filesystem::create_directory_symlink(base / "kept", base / "gone" / "link");
  auto at = (base / "gone").string();
  int fd = ::open(at.c_str(), O_RDONLY | O_DIRECTORY);
  for (int i = 0; i < 3000; ++i) {
    ::mkdirat(fd, "d", 0700);
    int next = ::openat(fd, "d", O_RDONLY | O_DIRECTORY);
    ::close(fd);
    fd = next;
  }
  ::close(fd);
  auto removed = remove_tree(at);
  EXPECT_TRUE(removed) << removed.error().text();
  EXPECT_TRUE(remove_tree(at)) << "absent is success";
  EXPECT_TRUE(exists((base / "kept").string()));
  EXPECT_TRUE(remove_tree(base.string()));
}

}  // namespace
}  // namespace virga::io
