// virga-shim's start and its one loop.
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "apps/virga-shim/shim.h"

namespace virga::shim {

Shim shim;

bool watch(Source& source, int fd, SourceKind kind, uint32_t events) {
  source.fd = fd;
  source.kind = kind;
  source.events = events;
  fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
  epoll_event event = {};
  event.events = events;
  event.data.ptr = &source;
  return epoll_ctl(shim.epoll, EPOLL_CTL_ADD, fd, &event) == 0;
}

void rewatch(Source& source, uint32_t events) {
  if (source.fd < 0 || source.events == events) return;
  source.events = events;
  epoll_event event = {};
  event.events = events;
  event.data.ptr = &source;
  epoll_ctl(shim.epoll, EPOLL_CTL_MOD, source.fd, &event);
}

void unwatch(Source& source) {
  if (source.fd < 0) return;
  epoll_ctl(shim.epoll, EPOLL_CTL_DEL, source.fd, nullptr);
  close(source.fd);
  source.fd = -1;
  source.kind = SourceKind::none;
}

int listen_at(const char* name, int type) {
  // Through /proc/self/fd: the directory's own path may be longer than a socket's address.
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  snprintf(address.sun_path, sizeof address.sun_path, "/proc/self/fd/%d/%s", shim.run_dir, name);
  unlinkat(shim.run_dir, name, 0);
  int fd = socket(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) return -1;
  const mode_t before = umask(0177);
  const bool ok = bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0 && listen(fd, 16) == 0;
  umask(before);
  if (ok) return fd;
  close(fd);
  return -1;
}

void save_state() {
  State state = {magic, shim.status};
  char beside[sizeof state_name + 8];
  snprintf(beside, sizeof beside, "%s.new", state_name);
  int fd = openat(shim.run_dir, beside, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600);
  if (fd < 0) return;
  const bool ok = write(fd, &state, sizeof state) == static_cast<ssize_t>(sizeof state);
  close(fd);
  if (ok) renameat(shim.run_dir, beside, shim.run_dir, state_name);
}

namespace {

void read_boot_id() {
  int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
  if (fd < 0) return;
  const ssize_t n = read(fd, shim.status.boot_id, sizeof shim.status.boot_id - 1);
  close(fd);
  for (ssize_t i = 0; i < n; ++i)
    if (shim.status.boot_id[i] == '\n') shim.status.boot_id[i] = '\0';
}

void block_signals() {
  sigset_t all;
  sigfillset(&all);
  sigprocmask(SIG_BLOCK, &all, nullptr);
  sigset_t children;
  sigemptyset(&children);
  sigaddset(&children, SIGCHLD);
  watch(shim.signals, signalfd(-1, &children, SFD_CLOEXEC | SFD_NONBLOCK), SourceKind::signals, EPOLLIN);
}

/// Standard output and error of the child, unless both are given: to the output log and to the last words.
int make_output_pipe() {
  bool given[3] = {false, false, false};
  for (int i = 0; i < shim.options.fd_count; ++i)
    if (shim.options.fds[i].to < 3) given[shim.options.fds[i].to] = true;
  if ((given[1] && given[2]) || shim.options.console == ConsoleMode::pty) return -1;
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) return -1;
  watch(shim.output, ends[0], SourceKind::output, EPOLLIN);
  return ends[1];
}

bool prepare(int* console_fd) {
  prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
  shim.status.shim_pid = getpid();
  shim.status.guest_pid = -1;
  read_boot_id();
  shim.epoll = epoll_create1(EPOLL_CLOEXEC);
  shim.run_dir = open(shim.options.run_dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
  if (shim.epoll < 0 || shim.run_dir < 0) return false;
  block_signals();
  watch(shim.connections[0], shim.options.control_fd, SourceKind::connection, EPOLLIN);
  shim.first_connection = 0;
  int fd = listen_at(socket_name, SOCK_SEQPACKET);
  if (fd < 0 || !watch(shim.control_listen, fd, SourceKind::control_listen, EPOLLIN)) return false;
  save_state();
  if (console_prepare(console_fd)) return true;
  shim.failed_stage = Stage::console;
  return false;
}

void dispatch(Source& source, uint32_t events) {
  switch (source.kind) {
    case SourceKind::none:
      return;
    case SourceKind::signals: {
      signalfd_siginfo info;
      while (read(shim.signals.fd, &info, sizeof info) > 0) continue;
      return reap_children();
    }
    case SourceKind::control_listen:
      return control_accept();
    case SourceKind::connection:
      return connection_ready(source, events);
    case SourceKind::console_listen:
      return console_accept();
    case SourceKind::watcher:
      return watcher_ready(source, events);
    case SourceKind::console:
      return console_ready(events);
    case SourceKind::output:
      return output_ready();
    case SourceKind::receive_listen:
      return receive_accept();
    case SourceKind::receive:
      return receive_ready();
  }
}

void loop() {
  for (;;) {
    if (shim.ending) {
      kill_children();
      reap_children();
      siginfo_t info = {};
      if (waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) < 0 && errno == ECHILD) return;
    }
    epoll_event events[16];
    // While ending, orphans may arrive without a signal of their own: look again soon.
    const int n = epoll_wait(shim.epoll, events, 16, shim.ending ? 20 : -1);
    for (int i = 0; i < n; ++i) dispatch(*static_cast<Source*>(events[i].data.ptr), events[i].events);
  }
}

void remove_files() {
  console_finish();
  const char* const names[] = {socket_name, console_name, receive_name, state_name};
  for (const char* name : names) unlinkat(shim.run_dir, name, 0);
}

}  // namespace
}  // namespace virga::shim

int main(int argc, char** argv) {
  using namespace virga::shim;
  if (!parse_options(argc, argv, shim.options)) {
    static const char usage[] = "virga-shim is started by virgad\n";
    (void)!write(2, usage, sizeof usage - 1);
    return 2;
  }
  int console_fd = -1;
  if (!prepare(&console_fd)) {
    shim.failed_errno = errno;
    if (shim.failed_stage == Stage::none) shim.failed_stage = Stage::prepare;
    push(Kind::failed);
  } else {
    const int output_fd = make_output_pipe();
    const bool started = start_child(console_fd, output_fd);
    if (output_fd >= 0) close(output_fd);
    if (console_fd >= 0 && shim.options.console == ConsoleMode::socketpair) close(console_fd);
    if (started || shim.child > 0) loop();
  }
  remove_files();
  return 0;
}
