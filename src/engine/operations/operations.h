// Background work that clients see: each operation runs as one task, shows its state and progress, can be waited for and perhaps
// cancelled, and disappears a few seconds after its end. Event loop only.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "base/log.h"
#include "base/task.h"
#include "base/units.h"
#include "engine/caller.h"
#include "engine/events/events.h"
#include "engine/operations/channel.h"

namespace virga::engine {

enum class OperationClass { task, websocket, token };
std::string_view to_string(OperationClass c) noexcept;

/// The values are the API's status codes.
enum class OperationStatus { pending = 105, running = 103, cancelling = 104, success = 200, failure = 400, cancelled = 401 };
/// "Running", "Success", ...
std::string_view to_string(OperationStatus status) noexcept;

using Resources = std::map<std::string, std::vector<std::string>>;  ///< noun -> URLs: {"instances": ["/1.0/instances/db1"]}

struct OperationSpec {
  OperationClass op_class = OperationClass::task;
  std::string project;      ///< empty: concerns the whole server
  std::string description;  ///< "Creating instance"
  Resources resources;
  bool may_cancel = false;
  Caller caller;
  json::object metadata;              ///< shown from the start
  std::vector<std::string> channels;  ///< websocket class: a secret is made for each before start() returns ("0", "1", "control")
  bool bearer = false;                ///< whoever knows a secret may connect: another server. They are shown as metadata themselves
  bool many_connections = false;      ///< a secret works again and again while the operation runs, a connection each (SPICE)
  json::object secret_metadata;       ///< shown to the creator only, in the answer to the request (join tokens)
};

class OperationLog;
class Operations;

class Operation {
 public:
  const std::string& id() const noexcept;
  const OperationSpec& spec() const noexcept;
  OperationStatus status() const noexcept;
  bool done() const noexcept;  ///< success, failure or cancelled
  const std::optional<Error>& error() const noexcept;
  const json::object& metadata() const noexcept;
  std::string url() const;

  /// As listings and events show it: without any secret.
  json::object to_json() const;
  /// For the answer to the request that made it: with "fds" {channel: secret} and secret_metadata. Never elsewhere.
  json::object to_json_for_creator() const;

  // --- for the body ---
  /// Merges into the metadata and publishes an event. A null value takes the key away.
  void set_metadata(std::string_view key, json::value value);
  /// The same for what changes often: at most some events a second.
  void set_progress(std::string_view key, json::value value);
  void add_resource(std::string noun, std::string url);
  /// Whether a client asked to cancel. The task was cancelled then too: waits return early.
  bool cancel_requested() const noexcept;
  /// From here on clients may (not) cancel.
  void set_may_cancel(bool may);

  /// A further channel; returns its secret.
  std::string add_channel(std::string name);
  /// Waits until a client has connected this channel; destroying what it returns ends the client's connection.
  /// Errors: timeout, cancelled, not_found (no such channel).
  Task<Result<std::unique_ptr<Channel>>> wait_channel(std::string name, Milliseconds timeout);
  bool channel_connected(std::string_view name) const noexcept;

  /// Log lines of an operation carry its id.
  template <class... A>
  void debug(fmt::format_string<A...> f, A&&... a) const {
    if (log::lowest() <= log::Level::debug) log::debug("operation {}: {}", id(), fmt::format(f, std::forward<A>(a)...));
  }
  template <class... A>
  void info(fmt::format_string<A...> f, A&&... a) const {
    log::info("operation {}: {}", id(), fmt::format(f, std::forward<A>(a)...));
  }
  template <class... A>
  void warn(fmt::format_string<A...> f, A&&... a) const {
    log::warn("operation {}: {}", id(), fmt::format(f, std::forward<A>(a)...));
  }

  ~Operation();
  Operation(const Operation&) = delete;
  Operation& operator=(const Operation&) = delete;

 private:
  friend class Operations;
  struct State;
  explicit Operation(std::unique_ptr<State> state);
  void publish();
  std::unique_ptr<State> state_;
};
using OperationPtr = std::shared_ptr<Operation>;

/// Holds an object for one operation; gives it back when destroyed.
class [[nodiscard]] Claim {
 public:
  Claim() = default;
  Claim(Claim&&) noexcept;
  Claim& operator=(Claim&&) noexcept;
  ~Claim();
  void release();

 private:
  friend class Operations;
  struct Held;
  explicit Claim(std::shared_ptr<Held> held);
  std::shared_ptr<Held> held_;
};

class Operations {
 public:
  struct Limits {
    std::size_t live = 20'000;             ///< at once; more is `unavailable`
    std::size_t of_one = 2'000;            ///< the part of these that one caller without the server's own rights may have
    std::size_t finished = 1'000;          ///< remembered at once
    Milliseconds retention{5'000};         ///< a finished operation is shown so long
    Milliseconds secret_lifetime{30'000};  ///< of a channel's secret that nobody has used
  };
  Operations(Executor executor, Events& events, const Clock& clock = Events::system_clock());
  Operations(Executor executor, Events& events, const Clock& clock, Limits limits);
  ~Operations();
  Operations(const Operations&) = delete;
  Operations& operator=(const Operations&) = delete;

  /// What has ended, and what runs for long, is kept there from now on and listed again after a restart. Tokens are not.
  void set_log(OperationLog& log);
  /// Takes up what the log holds. What had not ended when the last daemon did is shown as failed.
  Task<Result<>> restore();
  /// How the journal settled the work of an operation that the last daemon did not end.
  void recovered(const std::string& id, const std::string& kind, bool finished);

  using Body = std::function<Task<Result<>>(Operation&)>;
  /// Starts at once; the body and its captures are kept until it has ended. Errors: unavailable (too many, or the daemon stops).
  Result<OperationPtr> start(OperationSpec spec, Body body);

  /// Newest first. An empty project: all.
  std::vector<OperationPtr> list(std::string_view project = {}) const;
  /// Null where there is none.
  OperationPtr find(std::string_view id) const;
  /// Waits for the end, or for at most `timeout` (absent: for ever); the operation may not be done when it returns.
  /// Errors: not_found, cancelled.
  Task<Result<OperationPtr>> wait(std::string id, std::optional<Milliseconds> timeout);
  /// Asks the body to stop and returns at once. Errors: not_found, busy (it may not be cancelled, or is done).
  Result<> cancel(std::string_view id);
  /// Ends the sessions (class websocket) that this certificate has opened: it is trusted no more, or for less.
  void end_sessions(std::string_view fingerprint);

  /// Whether connect() would take this secret from this caller; does not use it up.
  bool may_connect(std::string_view id, std::string_view secret, const Caller& caller) const;
  /// Gives a client's connection to the operation; returns when the operation has let go of it. Each secret works once, for some
  /// seconds, for the identity that made the operation. Errors: not_found (for whatever reason the secret is not right), cancelled.
  Task<Result<>> connect(std::string id, std::string secret, std::unique_ptr<Channel> channel, Caller caller);

  /// Holds the object with this URL for the operation. Errors: busy, naming the operation that holds it.
  Result<Claim> claim(std::string url, const Operation& operation);
  /// For the daemon's own work outside of operations, with words for what it does: "restoring after a restart".
  Result<Claim> claim(std::string url, std::string purpose);
  /// Waits for its turn. Errors: cancelled, timeout.
  Task<Result<Claim>> claim_when_free(std::string url, std::string purpose, Milliseconds timeout);
  bool is_claimed(std::string_view url) const noexcept;

  /// Waits until nothing runs any more but tokens, for at most `timeout`; how many operations still run then.
  Task<std::size_t> drain(Milliseconds timeout);
  /// Refuses new operations, cancels all and waits for them.
  Task<> stop();
  /// Whether stop() was called: a body that is cancelled can tell a shutdown from a client's wish.
  bool stopping() const noexcept;
  std::size_t running() const noexcept;

 private:
  struct State;
  std::shared_ptr<State> state_;
};

}  // namespace virga::engine
