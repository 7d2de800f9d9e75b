// Child processes. argv goes to execve as it is: there is no shell. Children inherit only the descriptors that are named.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/task.h"
#include "io/fd.h"

namespace virga::io {

struct ProcessSpec {
  std::vector<std::string> argv;         ///< argv[0] is looked up in PATH unless it holds a slash
  std::vector<std::string> env;          ///< "NAME=value"; empty: PATH and LANG=C only
  std::string cwd;                       ///< empty: "/"
  std::string input;                     ///< written to standard input, then closed
  std::vector<std::pair<int, int>> fds;  ///< {ours, its number in the child}; 0, 1, 2 replace the standard streams
  bool new_session = false;              ///< setsid: a terminal's or our signals do not reach it
};

struct ExitStatus {
  int code = 0;    ///< exit code; 128 + signal when it was killed, as shells say it
  int signal = 0;  ///< the signal that killed it, or 0
};

struct ProcessOutput {
  ExitStatus status;
  std::string out;
  std::string err;
};

struct ProcessLimits {
  Milliseconds timeout{30'000};       ///< then SIGKILL and ErrorKind::timeout
  std::size_t max_output = 1u << 20;  ///< of each stream, in bytes; more is `unavailable`
};

/// The path of a program in the usual directories; a name with a slash is a path already. Errors: not_found.
Result<std::string> find_program(const std::string& name);

/// Runs a program to its end and collects what it prints. A program that exits with a code other than 0 is not an error here.
/// Cancelling kills it. Errors: not_found (no such program), timeout, cancelled, unavailable.
Task<Result<ProcessOutput>> run_process(ProcessSpec spec, ProcessLimits limits = {});

/// run_process, and a code other than 0 is an error that carries the last lines of standard error.
Task<Result<std::string>> check_process(ProcessSpec spec, ProcessLimits limits = {});

/// A running child that is waited for through a pidfd. Destroying it kills the child and leaves the reaping to the event loop.
class Process {
 public:
  /// Descriptors 0, 1, 2 are /dev/null unless `spec.fds` says otherwise; `input` is not used.
  static Result<Process> start(const ProcessSpec& spec);
  Process(Process&&) noexcept;
  Process& operator=(Process&&) noexcept;
  ~Process();
  pid_t pid() const noexcept;
  /// Lets the child go on without us: it is neither killed nor reaped. Returns its pidfd.
  UniqueFd release() noexcept;
  Result<> kill(int signal);
  /// Waits for the end. Errors: cancelled (the child goes on).
  Task<Result<ExitStatus>> wait();

 private:
  Process(pid_t pid, UniqueFd pidfd);
  void abandon() noexcept;
  pid_t pid_ = -1;
  UniqueFd pidfd_;
};

/// Waits until a descriptor is readable (true) or the task is cancelled (false). The descriptor stays the caller's.
Task<bool> wait_readable(int fd);
Task<bool> wait_writable(int fd);

/// The start time of a process in clock ticks since boot (field 22 of /proc/PID/stat). With the pid and boot_id() it names a
/// process for good. Errors: not_found.
Result<std::uint64_t> process_start_time(pid_t pid);
/// /proc/sys/kernel/random/boot_id.
std::string boot_id();

}  // namespace virga::io
