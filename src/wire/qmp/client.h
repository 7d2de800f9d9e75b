// A client of QEMU's monitor protocol (QMP) over a unix socket. One per guest, on the event loop. What QEMU sends is treated as
// hostile: a line that is malformed or longer than 16 MiB closes the connection. A QEMU that hangs costs the callers their
// time-outs and nothing else: commands carry ids, late answers are dropped, the queue of unsent commands is bounded.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "base/error.h"
#include "base/json.h"
#include "base/task.h"
#include "io/fd.h"

namespace virga::qmp {

inline constexpr std::size_t max_line = 16u << 20;

struct Event {
  std::string name;  ///< SHUTDOWN, STOP, RESET, ...
  json::object data;
};

class Client {
 public:
  /// Connects, reads the greeting and negotiates. Errors: not_found, unavailable (nobody listens, no QMP spoken), timeout.
  static Task<Result<std::unique_ptr<Client>>> connect(std::string path, Milliseconds timeout = Milliseconds(5'000));
  /// The same over a socket that is connected already.
  static Task<Result<std::unique_ptr<Client>>> negotiate(io::UniqueFd socket, Milliseconds timeout = Milliseconds(5'000));
  /// Closes the connection; commands that wait end with `unavailable`. No handler is called any more.
  ~Client();
  Client(const Client&) = delete;
  Client& operator=(const Client&) = delete;

  /// Runs one command and yields what its "return" holds. Errors: timeout (QEMU may still run it), unavailable (the connection
  /// broke, or too much is unsent), cancelled; QEMU's own errors: not_found (DeviceNotFound), unsupported (CommandNotFound),
  /// internal.
  Task<Result<json::value>> execute(std::string command, json::object arguments = {}, Milliseconds timeout = Milliseconds(5'000));
  /// The same with a descriptor that goes to QEMU along with the command (getfd, add-fd).
  Task<Result<json::value>> execute_with(io::UniqueFd fd, std::string command, json::object arguments = {},
                                         Milliseconds timeout = Milliseconds(5'000));
  /// Called on the event loop for each event; events before it is set are dropped.
  void on_event(std::function<void(Event)> handler);
  /// Called once when the connection ends by itself; at once (from the loop) if it has ended already.
  void on_close(std::function<void(Error)> handler);
  bool connected() const noexcept;
  /// "7.2.22", from the greeting.
  const std::string& version() const noexcept;

 private:
  struct State;
  explicit Client(std::shared_ptr<State> state);
  std::shared_ptr<State> state_;
};

}  // namespace virga::qmp
