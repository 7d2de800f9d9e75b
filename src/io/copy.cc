#include "io/copy.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <map>
#include <string_view>
#include <vector>

#include "io/fd.h"
#include "io/file.h"

namespace virga::io {
namespace {

constexpr std::size_t chunk = 4u << 20;
constexpr int most_levels = 400;  // up to four descriptors each
constexpr std::string_view overlay_prefix = "trusted.overlay.";

Result<> stopped() {
  return fail(ErrorKind::cancelled, "cancelled");
}

/// Where copy_file_range cannot, between file systems of different kinds.
Result<> pump(int from, int to, off_t at, off_t end) {
  std::vector<char> buffer(1u << 20);
  while (at < end) {
    const auto n = ::pread(from, buffer.data(), std::min<std::size_t>(buffer.size(), static_cast<std::size_t>(end - at)), at);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return fail_errno(errno, "read");
    if (n == 0) return {};  // it became shorter meanwhile
    for (ssize_t done = 0; done < n;) {
      const auto m = ::pwrite(to, buffer.data() + done, static_cast<std::size_t>(n - done), at + done);
      if (m < 0 && errno == EINTR) continue;
      if (m <= 0) return fail_errno(m < 0 ? errno : ENOSPC, "write");
      done += m;
    }
    at += n;
  }
  return {};
}

Result<> copy_range(int from, int to, off_t at, off_t end, TransferControl& control) {
  while (at < end) {
    if (control.stop) return stopped();
    const auto length = std::min<off_t>(end - at, chunk);
    off_t in = at, out = at;
    auto n = ::copy_file_range(from, &in, to, &out, static_cast<std::size_t>(length), 0);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) {
      if (errno != EXDEV && errno != EOPNOTSUPP && errno != EINVAL && errno != ENOSYS) return fail_errno(errno, "copy");
      VIRGA_CHECK(pump(from, to, at, at + length));
      n = length;
    }
    if (n == 0) return {};
    at += n;
    control.bytes += static_cast<std::uint64_t>(n);
  }
  return {};
}

/// The data of a file into an empty one: shared, or its parts between the holes.
Result<> copy_data(int from, int to, TransferControl& control) {
  struct stat st{};
  if (::fstat(from, &st) != 0) return fail_errno(errno, "stat");
  if (::ioctl(to, FICLONE, from) == 0) {
    control.bytes += static_cast<std::uint64_t>(st.st_size);
    return {};
  }
  if (::ftruncate(to, st.st_size) != 0) return fail_errno(errno, "set the size");
  off_t at = 0;
  while (at < st.st_size) {
    off_t data = ::lseek(from, at, SEEK_DATA);
    if (data < 0 && errno == ENXIO) break;  // nothing but a hole is left
    off_t end = data < 0 ? -1 : ::lseek(from, data, SEEK_HOLE);
    if (data < 0 || end < 0) {
      data = at;
      end = st.st_size;
    }
    end = std::min(end, st.st_size);
    if (data >= end) break;
    VIRGA_CHECK(copy_range(from, to, data, end, control));
    at = end;
  }
  return {};
}

std::uint32_t get32(const std::string& bytes, std::size_t at) {
  std::uint32_t v = 0;
  for (std::size_t i = 4; i-- > 0;) v = v << 8 | static_cast<unsigned char>(bytes[at + i]);
  return v;
}
void put32(std::string& bytes, std::size_t at, std::uint32_t v) {
  for (std::size_t i = 0; i < 4; ++i, v >>= 8) bytes[at + i] = static_cast<char>(v & 0xff);
}

/// One entry for reading; nothing where it is gone, or another took its name meanwhile.
Result<UniqueFd> open_entry(int directory, const std::string& name, int flags) {
  UniqueFd fd(::openat(directory, name.c_str(), flags | O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOATIME));
  if (fd || errno == ENOENT || errno == ELOOP || errno == ENOTDIR || errno == ENXIO) return fd;
  return fail_errno(errno, "open");
}

using Attributes = std::map<std::string, std::string>;

class TreeCopy {
 public:
  TreeCopy(const CopyTreeOptions& options, TransferControl& control, int root)
      : options_(options), control_(control), root_(root) {}

  /// Copies what is in `from` into `to`, which is there and empty. `old`: the same directory of an earlier copy, or none.
  Result<> entries(int from, int to, int old, const std::string& path, int level) {
    if (level > most_levels) return fail(ErrorKind::unsupported, fmt::format("directories are nested deeper than {}", most_levels));
    // As they are read: a guest may have made millions in one directory.
    Result<> out;
    auto next = [&](const char* entry_name) {
      const std::string name = entry_name;
      out = control_.stop ? stopped() : entry(from, to, old, name, path.empty() ? name : path + "/" + name, level);
      if (!out && level == 0 && !control_.stop) out = fail(std::move(out).error().wrap(fmt::format("copy '{}'", name)));
      return out.has_value();
    };
    VIRGA_CHECK(each_entry(from, next));
    return out;
  }

  Result<> finish_directory(int from, int to) {
    struct stat st{};
    if (::fstat(from, &st) != 0) return fail_errno(errno, "stat");
    VIRGA_TRY(auto attributes, read_attributes(from));
    return finish(to, st, attributes);
  }

 private:
  Result<> entry(int from, int to, int old, const std::string& name, const std::string& path, int level) {
    struct stat st{};
    if (::fstatat(from, name.c_str(), &st, AT_SYMLINK_NOFOLLOW) != 0)
      return errno == ENOENT ? Result<>{} : fail_errno(errno, "stat");
    if (S_ISDIR(st.st_mode)) return directory(from, to, old, name, path, level);
    const std::pair key{st.st_dev, st.st_ino};
    if (st.st_nlink > 1) {
      if (auto first = links_.find(key); first != links_.end()) {
        if (::linkat(root_, first->second.c_str(), to, name.c_str(), 0) != 0) return fail_errno(errno, "link");
        return {};
      }
    }
    VIRGA_TRY(const bool made, S_ISREG(st.st_mode) ? regular(from, to, old, name) : special(from, to, name, st));
    if (made && st.st_nlink > 1) {
      // What a guest makes up must not fill our memory: it may have millions of them, each with a path of any length.
      remembered_ += path.size() + sizeof(decltype(links_)::value_type) + 64;
      if (remembered_ > options_.most_memory) return fail(ErrorKind::unsupported, "too many files with several hard links");
      links_[key] = path;
    }
    return {};
  }

  Result<> directory(int from, int to, int old, const std::string& name, const std::string& path, int level) {
    VIRGA_TRY(auto source, open_entry(from, name, O_DIRECTORY));
    if (!source) return {};
    if (::mkdirat(to, name.c_str(), 0700) != 0) return fail_errno(errno, "make a directory");
    VIRGA_TRY(auto target, open_in(to, name.c_str(), O_RDONLY | O_DIRECTORY));
    UniqueFd before;
    if (old >= 0)
      if (auto opened = open_in(old, name.c_str(), O_RDONLY | O_DIRECTORY)) before = std::move(*opened);
    VIRGA_CHECK(entries(source.get(), target.get(), before.get(), path, level + 1));
    return finish_directory(source.get(), target.get());
  }

  /// False where it is gone.
  Result<bool> regular(int from, int to, int old, const std::string& name) {
    VIRGA_TRY(auto source, open_entry(from, name, 0));
    if (!source) return false;
    struct stat st{};
    if (::fstat(source.get(), &st) != 0) return fail_errno(errno, "stat");
    if (!S_ISREG(st.st_mode)) return false;  // another took its name meanwhile
    VIRGA_TRY(auto attributes, read_attributes(source.get()));
    if (old >= 0 && unchanged(old, name, st, attributes)) {
      if (::linkat(old, name.c_str(), to, name.c_str(), 0) == 0) return true;
      if (errno != ENOENT && errno != EMLINK) return fail_errno(errno, "link");
    }
    VIRGA_TRY(auto target, open_in(to, name.c_str(), O_RDWR | O_CREAT | O_EXCL, 0600));
    VIRGA_CHECK(copy_data(source.get(), target.get(), control_));
    VIRGA_CHECK(finish(target.get(), st, attributes));
    return true;
  }

  /// Symlinks, fifos, sockets and device nodes; among the last the whiteouts of an overlay.
  Result<bool> special(int from, int to, const std::string& name, const struct stat& st) {
    if (S_ISLNK(st.st_mode)) {
      std::string target(4096, '\0');
      const auto n = ::readlinkat(from, name.c_str(), target.data(), target.size());
      if (n < 0) return errno == ENOENT || errno == EINVAL ? Result<bool>(false) : fail_errno(errno, "read a link");
      target.resize(static_cast<std::size_t>(n));
      if (::symlinkat(target.c_str(), to, name.c_str()) != 0) return fail_errno(errno, "make a link");
    } else if (::mknodat(to, name.c_str(), st.st_mode, st.st_rdev) != 0) {
      return fail_errno(errno, "make a special file");
    }
    if (::fchownat(to, name.c_str(), moved(st.st_uid), moved(st.st_gid), AT_SYMLINK_NOFOLLOW) != 0)
      return fail_errno(errno, "set the owner");
    if (!S_ISLNK(st.st_mode) && ::fchmodat(to, name.c_str(), st.st_mode & 07777, 0) != 0) return fail_errno(errno, "set the mode");
    const std::array times = {st.st_atim, st.st_mtim};
    if (::utimensat(to, name.c_str(), times.data(), AT_SYMLINK_NOFOLLOW) != 0) return fail_errno(errno, "set the times");
    return true;
  }

  /// Owner first: it takes away set-id bits and capabilities.
  Result<> finish(int to, const struct stat& st, const Attributes& attributes) {
    if (::fchown(to, moved(st.st_uid), moved(st.st_gid)) != 0) return fail_errno(errno, "set the owner");
    if (::fchmod(to, st.st_mode & 07777) != 0) return fail_errno(errno, "set the mode");
    for (const auto& [name, value] : attributes)
      if (::fsetxattr(to, name.c_str(), value.data(), value.size(), 0) != 0)
        return fail_errno(errno, fmt::format("set the attribute '{}'", name));
    const std::array times = {st.st_atim, st.st_mtim};
    if (::futimens(to, times.data()) != 0) return fail_errno(errno, "set the times");
    return {};
  }

  /// As they are to be in the copy.
  Result<Attributes> read_attributes(int fd) const {
    Attributes out;
    std::vector<char> names(65536);
    const auto length = ::flistxattr(fd, names.data(), names.size());
    if (length < 0) return errno == ENOTSUP ? Result<Attributes>(out) : fail_errno(errno, "list attributes");
    std::string value;
    for (const char* name = names.data(); name < names.data() + length; name += std::strlen(name) + 1) {
      if (!copied(name)) continue;
      value.resize(65536);
      const auto n = ::fgetxattr(fd, name, value.data(), value.size());
      if (n < 0 && errno == ENODATA) continue;
      if (n < 0) return fail_errno(errno, fmt::format("read the attribute '{}'", name));
      value.resize(static_cast<std::size_t>(n));
      move_ids(name, value);
      out.emplace(name, value);
    }
    return out;
  }

  bool copied(std::string_view name) const {
    if (name.starts_with(overlay_prefix)) {
      const auto what = name.substr(overlay_prefix.size());
      // Handles of files of the lower layer and of this very upper one mean nothing elsewhere.
      if (what == "nlink" || what == "upper" || what == "uuid") return false;
      return options_.same_lower || (what != "origin" && what != "impure");
    }
    return name.starts_with("user.") || name.starts_with("system.posix_acl_") || name == "security.capability";
  }

  /// File capabilities of a user namespace name its root, access lists name users and groups.
  void move_ids(std::string_view name, std::string& value) const {
    if (!options_.ids) return;
    constexpr std::uint32_t revision_mask = 0xff000000, revision_3 = 0x03000000;
    if (name == "security.capability") {
      if (value.size() == 24 && (get32(value, 0) & revision_mask) == revision_3) put32(value, 20, moved(get32(value, 20)));
    } else if (name.starts_with("system.posix_acl_")) {
      for (std::size_t at = 4; at + 8 <= value.size(); at += 8) {
        const auto tag = static_cast<unsigned char>(value[at]);
        if (tag == 0x02 || tag == 0x08) put32(value, at + 4, moved(get32(value, at + 4)));  // a user's, a group's
      }
    }
  }

  bool unchanged(int old, const std::string& name, const struct stat& st, const Attributes& attributes) const {
    auto fd = open_entry(old, name, 0);
    struct stat was{};
    if (!fd || !*fd || ::fstat(fd->get(), &was) != 0 || !S_ISREG(was.st_mode)) return false;
    if (was.st_size != st.st_size || was.st_mode != st.st_mode || was.st_mtim.tv_sec != st.st_mtim.tv_sec ||
        was.st_mtim.tv_nsec != st.st_mtim.tv_nsec || was.st_uid != moved(st.st_uid) || was.st_gid != moved(st.st_gid))
      return false;
    if (was.st_nlink > 1 || st.st_nlink > 1) return false;  // links among themselves may have changed
    TreeCopy plain({.ids = {}, .earlier = {}, .same_lower = options_.same_lower}, control_, root_);
    auto there = plain.read_attributes(fd->get());
    return there && *there == attributes;
  }

  std::uint32_t moved(std::uint32_t id) const {
    if (!options_.ids || id < options_.ids->from || id - options_.ids->from >= options_.ids->count) return id;
    return options_.ids->to + (id - options_.ids->from);
  }

  const CopyTreeOptions options_;
  TransferControl& control_;
  const int root_;
  std::map<std::pair<dev_t, ino_t>, std::string> links_;
  std::size_t remembered_ = 0;
};

}  // namespace

Result<> copy_tree(const std::string& from, const std::string& to, const CopyTreeOptions& options, TransferControl& control) {
  VIRGA_TRY(auto source, open_path(from, O_RDONLY | O_DIRECTORY));
  UniqueFd old;
  if (!options.earlier.empty()) {
    VIRGA_TRY(old, open_path(options.earlier, O_RDONLY | O_DIRECTORY));
  }
  if (::mkdir(to.c_str(), 0700) != 0) return fail_errno(errno, fmt::format("make directory '{}'", to));
  VIRGA_TRY(auto target, open_path(to, O_RDONLY | O_DIRECTORY));
  if (control.stop) return stopped();  // an empty tree has no place to notice it
  TreeCopy copy(options, control, target.get());
  VIRGA_CHECK(copy.entries(source.get(), target.get(), old.get(), "", 0));
  VIRGA_CHECK(copy.finish_directory(source.get(), target.get()));
  // Many files were written without waiting for the disk; one call makes them all durable.
  if (::syncfs(target.get()) != 0) return fail_errno(errno, fmt::format("sync '{}'", to));
  return {};
}

Result<> copy_file(const std::string& from, const std::string& to, unsigned mode, TransferControl& control) {
  VIRGA_TRY(auto source, open_path(from, O_RDONLY));
  VIRGA_TRY(auto target, open_path(to, O_RDWR | O_CREAT | O_EXCL, mode));
  auto copied = copy_data(source.get(), target.get(), control);
  if (!copied) return fail(std::move(copied).error().wrap(fmt::format("copy '{}'", from)));
  if (::fsync(target.get()) != 0) return fail_errno(errno, fmt::format("fsync '{}'", to));
  return {};
}

}  // namespace virga::io
