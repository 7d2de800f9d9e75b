// What a client sends to the server of a guest's files: nothing leaves its directory, and no bytes break it.
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <thread>

#include "wire/sftp/server/server.h"

namespace {

/// A small tree with a way out, for whoever finds it.
int make_root() {
  char name[] = "/tmp/virga-fuzz-XXXXXX";
  if (::mkdtemp(name) == nullptr) std::abort();
  const int outside = ::open(name, O_PATH | O_DIRECTORY | O_CLOEXEC);
  ::mkdirat(outside, "root", 0755);
  const int root = ::openat(outside, "root", O_PATH | O_DIRECTORY | O_CLOEXEC);
  ::mkdirat(root, "d", 0755);
  (void)!::symlinkat("../..", root, "up");
  ::close(::openat(root, "f", O_CREAT | O_WRONLY | O_CLOEXEC, 0644));
  return root;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const int root = make_root();
  if (size > 60'000) return 0;
  int ends[2];
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) std::abort();
  static constexpr unsigned char hello[] = {0, 0, 0, 5, 1, 0, 0, 0, 3};
  (void)!::write(ends[0], hello, sizeof hello);
  (void)!::write(ends[0], data, size);
  ::shutdown(ends[0], SHUT_WR);
  std::thread reader([fd = ends[0]] {
    char scrap[4096];
    while (::read(fd, scrap, sizeof scrap) > 0) {
    }
  });
  virga::sftp::serve(ends[1], ends[1], root, false);
  ::close(ends[1]);
  reader.join();
  ::close(ends[0]);
  return 0;
}
