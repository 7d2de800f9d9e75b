// What the daemon (io/shim.cc) and virga-shim say to each other over RUN_DIR/shim.sock: fixed structs, one a SOCK_SEQPACKET
// message, both sides on one host. The same struct is the file RUN_DIR/state. Plain C types only: virga-shim links no library.
#pragma once

#include <stdint.h>

namespace virga::shim {

inline constexpr uint32_t magic = 0x31734756;  // "VGs1"
inline constexpr char socket_name[] = "shim.sock";
inline constexpr char console_name[] = "console.sock";
inline constexpr char receive_name[] = "console-receive.sock";
inline constexpr char state_name[] = "state";
inline constexpr char lock_name[] = "shim.lock";  ///< a shim that lives holds an flock on it, from before it was started

enum class Op : uint32_t {
  status = 1,
  signal = 2,   ///< argument: the signal, to the guest's process
  dismiss = 3,  ///< end, if the guest has exited
  destroy = 4,  ///< kill everything and end
  resize = 5,   ///< argument: columns << 16 | rows, of the console's terminal
  clear = 6,    ///< empty the console's log
};

enum class Kind : uint32_t {
  reply = 1,    ///< to the request of the same `op`
  started = 2,  ///< direct: the program was executed; launcher: it has ended well and the guest's process is known
  failed = 3,   ///< the guest could not be started; the shim ends
  exited = 4,   ///< the guest has ended
};

struct Request {
  uint32_t magic;
  Op op;
  int32_t argument;
  uint32_t sequence;  ///< comes back in the reply
};

/// Where a start failed: what the shim was doing, and errno.
enum class Stage : uint32_t { none, prepare, console, fork, session, cgroup, descriptors, drop, execute, launcher, pid_file };

struct Status {
  int32_t shim_pid;
  int32_t guest_pid;          ///< -1 until known
  uint64_t guest_start_time;  ///< clock ticks since boot
  uint32_t launcher_done;
  int32_t launcher_status;  ///< as waitpid gives it
  uint32_t exited;
  int32_t exit_status;  ///< as waitpid gives it
  char boot_id[40];     ///< of the host when the shim started, NUL-terminated
};

struct Message {
  uint32_t magic;
  Kind kind;
  Op op;
  uint32_t sequence;  ///< of the request; 0 in what is not a reply
  int32_t error;      ///< errno of a reply or of a failed start
  Stage stage;
  Status status;
  char words[512];  ///< the last the child wrote to its output, NUL-terminated: what a failed launcher said
};

/// The file RUN_DIR/state.
struct State {
  uint32_t magic;
  Status status;
};

}  // namespace virga::shim
