#include "io/unix_socket.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include <cerrno>
#include <cstring>

namespace virga::io {
namespace {

/// An address that names `path`, and the directory's descriptor which must live as long as the address is used.
struct Address {
  UniqueFd directory;
  sockaddr_un name{};
};

Result<Address> address_of(const std::string& path) {
  Address a;
  a.name.sun_family = AF_UNIX;
  std::string shown = path;
  if (path.empty() || path.find('\0') != std::string::npos) return fail(ErrorKind::invalid, "socket path is empty or holds a NUL");
  if (path.size() >= sizeof a.name.sun_path) {
    const auto slash = path.rfind('/');
    const std::string directory = slash == std::string::npos ? "." : path.substr(0, slash + 1);
    a.directory.reset(::open(directory.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
    if (!a.directory) return fail_errno(errno, fmt::format("open directory '{}'", directory));
    shown = fmt::format("/proc/self/fd/{}/{}", a.directory.get(), path.substr(slash == std::string::npos ? 0 : slash + 1));
    if (shown.size() >= sizeof a.name.sun_path)
      return fail(ErrorKind::invalid, fmt::format("socket name in '{}' is too long", path));
  }
  std::memcpy(a.name.sun_path, shown.c_str(), shown.size() + 1);
  return a;
}

}  // namespace

Result<UniqueFd> listen_unix(const std::string& path, unsigned mode, int backlog) {
  VIRGA_TRY(auto address, address_of(path));
  UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd) return fail_errno(errno, "make a unix socket");
  struct stat there{};
  if (::lstat(address.name.sun_path, &there) == 0) {
    if (!S_ISSOCK(there.st_mode)) return fail(ErrorKind::exists, fmt::format("'{}' is there and is no socket", path));
    ::unlink(address.name.sun_path);
  }
  // The mode of the socket's inode comes from the descriptor at bind time: no moment with wider permissions.
  if (::fchmod(fd.get(), static_cast<mode_t>(mode)) != 0) return fail_errno(errno, "set the mode of a unix socket");
  if (::bind(fd.get(), reinterpret_cast<sockaddr*>(&address.name), sizeof address.name) != 0)
    return fail_errno(errno, fmt::format("bind socket '{}'", path));
  if (::chmod(address.name.sun_path, static_cast<mode_t>(mode)) != 0 || ::listen(fd.get(), backlog) != 0) {
    const int error = errno;
    ::unlink(address.name.sun_path);
    return fail_errno(error, fmt::format("listen on socket '{}'", path));
  }
  return fd;
}

Task<Result<UniqueFd>> connect_unix(std::string path, Milliseconds timeout) {
  VIRGA_CO_TRY(auto address, address_of(path));
  const auto deadline = std::chrono::steady_clock::now() + timeout;
  for (;;) {
    UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    if (!fd) co_return fail_errno(errno, "make a unix socket");
    if (::connect(fd.get(), reinterpret_cast<sockaddr*>(&address.name), sizeof address.name) == 0) co_return fd;
    const int error = errno;
    if (error == EINTR) continue;
    if (error == ECONNREFUSED) co_return fail(ErrorKind::unavailable, fmt::format("nobody listens on socket '{}'", path));
    if (error != EAGAIN) co_return fail_errno(error, fmt::format("connect to socket '{}'", path));
    if (std::chrono::steady_clock::now() >= deadline)
      co_return fail(ErrorKind::timeout, fmt::format("the queue of socket '{}' stays full", path));
    if (!co_await sleep_for(Milliseconds(5)))
      co_return fail(ErrorKind::cancelled, fmt::format("cancelled while connecting to socket '{}'", path));
  }
}

}  // namespace virga::io
