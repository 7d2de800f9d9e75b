// The guest's console: a socket, or the master of a pseudo-terminal that we made or a launcher sent us. What comes out goes to the
// log and to every watcher that keeps up; what watchers type goes in. Nothing here ever waits: a watcher that does not read loses
// output.
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <termios.h>
#include <unistd.h>

#include "apps/virga-shim/shim.h"

namespace virga::shim {
namespace {

char buffer[16384];

void update_watchers() {
  // While the guest has not taken what was typed, nobody types more.
  for (auto& w : shim.watchers)
    if (w.fd >= 0) rewatch(w, shim.input_size > 0 ? 0u : static_cast<uint32_t>(EPOLLIN));
  if (shim.console.fd >= 0) rewatch(shim.console, shim.input_size > 0 ? EPOLLIN | EPOLLOUT : EPOLLIN);
}

void flush_input() {
  while (shim.input_done < shim.input_size && shim.console.fd >= 0) {
    const ssize_t n = write(shim.console.fd, shim.input + shim.input_done, shim.input_size - shim.input_done);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0 && errno == EAGAIN) return;
    if (n <= 0) break;
    shim.input_done += static_cast<size_t>(n);
  }
  shim.input_done = shim.input_size = 0;
}

/// False at the end of the console's stream.
bool pump_output(int rounds) {
  while (rounds-- > 0 && shim.console.fd >= 0) {
    const ssize_t n = read(shim.console.fd, buffer, sizeof buffer);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) return true;
    if (n <= 0) return false;
    log_write(shim.console_log, buffer, static_cast<size_t>(n));
    for (auto& w : shim.watchers) {
      if (w.fd < 0) continue;
      const ssize_t sent = send(w.fd, buffer, static_cast<size_t>(n), MSG_DONTWAIT | MSG_NOSIGNAL);
      if (sent < 0 && errno != EAGAIN && errno != EINTR) unwatch(w);
    }
  }
  return true;
}

void adopt_terminal(int master) {
  // With a slave end of our own the master does not hang up between two programs of the guest that use its console.
  shim.console_peer = ioctl(master, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
  fcntl(master, F_SETFD, FD_CLOEXEC);
  watch(shim.console, master, SourceKind::console, EPOLLIN);
}

bool make_terminal(int* child_fd) {
  int master = open("/dev/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC);
  int unlocked = 0;
  if (master < 0 || ioctl(master, TIOCSPTLCK, &unlocked) != 0) return false;
  adopt_terminal(master);
  struct winsize size = {24, 80, 0, 0};
  ioctl(master, TIOCSWINSZ, &size);
  *child_fd = shim.console_peer;
  return shim.console_peer >= 0;
}

}  // namespace

bool console_prepare(int* child_fd) {
  *child_fd = -1;
  const Options& o = shim.options;
  if (o.console_log != nullptr && !log_open(shim.console_log, o.console_log, o.console_log_limit)) return false;
  if (o.output_log != nullptr && !log_open(shim.output_log, o.output_log, 1u << 20)) return false;
  if (o.console == ConsoleMode::none) return true;
  int fd = listen_at(console_name, SOCK_STREAM);
  if (fd < 0 || !watch(shim.console_listen, fd, SourceKind::console_listen, EPOLLIN)) return false;
  if (o.console == ConsoleMode::pty) return make_terminal(child_fd);
  if (o.console == ConsoleMode::receive) {
    fd = listen_at(receive_name, SOCK_STREAM);
    return fd >= 0 && watch(shim.receive_listen, fd, SourceKind::receive_listen, EPOLLIN);
  }
  int pair[2];
  if (o.console_fd < 0 || socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0) return false;
  *child_fd = pair[1];
  return watch(shim.console, pair[0], SourceKind::console, EPOLLIN);
}

void console_ready(uint32_t events) {
  if ((events & EPOLLOUT) != 0) {
    flush_input();
    update_watchers();
  }
  if ((events & (EPOLLIN | EPOLLHUP | EPOLLERR)) != 0 && !pump_output(4)) unwatch(shim.console);
}

void console_accept() {
  int fd = accept4(shim.console_listen.fd, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK);
  if (fd < 0) return;
  for (auto& w : shim.watchers)
    if (w.fd < 0) {
      watch(w, fd, SourceKind::watcher, shim.input_size > 0 ? 0u : static_cast<uint32_t>(EPOLLIN));
      return;
    }
  close(fd);
}

int console_resize(uint32_t columns_and_rows) {
  struct winsize size = {};
  size.ws_col = static_cast<unsigned short>(columns_and_rows >> 16);
  size.ws_row = static_cast<unsigned short>(columns_and_rows);
  return shim.console.fd >= 0 && ioctl(shim.console.fd, TIOCSWINSZ, &size) == 0 ? 0 : ENOTTY;
}

void watcher_ready(Source& source, uint32_t events) {
  if (shim.input_size > 0) {
    if ((events & (EPOLLHUP | EPOLLERR)) != 0) unwatch(source);
    return;
  }
  const ssize_t n = read(source.fd, shim.input, sizeof shim.input);
  if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
  if (n <= 0) return unwatch(source);
  shim.input_size = static_cast<size_t>(n);
  shim.input_done = 0;
  flush_input();
  if (shim.input_size > 0) update_watchers();
}

void output_ready() {
  while (shim.output.fd >= 0) {
    const ssize_t n = read(shim.output.fd, buffer, sizeof buffer);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (n <= 0) return unwatch(shim.output);
    const size_t size = static_cast<size_t>(n);
    log_write(shim.output_log, buffer, size);
    constexpr size_t room = sizeof shim.words - 1;
    if (size >= room) {
      memcpy(shim.words, buffer + size - room, room);
      shim.words_size = room;
    } else {
      const size_t keep = shim.words_size + size > room ? room - size : shim.words_size;
      memmove(shim.words, shim.words + shim.words_size - keep, keep);
      memcpy(shim.words + keep, buffer, size);
      shim.words_size = keep + size;
    }
  }
}

void receive_accept() {
  int fd = accept4(shim.receive_listen.fd, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK);
  if (fd < 0) return;
  if (shim.receive.fd >= 0 || shim.console.fd >= 0) {
    close(fd);
    return;
  }
  watch(shim.receive, fd, SourceKind::receive, EPOLLIN);
}

void receive_ready() {
  char text[256];
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))];
  iovec io = {text, sizeof text};
  msghdr message = {};
  message.msg_iov = &io;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof control;
  const ssize_t n = recvmsg(shim.receive.fd, &message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
  if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
  unwatch(shim.receive);
  const cmsghdr* header = n >= 0 ? CMSG_FIRSTHDR(&message) : nullptr;
  if (header == nullptr || header->cmsg_type != SCM_RIGHTS || header->cmsg_len != CMSG_LEN(sizeof(int))) return;
  int master;
  memcpy(&master, CMSG_DATA(header), sizeof master);
  adopt_terminal(master);
  unwatch(shim.receive_listen);
  unlinkat(shim.run_dir, receive_name, 0);
}

void console_finish() {
  if (shim.receive_listen.fd >= 0 && shim.receive.fd < 0) receive_accept();
  if (shim.receive.fd >= 0) receive_ready();
  pump_output(1024);  // what the guest said last
  output_ready();
  unwatch(shim.console);
  if (shim.console_peer >= 0) close(shim.console_peer);
  shim.console_peer = -1;
  for (auto& w : shim.watchers) unwatch(w);
}

}  // namespace virga::shim
