// The commands that run for the daemon: processes, their pipes or terminal, and how much of each stream may still be sent.
#pragma once

#include <poll.h>
#include <sys/types.h>

#include <cstdint>

#include "link.h"

namespace virga::agent {

/// An exec request in memory of its own: one block holds the strings and the arrays.
struct Launch {
  bool terminal = false;
  bool files = false;  ///< serve files by SFTP instead
  std::uint16_t columns = 80;
  std::uint16_t rows = 24;
  std::uint32_t uid = 0;
  std::uint32_t gid = 0;
  const char* cwd = "";
  char** argv = nullptr;
  char** environment = nullptr;  ///< has room for five more
  int environment_count = 0;
  void* block = nullptr;
};

/// False: malformed. Free launch.block afterwards.
bool parse_launch(const Frame& frame, Launch& launch);

struct Pipes {
  pid_t pid = -1;
  int input = -1;
  int output = -1;
  int error = -1;  ///< -1 with a terminal, where input and output are the same descriptor
};

/// Starts a command. What goes wrong in the child (no such program, user, directory) is written to its standard error and ends it
/// with 126 or 127, as a shell does it. False: not even a process could be made; errno tells.
bool launch_command(const Launch& launch, Pipes& pipes);

class Commands {
 public:
  explicit Commands(Link& link) : link_(link) {}
  void exec(const Frame& frame);
  void data(const Frame& frame);
  void end(const Frame& frame);
  void window(const Frame& frame);
  void resize(const Frame& frame);
  void signal(const Frame& frame);
  void close(std::uint32_t stream);
  /// Kills and forgets all: the session that started them is over.
  void close_all();
  /// A child has ended.
  void exited(pid_t pid, int code);
  /// How many entries of `fds` it filled; `fds` has room for 3 * max_commands.
  int prepare(struct pollfd* fds);
  /// Serves what poll() found.
  void serve(const struct pollfd* fds, int count);

 private:
  struct Command;
  Command* find(std::uint32_t stream);
  void forget(Command*& slot);
  void feed_input(Command& c);
  void close_input(Command& c, bool tell);
  bool drain(Command& c, int which);
  void end_stream(Command& c, int which);
  void settle(Command*& slot);
  Link& link_;
  Command* slots_[max_commands] = {};
};

}  // namespace virga::agent
