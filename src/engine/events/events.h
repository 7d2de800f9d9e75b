// What happens, told to those who listen: operations that change, objects that come and go, log lines. Publishing costs nothing
// when nobody listens. A listener with a full queue is disconnected; memory never grows. Event loop only, but for the log lines.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "base/clock.h"
#include "base/json.h"
#include "base/task.h"
#include "base/units.h"
#include "engine/caller.h"

namespace virga::engine {

enum class EventType : std::uint8_t { operation = 1, lifecycle = 2, logging = 4 };
std::string_view to_string(EventType type) noexcept;
/// Errors: invalid, for other words than "operation", "lifecycle", "logging".
Result<EventType> parse_event_type(std::string_view text);

struct Event {
  EventType type = EventType::lifecycle;
  std::string project;  ///< empty: concerns the whole server
  WallTime timestamp{};
  std::string location = "none";
  json::object metadata;

  /// As the API shows it, in JSON: made once, for however many listeners. Event loop only.
  const std::string& text() const;

 private:
  mutable std::string text_;
};
using EventPtr = std::shared_ptr<const Event>;
/// As the API shows it.
json::object to_json(const Event& event);
using virga::to_json;  // or the one above would hide it in this namespace

struct EventFilter {
  unsigned types = 7;                      ///< EventType values, or-ed
  std::string project;                     ///< empty: all projects; events of the whole server always pass
  std::function<bool(const Event&)> also;  ///< a further condition; empty: none
  bool matches(const Event& event) const;
};

class Events {
 public:
  explicit Events(Executor executor, const Clock& clock = system_clock());
  ~Events();
  Events(const Events&) = delete;
  Events& operator=(const Events&) = delete;

  /// A bounded queue of events. Destroying it ends the subscription; it may outlive Events.
  class Subscription {
   public:
    virtual ~Subscription() = default;
    /// The next event; null when the reader was too slow, the server stops or the task was cancelled.
    virtual Task<EventPtr> next() = 0;
    /// Whether the queue ran over; the API closes the connection then.
    virtual bool overflowed() const noexcept = 0;
  };
  std::unique_ptr<Subscription> subscribe(EventFilter filter, std::size_t capacity = 1024);

  /// Calls back at once, inside publish(), until the returned object is destroyed. For parts of the daemon itself.
  class Listener {
   public:
    virtual ~Listener() = default;
  };
  std::unique_ptr<Listener> listen(EventFilter filter, std::function<void(const Event&)> callback);

  /// Whether anybody would get an event of this type: costly metadata need not be made otherwise.
  bool wanted(EventType type) const noexcept;
  void publish(EventType type, std::string project, json::object metadata);
  /// action: "instance-created"; source: the object's URL (engine/url.h), whose last part becomes the event's name.
  void lifecycle(std::string action, std::string project, std::string source, const Caller& caller, json::object context = {});

  /// Publishes the daemon's log lines too, whichever thread writes them. At most one Events of a process does so at a time.
  void attach_log();
  /// Ends all subscriptions: their next() returns null.
  void stop();

  static const Clock& system_clock();

 private:
  struct State;
  std::shared_ptr<State> state_;
};

}  // namespace virga::engine
