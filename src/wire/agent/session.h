// The daemon's side of the agent protocol over one connected stream (QEMU's end of a virtio-serial port). One per guest, on the
// event loop. The agent is treated as hostile: every field is checked, and a command's output waits in at most output_window bytes
// a stream, so that a guest that floods stops itself. A guest that reads nothing (paused, hung) makes writers wait and costs nobody
// else.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/task.h"
#include "base/units.h"
#include "io/fd.h"
#include "wire/agent/messages.h"

namespace virga::agent {

struct ExecRequest {
  std::vector<std::string> argv;
  std::vector<std::string> environment;  ///< "NAME=value"
  std::string cwd;                       ///< empty: the user's home
  std::uint32_t uid = 0;
  std::uint32_t gid = 0;
  bool terminal = false;
  bool files = false;  ///< serve files by SFTP instead of running argv
  std::uint16_t columns = 80;
  std::uint16_t rows = 24;
};

/// What an agent tells of its guest; strings are UTF-8 without control characters and at most 256 bytes.
struct GuestState {
  struct Address {
    bool ipv6 = false;
    unsigned prefix = 0;
    std::string scope;  ///< global, link, local
    std::string address;
  };
  struct Interface {
    std::string name, mac, state, type;
    std::uint32_t mtu = 0;
    std::uint64_t bytes_in = 0, bytes_out = 0, packets_in = 0, packets_out = 0, errors_in = 0, errors_out = 0, dropped_in = 0,
                  dropped_out = 0;
    std::vector<Address> addresses;
  };
  std::uint64_t processes = 0;
  Bytes memory_total = 0;
  Bytes memory_used = 0;
  std::uint64_t cpu_ns = 0;
  std::string os_name, os_version, kernel, host_name;
  std::vector<Interface> interfaces;
};

/// The payload of a state_reply. Errors: invalid.
Result<GuestState> parse_state(const Byte* data, std::size_t size);

/// A command in the guest. Destroying it kills the command. One reader a channel.
class Command {
 public:
  ~Command();
  Command(const Command&) = delete;
  Command& operator=(const Command&) = delete;
  /// Errors: unavailable (the command has closed its input or has ended, or the agent is gone), cancelled.
  Task<Result<>> write(std::string bytes);
  Task<Result<>> close_input();
  /// At most 64 KiB; an empty string is the end. `channel` is output or error.
  Task<Result<std::string>> read(Channel channel);
  Task<Result<>> resize(std::uint16_t columns, std::uint16_t rows);
  Task<Result<>> signal(int number);
  Task<Result<int>> wait();
  /// Kills it; pending calls return.
  void abort() noexcept;

 private:
  friend class Session;
  struct State;
  explicit Command(std::shared_ptr<State> state);
  std::shared_ptr<State> state_;
};

class Session {
 public:
  /// Takes over a connected, non-blocking socket and says hello.
  Session(const Executor& executor, io::UniqueFd socket);
  /// Closes the connection; the agent ends what the session left running. No handler is called any more.
  ~Session();
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;

  /// Whether an agent has answered and the connection stands.
  bool ready() const noexcept;
  /// Waits for an agent to answer. Errors: timeout, unavailable (the connection broke), cancelled.
  Task<Result<>> wait_ready(Milliseconds timeout);
  bool connected() const noexcept;
  /// Called once when the connection ends by itself.
  void on_close(std::function<void(Error)> handler);

  /// Errors: unavailable (no agent, or it does not answer), invalid (too many or too long arguments), busy (too many commands).
  Task<Result<std::unique_ptr<Command>>> exec(ExecRequest request, Milliseconds timeout = Milliseconds(10'000));
  /// Errors: unavailable, timeout, invalid (nonsense came back).
  Task<Result<GuestState>> state(Milliseconds timeout);
  /// Asks the guest to shut down; returns when the agent has agreed.
  Task<Result<>> power(Power action, Milliseconds timeout);
  Task<Result<>> ping(Milliseconds timeout);
  /// Has the guest's file systems written out and held still, for `longest` at most. Errors: unavailable (it cannot), timeout (an
  /// agent that does not know how says nothing).
  Task<Result<>> freeze(Milliseconds longest, Milliseconds timeout);
  Task<Result<>> thaw(Milliseconds timeout);

  struct State;

 private:
  std::shared_ptr<State> state_;
};

}  // namespace virga::agent
