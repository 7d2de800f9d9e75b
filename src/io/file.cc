#include "io/file.h"

#include <dirent.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <vector>

#include "io/fd.h"

namespace virga::io {
namespace {

std::string parent_of(const std::string& path) {
  auto slash = path.rfind('/');
  if (slash == std::string::npos) return ".";
  return slash == 0 ? "/" : path.substr(0, slash);
}

Result<> write_all(int fd, std::string_view text, const std::string& path) {
  while (!text.empty()) {
    const auto n = ::write(fd, text.data(), text.size());
    if (n < 0) {
      if (errno == EINTR) continue;
      return fail_errno(errno, fmt::format("write '{}'", path));
    }
    text.remove_prefix(static_cast<std::size_t>(n));
  }
  return {};
}

/// Depth-first with one descriptor a level, at most `depth` levels below: deeper trees are flattened by renaming upwards.
Result<> remove_entries(int dirfd, dev_t device, int top, int depth, const std::string& path) {
  constexpr int max_depth = 200;
  std::vector<std::string> names;
  auto add = [&](const char* name) {
    names.emplace_back(name);
    return true;
  };
  VIRGA_CHECK(each_entry(dirfd, add));
  for (const auto& name : names) {
    if (::unlinkat(dirfd, name.c_str(), 0) == 0 || errno == ENOENT) continue;
    if (errno != EISDIR && errno != EPERM) return fail_errno(errno, fmt::format("remove a file below '{}'", path));
    if (::unlinkat(dirfd, name.c_str(), AT_REMOVEDIR) == 0 || errno == ENOENT) continue;
    UniqueFd sub(::openat(dirfd, name.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
    if (!sub) return fail_errno(errno, fmt::format("open a directory below '{}'", path));
    struct stat st{};
    if (::fstat(sub.get(), &st) != 0) return fail_errno(errno, fmt::format("stat below '{}'", path));
    if (st.st_dev != device) return fail(ErrorKind::busy, fmt::format("something is mounted below '{}'", path));
    if (depth >= max_depth) {
      // An image may hold 100 000 nested directories: pull the rest up to the top and let the outer loop meet it there.
      for (int n = 0;; ++n)
        if (::renameat(dirfd, name.c_str(), top, fmt::format(".removing-{}", n).c_str()) == 0)
          break;
        else if (n > 1000 || (errno != EEXIST && errno != ENOTEMPTY))
          return fail_errno(errno, fmt::format("flatten '{}'", path));
      continue;
    }
    VIRGA_CHECK(remove_entries(sub.get(), device, top, depth + 1, path));
    if (::unlinkat(dirfd, name.c_str(), AT_REMOVEDIR) != 0 && errno != ENOENT)
      return fail_errno(errno, fmt::format("remove a directory below '{}'", path));
  }
  return {};
}

}  // namespace

Result<std::string> read_file(const std::string& path, std::size_t limit) {
  UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd) return fail_errno(errno, fmt::format("open '{}'", path));
  std::string out;
  char buffer[16384];
  for (;;) {
    const auto n = ::read(fd.get(), buffer, sizeof buffer);
    if (n < 0) {
      if (errno == EINTR) continue;
      return fail_errno(errno, fmt::format("read '{}'", path));
    }
    if (n == 0) return out;
    if (out.size() + static_cast<std::size_t>(n) > limit)
      return fail(ErrorKind::unavailable, fmt::format("'{}' is larger than {} bytes", path, limit));
    out.append(buffer, static_cast<std::size_t>(n));
  }
}

Result<> write_control(const std::string& path, std::string_view text) {
  UniqueFd fd(::open(path.c_str(), O_WRONLY | O_CLOEXEC));
  if (!fd) return fail_errno(errno, fmt::format("open '{}'", path));
  const auto n = ::write(fd.get(), text.data(), text.size());
  if (n < 0 || static_cast<std::size_t>(n) != text.size())
    return fail_errno(n < 0 ? errno : EIO, fmt::format("write '{}' to '{}'", text, path));
  return {};
}

Result<> write_file_durably(const std::string& path, std::string_view text, unsigned mode) {
  const std::string beside = path + ".new";
  {
    UniqueFd fd(::open(beside.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, mode));
    if (!fd) return fail_errno(errno, fmt::format("create '{}'", beside));
    if (::fchmod(fd.get(), mode) != 0) return fail_errno(errno, fmt::format("chmod '{}'", beside));
    VIRGA_CHECK(write_all(fd.get(), text, beside));
    if (::fsync(fd.get()) != 0) return fail_errno(errno, fmt::format("fsync '{}'", beside));
  }
  if (::rename(beside.c_str(), path.c_str()) != 0) return fail_errno(errno, fmt::format("rename to '{}'", path));
  return sync_directory(parent_of(path));
}

Result<UniqueFd> open_path(const std::string& path, int flags, unsigned mode) {
  UniqueFd fd(::open(path.c_str(), flags | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, mode));
  if (!fd) return fail_errno(errno, fmt::format("open '{}'", path));
  return fd;
}

Result<UniqueFd> open_proc_link(const std::string& path, int flags) {
  if (!path.starts_with("/proc/")) return fail(ErrorKind::internal, fmt::format("'{}' is not in /proc", path));
  UniqueFd fd(::open(path.c_str(), flags | O_CLOEXEC));
  if (!fd) return fail_errno(errno, fmt::format("open '{}'", path));
  return fd;
}

Result<UniqueFd> open_in(int directory, const char* name, int flags, unsigned mode) {
  UniqueFd fd(::openat(directory, name, flags | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, mode));
  if (!fd) return fail_errno(errno, fmt::format("open '{}'", name));
  return fd;
}

Result<> each_entry(int directory, const std::function<bool(const char* name)>& call) {
  UniqueFd copy(::openat(directory, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));  // a position of its own
  DIR* dir = copy ? ::fdopendir(copy.get()) : nullptr;
  if (dir == nullptr) return fail_errno(errno, "list a directory");
  copy.release();
  int error = 0;
  for (;;) {
    errno = 0;
    auto* e = ::readdir(dir);
    if (e == nullptr) {
      error = errno == ENOENT ? 0 : errno;  // the directory itself has been removed: there is nothing in it
      break;
    }
    const std::string_view name = e->d_name;
    if (name != "." && name != ".." && !call(e->d_name)) break;
  }
  ::closedir(dir);
  if (error != 0) return fail_errno(error, "list a directory");
  return {};
}

Result<std::vector<std::string>> list_directory(const std::string& path) {
  VIRGA_TRY(auto fd, open_path(path, O_RDONLY | O_DIRECTORY));
  std::vector<std::string> out;
  auto add = [&](const char* name) {
    out.emplace_back(name);
    return true;
  };
  VIRGA_CHECK(each_entry(fd.get(), add));
  std::sort(out.begin(), out.end());
  return out;
}

Result<> sync_directory(const std::string& path) {
  VIRGA_TRY(auto fd, open_path(path, O_RDONLY | O_DIRECTORY));
  if (::fsync(fd.get()) != 0) return fail_errno(errno, fmt::format("fsync '{}'", path));
  return {};
}

Result<> write_file(const std::string& path, std::string_view text, unsigned mode) {
  if (::unlink(path.c_str()) != 0 && errno != ENOENT) return fail_errno(errno, fmt::format("replace '{}'", path));
  UniqueFd fd(::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, mode));
  if (!fd) return fail_errno(errno, fmt::format("create '{}'", path));
  return write_all(fd.get(), text, path);
}

Result<> make_directory(const std::string& path, unsigned mode) {
  if (::mkdir(path.c_str(), mode) != 0 && errno != EEXIST) return fail_errno(errno, fmt::format("make directory '{}'", path));
  struct stat st{};
  if (::lstat(path.c_str(), &st) != 0) return fail_errno(errno, fmt::format("stat '{}'", path));
  if (!S_ISDIR(st.st_mode)) return fail(ErrorKind::exists, fmt::format("'{}' is there and is no directory", path));
  if ((st.st_mode & 07777) != mode && ::chmod(path.c_str(), mode) != 0) return fail_errno(errno, fmt::format("chmod '{}'", path));
  return {};
}

Result<> remove_tree(const std::string& path) {
  if (::unlink(path.c_str()) == 0 || errno == ENOENT) return {};
  UniqueFd fd(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  if (!fd) return errno == ENOENT ? Result<>{} : fail_errno(errno, fmt::format("remove '{}'", path));
  struct stat st{};
  if (::fstat(fd.get(), &st) != 0) return fail_errno(errno, fmt::format("stat '{}'", path));
  for (int round = 0; round < 2000; ++round) {
    VIRGA_CHECK(remove_entries(fd.get(), st.st_dev, fd.get(), 0, path));
    if (::rmdir(path.c_str()) == 0 || errno == ENOENT) return {};
    if (errno != ENOTEMPTY) return fail_errno(errno, fmt::format("remove '{}'", path));
  }
  return fail(ErrorKind::busy, fmt::format("'{}' keeps being filled while it is removed", path));
}

bool exists(const std::string& path) {
  struct stat st{};
  return ::lstat(path.c_str(), &st) == 0;
}

}  // namespace virga::io
