#include "drivers/image/confined/worker/tree.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/openat2.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <cerrno>
#include <functional>
#include <unordered_set>

#include "drivers/image/confined/worker/entry_name.h"
#include "io/fd.h"

namespace virga::image {
namespace {

using io::UniqueFd;

tl::unexpected<Error> refuse(std::string_view path, std::string_view why) {
  return fail(ErrorKind::invalid, fmt::format("entry '{}': {}", printable(path), why));
}

/// What the kernel refuses is the archive's fault, but for the lack of space.
tl::unexpected<Error> failed(std::string_view path, std::string_view what) {
  const int e = errno;
  if (e == ENOSPC || e == EDQUOT || e == EIO || e == EROFS) return fail_errno(e, "write the image");
  if (e == EEXIST) return refuse(path, "the name appears twice");
  if (e == ELOOP) return refuse(path, "the name leads through a symbolic link");
  if (e == ENOTDIR) return refuse(path, "the name leads through something that is not a directory");
  return fail(ErrorKind::invalid, fmt::format("entry '{}': {}: {}", printable(path), what, ::strerrordesc_np(e)));
}

int open_beneath(int root, const char* path, std::uint64_t flags) noexcept {
  struct open_how how{};
  how.flags = flags | O_CLOEXEC;
  how.resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_XDEV;
  for (int attempt = 0;; ++attempt) {
    const auto fd = ::syscall(SYS_openat2, root, path, &how, sizeof how);
    if (fd >= 0 || errno != EAGAIN || attempt > 100) return static_cast<int>(fd);
  }
}

class Writer final : public Tree {
 public:
  explicit Writer(int root) : root_(root) {}

  Result<> add(const Node& node) override {
    if (node.path.empty()) return set_root(node);
    const auto [parent, name] = split_name(node.path);
    VIRGA_CHECK(enter(std::string(parent)));
    const std::string leaf(name);
    switch (node.kind) {
      case NodeKind::file:
        return begin_file(node, leaf);
      case NodeKind::directory:
        return make_directory(node, leaf);
      case NodeKind::symlink:
        if (::symlinkat(node.target.c_str(), parent_fd_, leaf.c_str()) != 0) return failed(node.path, "symbolic link");
        return set_by_name(node, leaf);
      case NodeKind::fifo:
        if (::mknodat(parent_fd_, leaf.c_str(), S_IFIFO | 0600, 0) != 0) return failed(node.path, "fifo");
        if (auto r = set_by_name(node, leaf); !r) return r;
        if (::fchmodat(parent_fd_, leaf.c_str(), node.mode, 0) != 0) return failed(node.path, "mode");
        return {};
      case NodeKind::hardlink:
        return hard_link(node, leaf);
    }
    return {};
  }

  Result<> write(Bytes offset, std::span<const char> data) override {
    while (!data.empty()) {
      const auto n = ::pwrite(file_.get(), data.data(), data.size(), static_cast<off_t>(offset));
      if (n < 0) {
        if (errno == EINTR) continue;
        return failed(current_.path, "write");
      }
      offset += static_cast<Bytes>(n);
      data = data.subspan(static_cast<std::size_t>(n));
    }
    return {};
  }

  Result<> end_file() override {
    if (current_.size > 0 && ::ftruncate(file_.get(), static_cast<off_t>(current_.size)) != 0) return failed(current_.path, "size");
    auto done = set_by_fd(current_, file_.get());
    file_.reset();
    return done;
  }

  Result<> finish() override {
    // Entries made in a directory have changed its time since.
    for (const auto& [path, modified] : directories_) {
      UniqueFd fd(path.empty() ? ::openat(root_, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC)
                               : open_beneath(root_, path.c_str(), O_RDONLY | O_DIRECTORY));
      if (!fd) continue;
      const timespec times[2] = {modified, modified};
      ::futimens(fd.get(), times);
    }
    return {};
  }

 private:
  /// Makes parent_fd_ the directory `path`, from the cache where the last entry lay beside.
  Result<> enter(const std::string& path) {
    if (parent_fd_ >= 0 && path == parent_path_) return {};
    int fd = open_directory_beneath(root_, path);
    if (fd < 0 && errno == ENOENT) {
      VIRGA_CHECK(make_parents(path));
      fd = open_directory_beneath(root_, path);
    }
    if (fd < 0) return failed(path, "open directory");
    parent_.reset(fd);
    parent_fd_ = fd;
    parent_path_ = path;
    return {};
  }

  /// Archives may leave directories out; they are root's then.
  Result<> make_parents(const std::string& path) {
    for (std::size_t end = 0; end != std::string::npos;) {
      end = path.find('/', end + 1);
      const std::string prefix = path.substr(0, end);
      UniqueFd there(open_directory_beneath(root_, prefix));
      if (there) continue;
      if (errno != ENOENT) return failed(prefix, "open directory");
      const auto [above, name] = split_name(prefix);
      UniqueFd parent(open_directory_beneath(root_, std::string(above)));
      if (!parent || ::mkdirat(parent.get(), std::string(name).c_str(), 0755) != 0) return failed(prefix, "make directory");
    }
    return {};
  }

  Result<> set_root(const Node& node) {
    if (node.kind != NodeKind::directory) return refuse("./", "the root must be a directory");
    UniqueFd fd(::openat(root_, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (!fd) return failed("./", "open");
    remember(node);
    return set_by_fd(node, fd.get());
  }

  Result<> begin_file(const Node& node, const std::string& leaf) {
    file_.reset(::openat(parent_fd_, leaf.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600));
    if (!file_) return failed(node.path, "create");
    current_ = node;
    return {};
  }

  Result<> make_directory(const Node& node, const std::string& leaf) {
    if (::mkdirat(parent_fd_, leaf.c_str(), 0700) != 0 && errno != EEXIST) return failed(node.path, "make directory");
    UniqueFd fd(::openat(parent_fd_, leaf.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
    if (!fd && (errno == ENOTDIR || errno == ELOOP)) return refuse(node.path, "the name appears twice");
    if (!fd) return failed(node.path, "open directory");
    remember(node);
    return set_by_fd(node, fd.get());
  }

  Result<> hard_link(const Node& node, const std::string& leaf) {
    const auto [above, name] = split_name(node.target);
    UniqueFd from(open_directory_beneath(root_, std::string(above)));
    if (!from) return failed(node.target, "find the target of a hard link");
    const std::string target(name);
    struct ::stat st{};
    if (::fstatat(from.get(), target.c_str(), &st, AT_SYMLINK_NOFOLLOW) != 0)
      return refuse(node.path, "a hard link to what is not there");
    if (!S_ISREG(st.st_mode)) return refuse(node.path, "a hard link to what is not a file");
    if (::linkat(from.get(), target.c_str(), parent_fd_, leaf.c_str(), 0) != 0) return failed(node.path, "hard link");
    return {};
  }

  Result<> set_by_fd(const Node& node, int fd) {
    // The owner first: changing it takes setuid bits away.
    if (::fchown(fd, node.uid, node.gid) != 0) return failed(node.path, "owner");
    if (::fchmod(fd, node.mode) != 0) return failed(node.path, "mode");
    for (const auto& [name, value] : node.xattrs)
      if (::fsetxattr(fd, name.c_str(), value.data(), value.size(), 0) != 0 && errno != EOPNOTSUPP && errno != EPERM)
        return failed(node.path, "extended attribute");
    const timespec times[2] = {node.modified, node.modified};
    if (::futimens(fd, times) != 0) return failed(node.path, "time");
    return {};
  }

  Result<> set_by_name(const Node& node, const std::string& leaf) {
    if (::fchownat(parent_fd_, leaf.c_str(), node.uid, node.gid, AT_SYMLINK_NOFOLLOW) != 0) return failed(node.path, "owner");
    const timespec times[2] = {node.modified, node.modified};
    if (::utimensat(parent_fd_, leaf.c_str(), times, AT_SYMLINK_NOFOLLOW) != 0) return failed(node.path, "time");
    return {};
  }

  void remember(const Node& node) {
    constexpr std::size_t limit = 16u << 20;  // bytes; in a larger tree some directories show the time of unpacking
    remembered_ += node.path.size() + 64;
    if (remembered_ < limit) directories_.emplace_back(node.path, node.modified);
  }

  int root_;
  UniqueFd parent_;
  int parent_fd_ = -1;
  std::string parent_path_;
  UniqueFd file_;
  Node current_;
  std::vector<std::pair<std::string, timespec>> directories_;
  std::size_t remembered_ = 0;
};

class Checker final : public Tree {
 public:
  Result<> add(const Node& node) override {
    if (node.path.empty()) {
      if (node.kind != NodeKind::directory) return refuse("./", "the root must be a directory");
      return {};
    }
    VIRGA_CHECK(check_parents(node.path));
    if (node.kind == NodeKind::hardlink) {
      VIRGA_CHECK(check_parents(node.target));
      if (symlinks_.contains(hash(node.target))) return refuse(node.path, "a hard link to what is not a file");
    }
    if (symlinks_.contains(hash(node.path))) return refuse(node.path, "the name appears twice");
    constexpr std::size_t limit = 500'000;
    if (node.kind == NodeKind::symlink && symlinks_.size() < limit) symlinks_.insert(hash(node.path));
    return {};
  }
  Result<> write(Bytes, std::span<const char>) override { return {}; }
  Result<> end_file() override { return {}; }
  Result<> finish() override { return {}; }

 private:
  static std::size_t hash(std::string_view s) { return std::hash<std::string_view>()(s); }
  Result<> check_parents(std::string_view path) const {
    if (symlinks_.empty()) return {};
    for (auto slash = path.find('/'); slash != std::string_view::npos; slash = path.find('/', slash + 1))
      if (symlinks_.contains(hash(path.substr(0, slash)))) return refuse(path, "the name leads through a symbolic link");
    return {};
  }
  std::unordered_set<std::size_t> symlinks_;
};

}  // namespace

int open_directory_beneath(int root, const std::string& path) noexcept {
  if (path.empty()) return ::openat(root, ".", O_PATH | O_DIRECTORY | O_CLOEXEC);
  return open_beneath(root, path.c_str(), O_PATH | O_DIRECTORY);
}

std::unique_ptr<Tree> make_tree_writer(int fd) {
  return std::make_unique<Writer>(fd);
}
std::unique_ptr<Tree> make_tree_checker() {
  return std::make_unique<Checker>();
}

}  // namespace virga::image
