#include "io/beneath.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/openat2.h>
#include <sys/syscall.h>

#include <cerrno>
#include <string>
#include <vector>

namespace virga::io {
namespace {

constexpr std::size_t longest_path = 4095;

/// What a person may see of a hostile path: control characters escaped, long ones cut.
std::string shown(std::string_view path) {
  std::string out;
  for (char c : path.substr(0, 200)) {
    const auto u = static_cast<unsigned char>(c);
    if (u < 0x20 || u == 0x7f)
      out += fmt::format("\\x{:02x}", u);
    else
      out += c;
  }
  if (path.size() > 200) out += "...";
  return out;
}

/// The path relative to the root, without leading slashes. "/" means the root itself.
Result<std::string> checked(std::string_view path) {
  if (path.empty()) return fail(ErrorKind::invalid, "the path is empty");
  if (path.size() > longest_path) return fail(ErrorKind::invalid, fmt::format("the path '{}' is too long", shown(path)));
  if (path.find('\0') != std::string_view::npos) return fail(ErrorKind::invalid, "the path holds a NUL");
  for (std::size_t at = 0; at <= path.size();) {
    const auto slash = std::min(path.find('/', at), path.size());
    if (path.substr(at, slash - at) == "..") return fail(ErrorKind::invalid, fmt::format("the path '{}' holds '..'", shown(path)));
    at = slash + 1;
  }
  const auto first = path.find_first_not_of('/');
  return std::string(first == std::string_view::npos ? "." : path.substr(first));
}

Result<UniqueFd> open_at(int root, const std::string& path, std::uint64_t flags, mode_t mode, std::uint64_t resolve,
                         std::string_view name) {
  open_how how{};
  how.flags = flags | O_CLOEXEC;
  how.mode = mode;
  how.resolve = resolve | RESOLVE_NO_MAGICLINKS;
  for (int round = 0;; ++round) {
    const auto fd = ::syscall(SYS_openat2, root, path.c_str(), &how, sizeof how);
    if (fd >= 0) return UniqueFd(static_cast<int>(fd));
    // EAGAIN: something was renamed on the way while the kernel looked. A guest may do that all day: give up some time.
    if ((errno == EAGAIN || errno == EINTR) && round < 64) continue;
    if (errno == EXDEV) return fail(ErrorKind::denied, fmt::format("'{}' leads outside its root", shown(name)));
    if (errno == ELOOP) return fail(ErrorKind::denied, fmt::format("a part of '{}' is a symbolic link", shown(name)));
    if (errno == EAGAIN) return fail(ErrorKind::busy, fmt::format("'{}' keeps changing", shown(name)));
    return fail_errno(errno, fmt::format("open '{}'", shown(name)));
  }
}

std::uint64_t resolution(Beneath::Links links) {
  // "Inside" means that absolute links and ".." in links are those of a process whose root this is.
  return links == Beneath::Links::refuse ? RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS : RESOLVE_IN_ROOT;
}

struct Split {
  std::string parent, name;
};
Result<Split> split(std::string_view path) {
  VIRGA_TRY(auto relative, checked(path));
  while (relative.size() > 1 && relative.back() == '/') relative.pop_back();
  const auto slash = relative.rfind('/');
  Split out = slash == std::string::npos ? Split{".", relative} : Split{relative.substr(0, slash), relative.substr(slash + 1)};
  if (out.name == "." || out.name.empty()) return fail(ErrorKind::invalid, fmt::format("'{}' does not name an entry", shown(path)));
  return out;
}

}  // namespace

Result<Beneath> Beneath::open(const std::string& root) {
  UniqueFd fd(::open(root.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  if (!fd) return fail_errno(errno, fmt::format("open '{}'", root));
  return Beneath(std::move(fd));
}

Beneath Beneath::adopt(UniqueFd directory) {
  return Beneath(std::move(directory));
}

Result<UniqueFd> Beneath::open_file(std::string_view path, int flags, Links links) const {
  VIRGA_TRY(auto relative, checked(path));
  if ((flags & (O_CREAT | O_TMPFILE)) != 0 && (flags & O_DIRECTORY) == 0)
    return fail(ErrorKind::internal, "open_file does not create");
  const auto wanted = static_cast<std::uint64_t>(static_cast<unsigned>(flags));
  if ((flags & O_PATH) != 0)
    return open_at(root_.get(), relative, wanted & (O_PATH | O_DIRECTORY | O_NOFOLLOW), 0, resolution(links), path);
  VIRGA_TRY(auto fd, open_at(root_.get(), relative, wanted | O_NONBLOCK | O_NOCTTY, 0, resolution(links), path));
  if ((flags & O_NONBLOCK) != 0) return fd;
  struct ::stat st{};
  if (::fstat(fd.get(), &st) != 0) return fail_errno(errno, fmt::format("stat '{}'", shown(path)));
  if (S_ISREG(st.st_mode)) {
    const int now = ::fcntl(fd.get(), F_GETFL);
    if (now < 0 || ::fcntl(fd.get(), F_SETFL, now & ~O_NONBLOCK) != 0)
      return fail_errno(errno, fmt::format("open '{}'", shown(path)));
  }
  return fd;
}

Result<UniqueFd> Beneath::create_file(std::string_view path, mode_t mode) const {
  VIRGA_TRY(auto parts, split(path));
  VIRGA_TRY(auto parent, open_at(root_.get(), parts.parent, O_PATH | O_DIRECTORY, 0, resolution(Links::refuse), path));
  VIRGA_TRY(auto fd, open_at(parent.get(), parts.name, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW, mode & 07777,
                             resolution(Links::refuse), path));
  if (::fchmod(fd.get(), mode & 07777) != 0) return fail_errno(errno, fmt::format("chmod '{}'", shown(path)));
  return fd;
}

Result<> Beneath::make_directories(std::string_view path, mode_t mode) const {
  VIRGA_TRY(auto relative, checked(path));
  UniqueFd at(::fcntl(root_.get(), F_DUPFD_CLOEXEC, 3));
  if (!at) return fail_errno(errno, "dup");
  std::size_t from = 0;
  while (from < relative.size()) {
    const auto slash = std::min(relative.find('/', from), relative.size());
    const auto name = relative.substr(from, slash - from);
    from = slash + 1;
    if (name.empty() || name == ".") continue;
    if (::mkdirat(at.get(), name.c_str(), mode) == 0) {
      // Past the umask; the new directory is opened anew, as a guest may have replaced it.
      VIRGA_TRY(auto made, open_at(at.get(), name, O_RDONLY | O_DIRECTORY, 0, resolution(Links::refuse), path));
      if (::fchmod(made.get(), mode) != 0) return fail_errno(errno, fmt::format("chmod '{}'", shown(path)));
      at = std::move(made);
      continue;
    }
    if (errno != EEXIST) return fail_errno(errno, fmt::format("make directory '{}'", shown(path)));
    VIRGA_TRY(at, open_at(at.get(), name, O_PATH | O_DIRECTORY, 0, resolution(Links::refuse), path));
  }
  return {};
}

Result<> Beneath::make_symlink(std::string_view path, const std::string& target) const {
  VIRGA_TRY(auto parts, split(path));
  if (target.empty() || target.size() > longest_path || target.find('\0') != std::string::npos)
    return fail(ErrorKind::invalid, fmt::format("the target of the link '{}' is empty, too long or holds a NUL", shown(path)));
  VIRGA_TRY(auto parent, open_at(root_.get(), parts.parent, O_PATH | O_DIRECTORY, 0, resolution(Links::refuse), path));
  if (::symlinkat(target.c_str(), parent.get(), parts.name.c_str()) != 0)
    return fail_errno(errno, fmt::format("make the link '{}'", shown(path)));
  return {};
}

Result<struct ::stat> Beneath::stat(std::string_view path) const {
  VIRGA_TRY(auto relative, checked(path));
  // The last component may be a link and is then described itself; O_PATH|O_NOFOLLOW with NO_SYMLINKS would refuse it.
  auto parts = split(path);
  struct ::stat st{};
  if (!parts) {
    if (::fstat(root_.get(), &st) != 0) return fail_errno(errno, "stat");
    return st;
  }
  VIRGA_TRY(auto parent, open_at(root_.get(), parts->parent, O_PATH | O_DIRECTORY, 0, resolution(Links::refuse), path));
  if (::fstatat(parent.get(), parts->name.c_str(), &st, AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT) != 0)
    return fail_errno(errno, fmt::format("stat '{}'", shown(path)));
  return st;
}

Result<Beneath> Beneath::subdirectory(std::string_view path) const {
  VIRGA_TRY(auto relative, checked(path));
  VIRGA_TRY(auto fd, open_at(root_.get(), relative, O_RDONLY | O_DIRECTORY, 0, resolution(Links::refuse), path));
  return Beneath(std::move(fd));
}

}  // namespace virga::io
