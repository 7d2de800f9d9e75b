#include "client/terminal.h"

#include <poll.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "io/process.h"

namespace virga::client {
namespace {

/// Pipes promise that this much can be written at once when poll says so.
constexpr std::size_t pipe_piece = 4096;

bool ready(int fd, short events) {
  ::pollfd p{.fd = fd, .events = events, .revents = 0};
  return ::poll(&p, 1, 0) > 0;
}

/// Files, /dev/null and the like are always ready, and epoll refuses them.
bool waitable(int fd) {
  struct ::stat st{};
  if (::fstat(fd, &st) != 0 || S_ISREG(st.st_mode)) return false;
  int probe = ::epoll_create1(EPOLL_CLOEXEC);
  if (probe < 0) return true;
  ::epoll_event event{};
  const bool ok = ::epoll_ctl(probe, EPOLL_CTL_ADD, fd, &event) == 0;
  ::close(probe);
  return ok;
}

}  // namespace

RawTerminal::RawTerminal(int fd) : fd_(fd) {
  if (::tcgetattr(fd_, &before_) != 0) return;
  auto raw = before_;
  ::cfmakeraw(&raw);
  changed_ = ::tcsetattr(fd_, TCSANOW, &raw) == 0;
}

RawTerminal::~RawTerminal() {
  if (changed_) ::tcsetattr(fd_, TCSADRAIN, &before_);
}

std::pair<unsigned, unsigned> terminal_size() {
  for (int fd : {STDOUT_FILENO, STDIN_FILENO, STDERR_FILENO}) {
    ::winsize size{};
    if (::ioctl(fd, TIOCGWINSZ, &size) == 0 && size.ws_col > 0) return {size.ws_col, size.ws_row};
  }
  return {0, 0};
}

Task<Result<std::size_t>> read_stream(int fd, std::span<char> into) {
  for (;;) {
    if (!ready(fd, POLLIN) && waitable(fd)) {
      if (!co_await io::wait_readable(fd)) co_return fail(ErrorKind::cancelled, "reading was cancelled");
    } else if (co_await is_cancelled()) {
      co_return fail(ErrorKind::cancelled, "reading was cancelled");
    }
    const auto n = ::read(fd, into.data(), into.size());
    if (n >= 0) co_return static_cast<std::size_t>(n);
    if (errno == EIO) co_return std::size_t{0};  // the terminal hung up
    if (errno != EINTR && errno != EAGAIN) co_return fail_errno(errno, "read standard input");
  }
}

Task<Result<>> write_stream(int fd, std::string_view bytes) {
  while (!bytes.empty()) {
    if (!ready(fd, POLLOUT) && waitable(fd))
      if (!co_await io::wait_writable(fd)) co_return fail(ErrorKind::cancelled, "writing was cancelled");
    const auto n = ::write(fd, bytes.data(), std::min(bytes.size(), pipe_piece));
    if (n > 0) bytes.remove_prefix(static_cast<std::size_t>(n));
    if (n < 0 && errno != EINTR && errno != EAGAIN) co_return fail_errno(errno, "write the command's output");
  }
  co_return Result<>();
}

}  // namespace virga::client
