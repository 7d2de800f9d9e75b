// virga-agent: runs in a virtual machine and does what the daemon asks over a virtio-serial port: commands with streams and
// terminals, the guest's state, shutting down. One thread, one poll(), no allocation but a block per running command; it needs libc
// only and is linked statically, so that it runs on any Linux guest.
//
//   virga-agent            on the guest's port; waits until there is one, and for the daemon to come and go
//   virga-agent --stdio    on standard input and output (tests)
//   virga-agent --socket PATH   listens there and serves one connection after another (tests)
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "commands.h"
#include "guest.h"
#include "link.h"

namespace virga::agent {
namespace {

Link link;
Commands commands(link);
Decoder decoder;
bool in_session = false;

void say(Type type, std::uint32_t stream, const void* payload = nullptr, std::size_t size = 0) {
  link.send(type, stream, payload, size);
}

void greet(const Frame& frame) {
  Reader r(frame.payload, frame.size);
  Hello hello;
  if (!read_hello(r, hello)) return;
  commands.close_all();
  link.restart();
  hello.version = protocol_version;
  Byte payload[64];
  Writer w(payload, sizeof payload);
  write_hello(w, hello);
  say(Type::welcome, 0, payload, w.size());
  in_session = true;
}

void report_state(std::uint32_t stream) {
  static Byte payload[max_payload];
  if (!link.room(2)) return;
  Writer w(payload, sizeof payload);
  write_state(w);
  if (w.ok()) say(Type::state_reply, stream, payload, w.size());
}

void handle(const Frame& frame) {
  const auto type = static_cast<Type>(frame.type);
  if (type == Type::hello) return greet(frame);
  if (!in_session || !link.room(1)) return;
  switch (type) {
    case Type::exec:
      return commands.exec(frame);
    case Type::data:
      return commands.data(frame);
    case Type::end:
      return commands.end(frame);
    case Type::window:
      return commands.window(frame);
    case Type::resize:
      return commands.resize(frame);
    case Type::signal:
      return commands.signal(frame);
    case Type::close:
      return commands.close(frame.stream);
    case Type::state:
      return report_state(frame.stream);
    case Type::ping:
      return say(Type::pong, frame.stream);
    case Type::power: {
      const Byte agreed = 0;
      say(Type::power_reply, frame.stream, &agreed, 1);
      link.flush();
      return go_down(frame.size > 0 && frame.payload[0] == static_cast<Byte>(Power::reboot) ? Power::reboot : Power::off);
    }
    case Type::freeze: {
      Reader r(frame.payload, frame.size);
      const Byte result = freeze_files(r.u32()) ? 0 : 1;
      return say(Type::freeze_reply, frame.stream, &result, 1);
    }
    case Type::thaw:
      thaw_files();
      return say(Type::thaw_reply, frame.stream);
    default:
      return;  // of a later version
  }
}

void end_session() {
  in_session = false;
  thaw_files();
  commands.close_all();
  link.restart();
}

void reap(int signals) {
  struct signalfd_siginfo info;
  while (::read(signals, &info, sizeof info) > 0) {
    if (info.ssi_signo != SIGCHLD) {
      commands.close_all();
      ::_exit(0);
    }
  }
  int status = 0;
  for (pid_t pid; (pid = ::waitpid(-1, &status, WNOHANG)) > 0;)
    commands.exited(pid, WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status));
}

/// Serves one stream until it is gone. `comes_back`: a hang-up only means that no daemon is there now.
void serve(int in, int out, int signals, bool comes_back) {
  static struct pollfd fds[2 + 3 * max_commands];
  static Byte buffer[16384];
  if (!link.open(in, out)) return;
  end_session();
  say(Type::announce, 0);
  while (!link.broken()) {
    link.flush();
    fds[0] = {link.poll_fd(), POLLIN, 0};
    fds[1] = {signals, POLLIN, 0};
    const int count = commands.prepare(fds + 2);
    const bool busy = link.may_read() && link.room(4);
    if (::poll(fds, static_cast<nfds_t>(2 + count), busy ? 0 : -1) < 0 && errno != EINTR) break;
    if (fds[0].revents != 0) link.update();
    if (fds[1].revents != 0) reap(signals);
    if (link.may_read() && link.room(4)) {
      const std::size_t n = link.read(buffer, sizeof buffer);
      decoder.feed(buffer, n, [](const Frame& frame) {
        handle(frame);
        return true;
      });
    }
    if (link.hung_up()) {
      if (!comes_back) break;
      end_session();
    }
    commands.serve(fds + 2, count);
  }
  end_session();
  link.close();
}

int serve_socket(const char* path, int signals) {
  struct sockaddr_un name = {};
  name.sun_family = AF_UNIX;
  if (::strlen(path) >= sizeof name.sun_path) return 2;
  ::strcpy(name.sun_path, path);
  const int listener = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  ::unlink(path);
  if (listener < 0 || ::bind(listener, reinterpret_cast<struct sockaddr*>(&name), sizeof name) != 0 || ::listen(listener, 4) != 0) {
    ::perror("virga-agent: listen");
    return 1;
  }
  for (;;) {
    struct pollfd fds[2] = {{listener, POLLIN, 0}, {signals, POLLIN, 0}};
    ::poll(fds, 2, -1);
    if (fds[1].revents != 0) reap(signals);
    if (fds[0].revents == 0) continue;
    const int fd = ::accept4(listener, nullptr, nullptr, SOCK_CLOEXEC);
    if (fd >= 0) serve(fd, fd, signals, false);
  }
}

int serve_port(int signals) {
  // A port appears when the guest has loaded the driver; nothing tells a program without udev, so look again, less often with time.
  int wait_ms = 50;
  for (;;) {
    const int fd = open_port();
    if (fd >= 0) {
      serve(fd, fd, signals, true);
      wait_ms = 50;
    }
    struct pollfd waiting = {signals, POLLIN, 0};
    if (::poll(&waiting, 1, wait_ms) > 0) reap(signals);
    if (wait_ms < 1000) wait_ms += wait_ms / 4;
  }
}

int run(int argc, char** argv) {
  sigset_t set;
  ::sigemptyset(&set);
  ::sigaddset(&set, SIGCHLD);
  ::sigaddset(&set, SIGTERM);
  ::sigaddset(&set, SIGINT);
  ::sigprocmask(SIG_BLOCK, &set, nullptr);
  ::signal(SIGPIPE, SIG_IGN);
  const int signals = ::signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
  if (signals < 0) return 1;
  if (argc == 2 && ::strcmp(argv[1], "--stdio") == 0) {
    serve(0, 1, signals, false);
    return 0;
  }
  if (argc == 3 && ::strcmp(argv[1], "--socket") == 0) return serve_socket(argv[2], signals);
  if (argc != 1) {
    ::fprintf(stderr, "usage: virga-agent [--stdio | --socket PATH]\n");
    return 2;
  }
  return serve_port(signals);
}

}  // namespace
}  // namespace virga::agent

int main(int argc, char** argv) {
  return virga::agent::run(argc, argv);
}
