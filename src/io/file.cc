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

constexpr int max_rounds = 2000;  // through one directory that does not become empty

bool not_empty(int error) {
  return error == ENOTEMPTY || error == EEXIST;
}

/// A tree goes depth first, at most so many levels below its top: deeper ones are flattened by renaming upwards. Names are taken as
/// they are read, as a guest may have made millions in one directory.
class Removal {
 public:
  Removal(int top, dev_t device, const std::string& path) : top_(top), device_(device), path_(path) {}

  /// Once through a directory. What a file system did not show because others went meanwhile stays: the caller sees that the
  /// directory is not empty and comes again.
  Result<> entries(int directory, int depth) {
    Result<> out;
    auto next = [&](const char* name) {
      out = entry(directory, name, depth);
      return out.has_value();
    };
    VIRGA_CHECK(each_entry(directory, next));
    return out;
  }

 private:
  Result<> entry(int directory, const char* name, int depth) {
    if (::unlinkat(directory, name, 0) == 0 || errno == ENOENT) return {};
    if (errno != EISDIR && errno != EPERM) return fail_errno(errno, fmt::format("remove a file below '{}'", path_));
    if (::unlinkat(directory, name, AT_REMOVEDIR) == 0 || errno == ENOENT) return {};
    UniqueFd sub(::openat(directory, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
    if (!sub) return fail_errno(errno, fmt::format("open a directory below '{}'", path_));
    struct stat st{};
    if (::fstat(sub.get(), &st) != 0) return fail_errno(errno, fmt::format("stat below '{}'", path_));
    if (st.st_dev != device_) return fail(ErrorKind::busy, fmt::format("something is mounted below '{}'", path_));
    if (depth >= max_depth) return pull_up(directory, name);
    for (int round = 0; round < max_rounds; ++round) {
      VIRGA_CHECK(entries(sub.get(), depth + 1));
      if (::unlinkat(directory, name, AT_REMOVEDIR) == 0 || errno == ENOENT) return {};
      if (!not_empty(errno)) return fail_errno(errno, fmt::format("remove a directory below '{}'", path_));
    }
    return fail(ErrorKind::busy, fmt::format("a directory below '{}' keeps being filled while it is removed", path_));
  }

  /// An image may hold 100 000 nested directories: the rest goes to the top, where it is met again.
  Result<> pull_up(int directory, const char* name) {
    for (int n = 0; n <= 1000; ++n) {
      if (::renameat(directory, name, top_, fmt::format(".removing-{}", n).c_str()) == 0) return {};
      if (!not_empty(errno)) break;
    }
    return fail_errno(errno, fmt::format("flatten '{}'", path_));
  }

  static constexpr int max_depth = 200;  // two descriptors each
  const int top_;
  const dev_t device_;
  const std::string& path_;
};

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
  Removal removal(fd.get(), st.st_dev, path);
  for (int round = 0; round < max_rounds; ++round) {
    VIRGA_CHECK(removal.entries(fd.get(), 0));
    if (::rmdir(path.c_str()) == 0 || errno == ENOENT) return {};
    if (!not_empty(errno)) return fail_errno(errno, fmt::format("remove '{}'", path));
  }
  return fail(ErrorKind::busy, fmt::format("'{}' keeps being filled while it is removed", path));
}

bool exists(const std::string& path) {
  struct stat st{};
  return ::lstat(path.c_str(), &st) == 0;
}

}  // namespace virga::io
