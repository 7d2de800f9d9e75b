#include "drivers/compute/oci/rootfs.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

#include "io/beneath.h"

namespace virga::compute::oci_driver {
namespace {

constexpr std::size_t largest_text = 256u << 10;

Result<> prepare_mount_point(const io::Beneath& root, const std::string& name, IdRange ids) {
  auto st = root.stat(name);
  if (st && S_ISDIR(st->st_mode)) return {};
  if (st)
    return fail(Error(ErrorKind::invalid, fmt::format("'/{}' in the instance's root is {}, not a directory", name,
                                                      S_ISLNK(st->st_mode) ? "a symbolic link" : "a file"))
                    .with_hint("the image is broken or hostile: use another one"));
  if (st.error().kind() != ErrorKind::not_found) return fail(std::move(st).error());
  VIRGA_CHECK(root.make_directories(name, 0755));
  VIRGA_TRY(auto made, root.subdirectory(name));
  if (::fchown(made.fd(), ids.base, ids.base) != 0) return fail_errno(errno, fmt::format("give '/{}' to the guest", name));
  return {};
}

/// The guest's root user walks the whole path: a directory on it that only we may pass would fail deep inside the runtime.
Result<> check_reachable(const std::string& rootfs, IdRange ids) {
  for (std::size_t slash = rootfs.find('/', 1); slash != std::string::npos; slash = rootfs.find('/', slash + 1)) {
    const auto parent = rootfs.substr(0, slash);
    struct ::stat st{};
    if (::stat(parent.c_str(), &st) != 0) return fail_errno(errno, fmt::format("reach the instance's root at '{}'", parent));
    const bool passes = (st.st_mode & S_IXOTH) != 0 || (st.st_uid == ids.base && (st.st_mode & S_IXUSR) != 0);
    if (!passes)
      return fail(Error(ErrorKind::denied, fmt::format("the guest may not pass the directory '{}' to its root", parent))
                      .with_hint(fmt::format("chmod o+x {}", parent)));
  }
  return {};
}

/// A small text file of the guest's; empty where it is none, or absent.
std::string guest_text(const std::string& rootfs, std::string_view path) {
  auto root = io::Beneath::open(rootfs);
  if (!root) return {};
  auto fd = root->open_file(path, O_RDONLY, io::Beneath::Links::follow_inside);
  struct ::stat st{};
  if (!fd || ::fstat(fd->get(), &st) != 0 || !S_ISREG(st.st_mode)) return {};
  std::string text;
  char buffer[16384];
  while (text.size() < largest_text) {
    const auto n = ::read(fd->get(), buffer, sizeof buffer);
    if (n <= 0) break;
    text.append(buffer, static_cast<std::size_t>(n));
  }
  return text;
}

std::string_view next_line(std::string_view& text) {
  const auto end = text.find('\n');
  const auto line = text.substr(0, end);
  text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
  return line;
}

/// Strings of a guest that the API will show: printable, short.
std::string printable(std::string_view text, std::size_t limit = 128) {
  std::string out;
  for (char c : text.substr(0, limit))
    if (static_cast<unsigned char>(c) >= 0x20 && static_cast<unsigned char>(c) < 0x7f) out += c;
  return out;
}

}  // namespace

int halt_signal_of(std::string_view program) {
  const auto name = program.substr(program.rfind('/') + 1);
  if (name == "busybox" || name == "procd") return SIGUSR2;
  if (name.starts_with("systemd")) return 34 + 3;  // SIGRTMIN+3 of the C library's numbering, which systemd uses
  if (name == "runit" || name == "runit-init") return SIGCONT;
  if (name == "init") return SIGPWR;  // System V init's
  return SIGTERM;
}

Result<InitProgram> prepare_rootfs(const std::string& rootfs, IdRange ids) {
  VIRGA_CHECK(check_reachable(rootfs, ids));
  VIRGA_TRY(auto root, io::Beneath::open(rootfs));
  for (const char* name : {"dev", "proc", "sys"}) VIRGA_CHECK(prepare_mount_point(root, name, ids));
  auto init = root.open_file("/sbin/init", O_PATH, io::Beneath::Links::follow_inside);
  if (!init)
    return fail(Error(ErrorKind::invalid, "the instance's root has no '/sbin/init'")
                    .with_hint("use an image of a whole distribution: virga runs system containers"));
  struct ::stat st{};
  if (::fstat(init->get(), &st) != 0 || !S_ISREG(st.st_mode) || (st.st_mode & 0111) == 0)
    return fail(ErrorKind::invalid, "'/sbin/init' in the instance's root is not a program");
  char target[4096];
  const auto n = ::readlink(fmt::format("/proc/self/fd/{}", init->get()).c_str(), target, sizeof target);
  InitProgram out;
  out.target = n > 0 ? std::string(target, static_cast<std::size_t>(n)) : "/sbin/init";
  out.halt_signal = halt_signal_of(out.target);
  return out;
}

User parse_passwd(std::string_view text, std::uint32_t uid) {
  const auto wanted = std::to_string(uid);
  while (!text.empty()) {
    auto line = next_line(text);
    std::string_view fields[7];
    int n = 0;
    for (; n < 7; ++n) {
      const auto colon = line.find(':');
      fields[n] = line.substr(0, colon);
      if (colon == std::string_view::npos) break;
      line.remove_prefix(colon + 1);
    }
    if (n < 5 || fields[2] != wanted) continue;
    User user{printable(fields[0], 32), printable(fields[5], 1024)};
    if (user.home.starts_with('/')) return user;
  }
  return {};
}

User find_user(const std::string& rootfs, std::uint32_t uid) {
  auto user = parse_passwd(guest_text(rootfs, "etc/passwd"), uid);
  if (user.name.empty() && uid == 0) user = {"root", "/root"};
  if (user.name.empty()) user.name = std::to_string(uid);
  auto root = io::Beneath::open(rootfs);
  const bool there =
      !user.home.empty() && root && root->open_file(user.home, O_PATH | O_DIRECTORY, io::Beneath::Links::follow_inside);
  if (!there || user.home.starts_with("/proc")) user.home = "/";
  return user;
}

OsRelease parse_os_release(std::string_view text) {
  OsRelease out;
  while (!text.empty()) {
    auto line = next_line(text);
    auto value = [&line](std::string_view key, std::string& into) {
      if (!line.starts_with(key)) return;
      auto v = line.substr(key.size());
      if (v.size() >= 2 && (v.front() == '"' || v.front() == '\'') && v.back() == v.front()) v = v.substr(1, v.size() - 2);
      into = printable(v);
    };
    value("NAME=", out.name);
    value("VERSION_ID=", out.version);
  }
  return out;
}

OsRelease read_os_release(const std::string& rootfs) {
  auto text = guest_text(rootfs, "etc/os-release");
  if (text.empty()) text = guest_text(rootfs, "usr/lib/os-release");
  return parse_os_release(text);
}

}  // namespace virga::compute::oci_driver
