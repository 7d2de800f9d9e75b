// Bounded logs. At the limit the newest half is copied to a new file that takes the old one's name, so that readers always find one
// file with the newest output and the disk never holds more than one and a half times the limit, for a moment.
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <unistd.h>

#include "apps/virga-shim/shim.h"

namespace virga::shim {
namespace {

constexpr int open_flags = O_RDWR | O_CREAT | O_APPEND | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC;

void shrink(Log& log) {
  char beside[sizeof log.name + 8];
  const size_t n = strlen(log.name);
  memcpy(beside, log.name, n);
  memcpy(beside + n, ".new", 5);
  // O_APPEND refuses sendfile as a target, so the copy is made before it is set.
  int fd = openat(log.dir, beside, O_RDWR | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600);
  bool ok = fd >= 0;
  off_t at = static_cast<off_t>(log.size - log.limit / 2);
  uint64_t left = log.limit / 2;
  while (ok && left > 0) {
    const ssize_t done = sendfile(fd, log.fd, &at, left);
    if (done <= 0)
      ok = false;
    else
      left -= static_cast<uint64_t>(done);
  }
  ok = ok && fcntl(fd, F_SETFL, O_APPEND) == 0 && renameat(log.dir, beside, log.dir, log.name) == 0;
  if (!ok) {  // a full disk: keeping the bound matters more than keeping the text
    if (fd >= 0) close(fd);
    unlinkat(log.dir, beside, 0);
    if (ftruncate(log.fd, 0) == 0) log.size = 0;
    return;
  }
  close(log.fd);
  log.fd = fd;
  log.size = log.limit / 2;
}

}  // namespace

bool log_open(Log& log, const char* path, uint64_t limit) {
  const char* slash = strrchr(path, '/');
  const char* name = slash ? slash + 1 : path;
  const size_t n = strlen(name);
  if (n == 0 || n >= sizeof log.name) return false;
  memcpy(log.name, name, n + 1);
  if (slash != nullptr) {
    char dir[4096];
    const size_t d = static_cast<size_t>(slash - path);
    if (d >= sizeof dir) return false;
    memcpy(dir, path, d);
    dir[d] = '\0';
    log.dir = open(d == 0 ? "/" : dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
  } else {
    log.dir = open(".", O_PATH | O_DIRECTORY | O_CLOEXEC);
  }
  if (log.dir < 0) return false;
  log.fd = openat(log.dir, log.name, open_flags, 0600);
  struct stat st;
  if (log.fd < 0 || fstat(log.fd, &st) != 0 || !S_ISREG(st.st_mode)) return false;
  log.limit = limit < 4096 ? 4096 : limit;
  log.size = static_cast<uint64_t>(st.st_size);
  if (log.size > log.limit) shrink(log);
  return true;
}

int log_clear(Log& log) {
  if (log.fd < 0) return 0;
  if (ftruncate(log.fd, 0) != 0) return errno;
  log.size = 0;
  return 0;
}

void log_write(Log& log, const char* data, size_t size) {
  if (log.fd < 0) return;
  while (size > 0) {
    if (log.size >= log.limit) shrink(log);
    uint64_t room = log.limit - log.size;
    if (room > size) room = size;
    const ssize_t n = write(log.fd, data, room);
    if (n <= 0) return;  // a full disk loses log text, nothing else
    log.size += static_cast<uint64_t>(n);
    data += n;
    size -= static_cast<size_t>(n);
  }
}

}  // namespace virga::shim
