#include "commands.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

#include <new>

namespace virga::agent {
namespace {

/// To the command's process group, or to the process alone while it has not made its session yet.
void signal_group(pid_t pid, int number) {
  if (::kill(-pid, number) != 0 && errno == ESRCH) ::kill(pid, number);
}

}  // namespace

struct Commands::Command {
  std::uint32_t stream = 0;
  pid_t pid = -1;  // -1: it has been waited for
  bool terminal = false;
  int input = -1;
  int output[2] = {-1, -1};  // output, error
  bool ended[2] = {false, false};
  std::uint32_t allowed[2] = {output_window, output_window};
  bool input_over = false;  // the daemon has sent all
  bool exit_due = false;
  bool exit_sent = false;
  int code = 0;
  std::size_t held_start = 0, held = 0;
  Byte buffer[input_window];  // input that the command has not taken yet
};

Commands::Command* Commands::find(std::uint32_t stream) {
  for (auto* c : slots_)
    if (c != nullptr && c->stream == stream) return c;
  return nullptr;
}

void Commands::exec(const Frame& frame) {
  Byte reply[8];
  Writer w(reply, sizeof reply);
  Launch launch;
  Command** slot = nullptr;
  for (auto*& s : slots_)
    if (s == nullptr) slot = &s;
  auto* c = slot != nullptr && find(frame.stream) == nullptr ? static_cast<Command*>(::malloc(sizeof(Command))) : nullptr;
  Pipes pipes;
  const bool parsed = c != nullptr && parse_launch(frame, launch);
  const bool started = parsed && launch_command(launch, pipes);
  ::free(launch.block);
  if (!started) {
    ::free(c);
    w.u32(126);
    link_.send(Type::exit, frame.stream, reply, w.size());
    return;
  }
  ::new (c) Command;
  c->stream = frame.stream;
  c->pid = pipes.pid;
  c->terminal = launch.terminal;
  c->input = pipes.input;
  c->output[0] = pipes.output;
  c->output[1] = pipes.error;
  *slot = c;
  w.u32(static_cast<std::uint32_t>(pipes.pid));
  w.u32(input_window);
  link_.send(Type::started, c->stream, reply, w.size());
  if (c->terminal) end_stream(*c, 1);
}

void Commands::data(const Frame& frame) {
  Command* c = find(frame.stream);
  if (c == nullptr || frame.size < 1 || frame.payload[0] != 0 || c->input < 0 || c->input_over) return;
  const std::size_t size = frame.size - 1;
  // More than the window was never asked for: a daemon that does it has lost its mind, the bytes go.
  if (size > input_window - c->held) return;
  if (c->held_start + c->held + size > input_window) {
    ::memmove(c->buffer, c->buffer + c->held_start, c->held);
    c->held_start = 0;
  }
  ::memcpy(c->buffer + c->held_start + c->held, frame.payload + 1, size);
  c->held += size;
  feed_input(*c);
}

void Commands::end(const Frame& frame) {
  Command* c = find(frame.stream);
  if (c == nullptr || frame.size < 1 || frame.payload[0] != 0) return;
  c->input_over = true;
  feed_input(*c);
}

void Commands::window(const Frame& frame) {
  Reader r(frame.payload, frame.size);
  const unsigned channel = r.u8();
  const std::uint32_t more = r.u32();
  Command* c = find(frame.stream);
  if (c == nullptr || !r.ok() || channel < 1 || channel > 2 || more > (1u << 24) || c->allowed[channel - 1] > (1u << 24)) return;
  c->allowed[channel - 1] += more;
}

void Commands::resize(const Frame& frame) {
  Reader r(frame.payload, frame.size);
  struct winsize size = {};
  size.ws_col = r.u16();
  size.ws_row = r.u16();
  const Command* c = find(frame.stream);
  if (c != nullptr && r.ok() && c->terminal && c->output[0] >= 0) ::ioctl(c->output[0], TIOCSWINSZ, &size);
}

void Commands::signal(const Frame& frame) {
  Reader r(frame.payload, frame.size);
  const int number = r.u8();
  const Command* c = find(frame.stream);
  if (c != nullptr && r.ok() && number > 0 && number < NSIG && c->pid > 0) signal_group(c->pid, number);
}

void Commands::forget(Command*& slot) {
  Command* c = slot;
  // A leader that was waited for is gone, and its group's number may be somebody else's; what it left in the background lives on.
  if (c->pid > 0) signal_group(c->pid, SIGKILL);
  if (c->input >= 0 && c->input != c->output[0]) ::close(c->input);
  for (int fd : c->output)
    if (fd >= 0) ::close(fd);
  ::free(c);
  slot = nullptr;
}

void Commands::close(std::uint32_t stream) {
  for (auto*& slot : slots_)
    if (slot != nullptr && slot->stream == stream) forget(slot);
}

void Commands::close_all() {
  for (auto*& slot : slots_)
    if (slot != nullptr) forget(slot);
}

void Commands::exited(pid_t pid, int code) {
  for (auto* c : slots_) {
    if (c == nullptr || c->pid != pid) continue;
    c->pid = -1;
    c->code = code;
    c->exit_due = true;
  }
}

void Commands::close_input(Command& c, bool tell) {
  if (c.input < 0) return;
  if (c.input != c.output[0]) ::close(c.input);
  c.input = -1;
  c.held = 0;
  if (!tell) return;
  const Byte channel = 0;
  link_.send(Type::end, c.stream, &channel, 1);
}

void Commands::feed_input(Command& c) {
  std::size_t written = 0;
  while (c.input >= 0 && c.held > 0) {
    const ssize_t n = ::write(c.input, c.buffer + c.held_start, c.held);
    if (n > 0) {
      c.held_start += static_cast<std::size_t>(n);
      c.held -= static_cast<std::size_t>(n);
      written += static_cast<std::size_t>(n);
    } else if (n < 0 && errno == EINTR) {
      continue;
    } else if (n < 0 && errno == EAGAIN) {
      break;
    } else {
      close_input(c, true);
      return;
    }
  }
  if (c.held == 0) c.held_start = 0;
  if (written > 0) {
    Byte payload[8];
    Writer w(payload, sizeof payload);
    w.u8(0);
    w.u32(static_cast<std::uint32_t>(written));
    link_.send(Type::window, c.stream, payload, w.size());
  }
  if (c.input_over && c.held == 0 && c.input >= 0) {
    if (c.terminal) {
      // A terminal has no end of file of its own: what a person would type is sent, if the terminal still listens to it.
      struct termios modes;
      if (::tcgetattr(c.input, &modes) == 0 && (modes.c_lflag & ICANON) != 0) {
        const ssize_t ignored = ::write(c.input, &modes.c_cc[VEOF], 1);
        static_cast<void>(ignored);
      }
    }
    close_input(c, false);
  }
}

void Commands::end_stream(Command& c, int which) {
  if (c.ended[which]) return;
  c.ended[which] = true;
  if (which == 0 && c.terminal) c.input = -1;  // the same descriptor
  if (c.output[which] >= 0) ::close(c.output[which]);
  c.output[which] = -1;
  const Byte channel = static_cast<Byte>(which + 1);
  link_.send(Type::end, c.stream, &channel, 1);
}

/// Whether it took something, so that there may be more.
bool Commands::drain(Command& c, int which) {
  static Byte payload[max_payload];
  if (c.ended[which] || c.allowed[which] == 0 || !link_.room(4)) return false;
  std::size_t size = sizeof payload - 1;
  if (size > c.allowed[which]) size = c.allowed[which];
  const ssize_t n = ::read(c.output[which], payload + 1, size);
  if (n > 0) {
    payload[0] = static_cast<Byte>(which + 1);
    c.allowed[which] -= static_cast<std::uint32_t>(n);
    link_.send(Type::data, c.stream, payload, static_cast<std::size_t>(n) + 1);
    return true;
  }
  if (n < 0 && errno == EINTR) return true;
  // Nothing there: while the command lives more may come. Once it has ended, whoever else holds the pipe is not waited for.
  if (n < 0 && errno == EAGAIN && c.pid > 0) return false;
  end_stream(c, which);
  return false;
}

/// Tells the exit once, and forgets a command of which all has been told.
void Commands::settle(Command*& slot) {
  Command& c = *slot;
  if (c.exit_due && !c.exit_sent && link_.room(3)) {
    Byte payload[4];
    Writer w(payload, sizeof payload);
    w.u32(static_cast<std::uint32_t>(c.code));
    link_.send(Type::exit, c.stream, payload, w.size());
    c.exit_sent = true;
    close_input(c, false);
  }
  if (c.exit_sent && c.ended[0] && c.ended[1]) forget(slot);
}

int Commands::prepare(struct pollfd* fds) {
  int n = 0;
  const bool room = link_.room(4);
  for (const auto* c : slots_) {
    if (c == nullptr) continue;
    for (int which = 0; which < 2; ++which)
      if (!c->ended[which] && c->allowed[which] > 0 && room) fds[n++] = {c->output[which], POLLIN, 0};
    if (room && c->input >= 0 && (c->held > 0 || !c->terminal))
      fds[n++] = {c->input, static_cast<short>(c->held > 0 ? POLLOUT : 0), 0};
  }
  return n;
}

void Commands::serve(const struct pollfd* fds, int count) {
  auto found = [&](int fd) -> short {
    for (int i = 0; i < count; ++i)
      if (fds[i].fd == fd && fds[i].revents != 0) return fds[i].revents;
    return 0;
  };
  for (auto*& slot : slots_) {
    if (slot == nullptr) continue;
    Command& c = *slot;
    for (int which = 0; which < 2; ++which)
      if (!c.ended[which] && (found(c.output[which]) != 0 || c.pid < 0)) {
        // Whoever else holds the pipe of a command that has ended may be silent for ever, and wake nobody: all that is there now.
        while (drain(c, which) && c.pid < 0) {
        }
      }
    if (c.input >= 0 && link_.room(2)) {
      const short what = found(c.input);
      if (c.held > 0 && what != 0) feed_input(c);
      if (c.input >= 0 && !c.terminal && (what & POLLERR) != 0) close_input(c, true);
    }
    settle(slot);
  }
}

}  // namespace virga::agent
