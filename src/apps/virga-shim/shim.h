// virga-shim, the small parent of one guest. It is started by the daemon in a new session and outlives it: it forks the guest (or a
// launcher that leaves the guest behind), holds its console, keeps a bounded log of what it prints, and tells whoever connects to
// RUN_DIR/shim.sock how the guest is. It interprets nothing that comes from a guest, allocates nothing after its start, and uses
// one thread: everything happens in the epoll loop of main.cc.
//
//   daemon --shim.sock--> control.cc      guest <--pty or socket--> console.cc --> log.cc
//                         child.cc: fork, drop, exec, reap                   \--> watchers on console.sock
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/shim_protocol.h"

namespace virga::shim {

enum class ConsoleMode { none, socketpair, receive, pty };

struct Pair {
  int from, to;
};

/// The command line, see options.cc. Everything points into argv.
struct Options {
  const char* run_dir = nullptr;
  const char* console_log = nullptr;
  uint64_t console_log_limit = 1u << 20;
  const char* output_log = nullptr;
  const char* cwd = nullptr;
  const char* pid_file = nullptr;
  ConsoleMode console = ConsoleMode::none;
  int console_fd = -1;
  int control_fd = -1;
  Pair fds[64];
  int fd_count = 0;
  const char* cgroups[32];
  int cgroup_count = 0;
  bool drop = false;
  uid_t uid = 0;
  gid_t gid = 0;
  bool die_with_parent = false;
  char** argv = nullptr;
};
bool parse_options(int argc, char** argv, Options& out);

/// What epoll watches. The index of a source in its table is its identity; fd -1 is a free place.
enum class SourceKind : uint8_t {
  none,
  signals,
  control_listen,
  connection,
  console_listen,
  watcher,
  console,
  output,
  receive_listen,
  receive
};
struct Source {
  int fd = -1;
  SourceKind kind = SourceKind::none;
  uint32_t events = 0;
};

/// A log file that never grows past its limit: at the limit the newest half is kept.
struct Log {
  int dir = -1;
  char name[256];
  int fd = -1;
  uint64_t size = 0;
  uint64_t limit = 0;
};
bool log_open(Log& log, const char* path, uint64_t limit);
void log_write(Log& log, const char* data, size_t size);
int log_clear(Log& log);

struct Shim {
  Options options;
  Status status;
  int run_dir = -1;
  int epoll = -1;
  bool started = false;
  bool ending = false;       ///< kill all children, remove our files, end
  bool dying_guest = false;  ///< the daemon's connection closed and die_with_parent was asked for
  Stage failed_stage = Stage::none;
  int failed_errno = 0;
  pid_t child = -1;  ///< the guest, or the launcher while it runs
  Source signals, control_listen, console_listen, console, output, receive_listen, receive;
  Source connections[8];
  Source watchers[16];
  int first_connection = -1;  ///< index of the connection the daemon handed over
  int console_peer = -1;      ///< a slave end kept open, so that the master never hangs up while the guest lives
  Log console_log, output_log;
  char words[512];  ///< the newest output of the child
  size_t words_size = 0;
  char input[4096];  ///< from watchers, not yet taken by the guest
  size_t input_size = 0, input_done = 0;
};
extern Shim shim;

// main.cc
bool watch(Source& source, int fd, SourceKind kind, uint32_t events);
void rewatch(Source& source, uint32_t events);
void unwatch(Source& source);
int listen_at(const char* name, int type);
void save_state();

// child.cc
bool start_child(int console_child_fd, int output_child_fd);
void reap_children();
void kill_children();
uint64_t start_time(pid_t pid);

// console.cc
bool console_prepare(int* child_fd);
void console_ready(uint32_t events);
void console_accept();
int console_resize(uint32_t columns_and_rows);
void watcher_ready(Source& source, uint32_t events);
void output_ready();
void receive_accept();
void receive_ready();
void console_finish();

// control.cc
void control_accept();
void connection_ready(Source& source, uint32_t events);
void push(Kind kind);

}  // namespace virga::shim
