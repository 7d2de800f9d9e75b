// The daemon's side of virga-shim, the small parent of each guest. A shim outlives the daemon; the daemon finds it again by the
// directory it serves. Blocking-free; used on the event loop, where a Shim must also be destroyed.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/task.h"
#include "base/units.h"
#include "io/fd.h"
#include "io/process.h"

namespace virga::io {

/// Where the guest's console comes from.
enum class ConsoleSource {
  none,
  socketpair,  ///< the guest's process gets one end of a stream socket pair as descriptor `console_fd` (QEMU: -chardev socket,fd=N)
  receive,     ///< a launcher sends a pseudo-terminal's master over RUN_DIR/console-receive.sock (OCI runtimes: --console-socket)
  pty,         ///< the guest's process gets a new pseudo-terminal as its standard streams and controlling terminal
};

struct ShimSpec {
  std::string program;                 ///< path of virga-shim
  std::string run_dir;                 ///< exists, mode 0700, ours alone: shim.sock, console.sock and state live in it
  std::string console_log;             ///< path of the console's log, empty for none
  Bytes console_log_limit = 1u << 20;  ///< the log keeps the newest bytes, between half of this and this
  ConsoleSource console = ConsoleSource::none;
  int console_fd = -1;
  std::vector<std::string> argv;  ///< what the shim runs; argv[0] is a path
  std::vector<std::string> env;
  std::string cwd;         ///< the child's working directory; empty: "/"
  std::string output_log;  ///< the child's standard output and error go here, empty: /dev/null
  std::string pid_file;  ///< set: argv is a launcher that leaves the guest behind and writes its pid here; empty: argv is the guest
  std::vector<std::pair<int, int>> fds;   ///< {ours, its number in the child}, numbers 0..99; 0, 1, 2 replace the standard streams
  std::vector<std::string> cgroup_procs;  ///< cgroup.procs (v2) or tasks/cgroup.procs (v1) files the child joins before it runs
  std::optional<std::pair<uid_t, gid_t>> drop_to;  ///< the child drops to these, loses all capabilities and gets no_new_privs
                                                   ///< before it runs, in a network and IPC namespace of its own
  bool die_with_parent = false;  ///< for short-lived exec shims: the shim kills its child when the daemon's connection closes
};

/// What a shim knows of its guest.
struct ShimStatus {
  pid_t shim_pid = -1;
  pid_t guest_pid = -1;                ///< -1 until a launcher has written the pid file
  std::uint64_t guest_start_time = 0;  ///< clock ticks since boot; with boot_id() it names the process for good
  bool launcher_done = false;          ///< with pid_file: the launcher has ended
  ExitStatus launcher_status;
  bool exited = false;
  ExitStatus status;  ///< valid once exited
};

/// A connection to one shim. Closing it leaves the shim and the guest alone (unless die_with_parent).
class Shim {
 public:
  /// Starts a shim and waits until the guest runs or the launcher has ended. Where that fails, nothing is left but logs.
  /// Errors: unavailable (the launcher failed: its last words are in the message), not_found (no such program).
  static Task<Result<std::unique_ptr<Shim>>> start(ShimSpec spec, Milliseconds timeout = Milliseconds(30'000));
  /// Connects to the shim that serves `run_dir`. Errors: not_found (none lives there, or the host has rebooted since).
  static Task<Result<std::unique_ptr<Shim>>> connect(std::string run_dir);

  /// Takes away what lives or is left in `run_dir`: destroys a shim that lives, kills the guest of a shim that was killed, removes
  /// their files. Nothing there is success.
  static Task<Result<>> sweep(std::string run_dir);

  virtual ~Shim() = default;
  virtual const ShimStatus& status() const noexcept = 0;
  /// Waits until the guest has ended. Errors: cancelled, unavailable (the shim itself died).
  virtual Task<Result<ExitStatus>> wait_exit() = 0;
  /// Sends a signal to the guest's process. Gone is success.
  virtual Task<Result<>> signal(int number) = 0;
  /// Sets the size of the console's terminal. Errors: unsupported (it is no terminal).
  virtual Task<Result<>> resize(std::uint16_t columns, std::uint16_t rows) = 0;
  /// Empties the console's log.
  virtual Task<Result<>> clear_log() = 0;
  /// Ends a shim whose guest has exited and removes its files in run_dir. Waits until the shim process is gone.
  virtual Task<Result<>> dismiss() = 0;
  /// Kills the guest and the shim, whatever state they are in; returns when both are gone.
  virtual Task<Result<>> destroy() = 0;
};

/// A stream to the guest's console (input and output) as descriptor; several may be open. Errors: not_found.
Task<Result<UniqueFd>> open_console(std::string run_dir);

}  // namespace virga::io
