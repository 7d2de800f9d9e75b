#include "wire/sftp/server/tree.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace virga::sftp {
namespace {

/// Ids and modes that no file can have; what a cast would make of them is never what was meant (S16).
constexpr std::uint32_t no_id = 0xffffffffu;
constexpr std::uint32_t mode_bits = 07777;

const char* relative(const char* path) {
  while (*path == '/') ++path;
  return *path == 0 ? "." : path;
}

class Fd {
 public:
  Fd() = default;
  Fd(const Fd&) = delete;
  Fd& operator=(const Fd&) = delete;
  ~Fd() {
    if (value >= 0) close(value);
  }
  int release() {
    const int fd = value;
    value = -1;
    return fd;
  }
  int value = -1;
};

int result(int returned) {
  return returned == 0 ? 0 : errno;
}

}  // namespace

/// A directory, held open, and a name in it.
struct Tree::Place {
  Fd directory;
  char name[256];
};

int Tree::open_at(const char* path, int flags, mode_t mode, int& fd) const {
  struct open_how how = {};
  how.flags = static_cast<unsigned>(flags | O_CLOEXEC);
  how.mode = (flags & O_CREAT) != 0 ? mode & mode_bits : 0;
  how.resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS;
  for (int round = 0;; ++round) {
    fd = static_cast<int>(syscall(SYS_openat2, root_, relative(path), &how, sizeof how));
    if (fd >= 0) return 0;
    // EAGAIN: something was renamed on the way while the kernel looked. A guest may do that all day: give up some time.
    if ((errno == EAGAIN || errno == EINTR) && round < 200) continue;
    break;
  }
  if (errno != ENOSYS || !fall_back_) return errno;
  fd = openat(root_, relative(path), flags | O_CLOEXEC, mode & mode_bits);
  return fd >= 0 ? 0 : errno;
}

int Tree::parent_of(const char* path, Place& place) const {
  char parent[max_path];
  std::size_t size = strlen(path);
  while (size > 0 && path[size - 1] == '/') --size;
  std::size_t slash = size;
  while (slash > 0 && path[slash - 1] != '/') --slash;
  const std::size_t length = size - slash;
  if (length >= sizeof place.name || slash >= sizeof parent) return ENAMETOOLONG;
  memcpy(place.name, path + slash, length);
  place.name[length] = 0;
  if (length == 0 || strcmp(place.name, ".") == 0 || strcmp(place.name, "..") == 0) return EINVAL;
  memcpy(parent, path, slash);
  parent[slash] = 0;
  return open_at(parent, O_PATH | O_DIRECTORY, 0, place.directory.value);
}

int Tree::open_file(const char* path, std::uint32_t sftp_flags, mode_t mode, int& fd) const {
  const bool reads = (sftp_flags & open_read) != 0, writes = (sftp_flags & open_write) != 0;
  int flags = (reads && writes ? O_RDWR : writes ? O_WRONLY : O_RDONLY) | O_NONBLOCK | O_NOCTTY;
  if ((sftp_flags & open_append) != 0) flags |= O_APPEND;
  if ((sftp_flags & open_truncate) != 0 && writes) flags |= O_TRUNC;
  if ((sftp_flags & open_create) != 0) flags |= O_CREAT;
  if ((sftp_flags & open_create) != 0 && (sftp_flags & open_exclusive) != 0) flags |= O_EXCL;
  // Opening a device can do things already: what is there is looked at first. It may be something else a moment later, which is
  // why nothing blocks and the opened file is looked at again.
  struct ::stat st;
  Fd there;
  auto opens = [&] { return S_ISREG(st.st_mode) || (S_ISDIR(st.st_mode) && !writes); };
  if (open_at(path, O_PATH, 0, there.value) == 0 && fstat(there.value, &st) == 0 && !opens())
    return S_ISDIR(st.st_mode) ? EISDIR : ENODEV;
  Fd opened;
  if (const int error = open_at(path, flags, mode, opened.value); error != 0) return error;
  if (fstat(opened.value, &st) != 0) return errno;
  if (!opens()) return S_ISDIR(st.st_mode) ? EISDIR : ENODEV;
  fd = opened.release();
  return 0;
}

int Tree::open_directory(const char* path, int& fd) const {
  return open_at(path, O_RDONLY | O_DIRECTORY | O_NONBLOCK, 0, fd);
}

int Tree::stat(const char* path, bool follow, struct ::stat& st) const {
  if (follow || relative(path)[0] == '.') {
    Fd fd;
    const int error = open_at(path, follow ? O_PATH : O_PATH | O_NOFOLLOW, 0, fd.value);
    return error != 0 ? error : result(fstat(fd.value, &st));
  }
  Place place;
  if (const int error = parent_of(path, place); error != 0) return error;
  return result(fstatat(place.directory.value, place.name, &st, AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT));
}

int Tree::set(const char* path, bool follow, const Attributes& a) const {
  Fd there;
  if (const int error = open_at(path, follow ? O_PATH : O_PATH | O_NOFOLLOW, 0, there.value); error != 0) return error;
  struct ::stat st;
  if (fstat(there.value, &st) != 0) return errno;
  if (!S_ISREG(st.st_mode) && !S_ISDIR(st.st_mode)) {
    // Links, fifos and devices have an owner; the rest cannot be set without opening them.
    if ((a.flags & (attr_size | attr_times)) != 0 || ((a.flags & attr_permissions) != 0 && !S_ISLNK(st.st_mode))) return EOPNOTSUPP;
    if ((a.flags & attr_owner) == 0) return 0;
    if (a.uid == no_id || a.gid == no_id) return EINVAL;
    return result(fchownat(there.value, "", a.uid, a.gid, AT_EMPTY_PATH));
  }
  const bool truncates = (a.flags & attr_size) != 0;
  Fd opened;
  const int flags = S_ISDIR(st.st_mode) ? O_RDONLY | O_DIRECTORY : (truncates ? O_WRONLY : O_RDONLY) | O_NOCTTY;
  const int error = open_at(path, flags | O_NONBLOCK | (follow ? 0 : O_NOFOLLOW), 0, opened.value);
  if (error != 0) return error;
  struct ::stat now;
  if (fstat(opened.value, &now) != 0) return errno;
  if (now.st_ino != st.st_ino || now.st_dev != st.st_dev) return EBUSY;
  return set_attributes(opened.value, a);
}

int Tree::remove(const char* path) const {
  Place place;
  const int error = parent_of(path, place);
  return error != 0 ? error : result(unlinkat(place.directory.value, place.name, 0));
}

int Tree::make_directory(const char* path, mode_t mode) const {
  Place place;
  const int error = parent_of(path, place);
  return error != 0 ? error : result(mkdirat(place.directory.value, place.name, mode & mode_bits));
}

int Tree::remove_directory(const char* path) const {
  Place place;
  const int error = parent_of(path, place);
  return error != 0 ? error : result(unlinkat(place.directory.value, place.name, AT_REMOVEDIR));
}

int Tree::rename(const char* from, const char* to, bool replace) const {
  Place a, b;
  if (const int error = parent_of(from, a); error != 0) return error;
  if (const int error = parent_of(to, b); error != 0) return error;
  if (replace) return result(renameat(a.directory.value, a.name, b.directory.value, b.name));
  return result(static_cast<int>(syscall(SYS_renameat2, a.directory.value, a.name, b.directory.value, b.name, RENAME_NOREPLACE)));
}

int Tree::read_link(const char* path, char* target, std::size_t room) const {
  Place place;
  if (const int error = parent_of(path, place); error != 0) return error;
  const ssize_t n = readlinkat(place.directory.value, place.name, target, room - 1);
  if (n < 0) return errno;
  target[n] = 0;
  return 0;
}

int Tree::make_link(const char* target, const char* path) const {
  Place place;
  const int error = parent_of(path, place);
  return error != 0 ? error : result(symlinkat(target, place.directory.value, place.name));
}

int Tree::make_hard_link(const char* from, const char* to) const {
  Place a, b;
  if (const int error = parent_of(from, a); error != 0) return error;
  if (const int error = parent_of(to, b); error != 0) return error;
  return result(linkat(a.directory.value, a.name, b.directory.value, b.name, 0));
}

int Tree::space(const char* path, struct ::statvfs& st) const {
  Fd fd;
  const int error = open_at(path, O_PATH, 0, fd.value);
  return error != 0 ? error : result(fstatvfs(fd.value, &st));
}

int set_attributes(int fd, const Attributes& a) {
  if ((a.flags & attr_size) != 0) {
    if (a.size > 0x7fffffffffffffffull) return EFBIG;
    if (ftruncate(fd, static_cast<off_t>(a.size)) != 0) return errno;
  }
  // The owner first: changing it takes setuid bits away.
  if ((a.flags & attr_owner) != 0) {
    if (a.uid == no_id || a.gid == no_id) return EINVAL;
    if (fchown(fd, a.uid, a.gid) != 0) return errno;
  }
  if ((a.flags & attr_permissions) != 0 && fchmod(fd, a.permissions & mode_bits) != 0) return errno;
  if ((a.flags & attr_times) != 0) {
    struct timespec times[2] = {};
    times[0].tv_sec = a.accessed;
    times[1].tv_sec = a.modified;
    if (futimens(fd, times) != 0) return errno;
  }
  return 0;
}

Attributes attributes_of(const struct ::stat& st) {
  Attributes a;
  a.flags = attr_size | attr_owner | attr_permissions | attr_times;
  a.size = static_cast<std::uint64_t>(st.st_size);
  a.uid = st.st_uid;
  a.gid = st.st_gid;
  a.permissions = st.st_mode;
  a.accessed = static_cast<std::uint32_t>(st.st_atim.tv_sec);
  a.modified = static_cast<std::uint32_t>(st.st_mtim.tv_sec);
  return a;
}

}  // namespace virga::sftp
