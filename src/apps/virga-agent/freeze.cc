// Holding the guest's file systems still. A process of its own does it and lets go when it is told to, when the agent is gone, or
// when the time is up, whichever comes first: a guest is never left frozen.
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <mntent.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

#include "guest.h"

namespace virga::agent {
namespace {

constexpr int max_held = 64;

int control = -1;  ///< closing it lets go
int status = -1;   ///< ends when all is let go

struct Held {
  int fds[max_held];
  dev_t devices[max_held];
  int count = 0;
};

bool known(const Held& held, dev_t device) {
  for (int i = 0; i < held.count; ++i)
    if (held.devices[i] == device) return true;
  return false;
}

/// What lies on devices, each once; the mount table is in the order of mounting.
void find_all(Held& held) {
  FILE* table = ::setmntent("/proc/self/mounts", "re");
  if (table == nullptr) return;
  for (struct mntent* m; (m = ::getmntent(table)) != nullptr && held.count < max_held;) {
    if (::strncmp(m->mnt_fsname, "/dev/", 5) != 0 || ::hasmntopt(m, "ro") != nullptr) continue;
    const int fd = ::open(m->mnt_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NONBLOCK);
    struct stat st;
    if (fd < 0) continue;
    if (::fstat(fd, &st) != 0 || known(held, st.st_dev)) {
      ::close(fd);
      continue;
    }
    held.fds[held.count] = fd;
    held.devices[held.count++] = st.st_dev;
  }
  ::endmntent(table);
}

void let_go(const Held& held) {
  for (int i = 0; i < held.count; ++i)
    if (held.fds[i] >= 0) ::ioctl(held.fds[i], FITHAW, 0);
}

[[noreturn]] void hold(int told, int tell, unsigned longest_ms) {
  ::signal(SIGTERM, SIG_IGN);
  ::signal(SIGINT, SIG_IGN);
  ::setsid();
  Held held;
  find_all(held);
  unsigned char result = 0;
  // The last mounted first: what lies on another file system is written out before that one is held.
  for (int i = held.count; i-- > 0 && result == 0;) {
    if (::ioctl(held.fds[i], FIFREEZE, 0) == 0) continue;
    // One that cannot, or that somebody else holds, is not ours to let go.
    if (errno != EOPNOTSUPP && errno != ENOTTY && errno != EBUSY) result = 1;
    ::close(held.fds[i]);
    held.fds[i] = -1;
  }
  if (result != 0) let_go(held);
  const ssize_t ignored = ::write(tell, &result, 1);
  static_cast<void>(ignored);
  if (result == 0) {
    struct pollfd wait = {told, POLLIN, 0};
    const int ms = longest_ms > 600'000 ? 600'000 : static_cast<int>(longest_ms);
    while (::poll(&wait, 1, ms) < 0 && errno == EINTR) {
    }
    let_go(held);
  }
  ::_exit(0);
}

void close_one(int& fd) {
  if (fd >= 0) ::close(fd);
  fd = -1;
}

}  // namespace

bool freeze_files(unsigned longest_ms) {
  thaw_files();
  int to[2], from[2];
  if (::pipe2(to, O_CLOEXEC) != 0) return false;
  if (::pipe2(from, O_CLOEXEC) != 0) {
    ::close(to[0]);
    ::close(to[1]);
    return false;
  }
  const pid_t pid = ::fork();
  if (pid == 0) {
    ::close(to[1]);
    ::close(from[0]);
    hold(to[0], from[1], longest_ms);
  }
  ::close(to[0]);
  ::close(from[1]);
  control = to[1];
  status = from[0];
  unsigned char result = 1;
  struct pollfd wait = {status, POLLIN, 0};
  // Writing out takes as long as there is to write; who asked does not wait for ever.
  if (pid < 0 || ::poll(&wait, 1, 4'000) <= 0 || ::read(status, &result, 1) != 1 || result != 0) {
    close_one(control);
    close_one(status);
    return false;
  }
  return true;
}

void thaw_files() {
  close_one(control);
  if (status < 0) return;
  unsigned char none;
  struct pollfd wait = {status, POLLIN, 0};
  if (::poll(&wait, 1, 2'000) > 0) {
    const ssize_t ignored = ::read(status, &none, 1);
    static_cast<void>(ignored);
  }
  close_one(status);
}

}  // namespace virga::agent
