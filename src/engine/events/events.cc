#include "engine/events/events.h"

#include <atomic>
#include <boost/asio/post.hpp>
#include <deque>
#include <vector>

#include "base/log.h"

namespace virga::engine {

std::string_view to_string(EventType type) noexcept {
  switch (type) {
    case EventType::operation:
      return "operation";
    case EventType::lifecycle:
      return "lifecycle";
    case EventType::logging:
      return "logging";
  }
  return "logging";
}

Result<EventType> parse_event_type(std::string_view text) {
  for (auto type : {EventType::operation, EventType::lifecycle, EventType::logging})
    if (text == to_string(type)) return type;
  return invalid("type", "'" + std::string(text) + "' is not a type of event: operation, lifecycle or logging");
}

json::object to_json(const Event& event) {
  return {{"type", to_string(event.type)},
          {"project", event.project},
          {"timestamp", format_time(event.timestamp)},
          {"location", event.location},
          {"metadata", event.metadata}};
}

const std::string& Event::text() const {
  if (text_.empty()) text_ = json::serialize(to_json(*this));
  return text_;
}

bool EventFilter::matches(const Event& event) const {
  if ((types & static_cast<unsigned>(event.type)) == 0) return false;
  if (!project.empty() && !event.project.empty() && project != event.project) return false;
  return !also || also(event);
}

namespace {

struct Queue {
  Queue(Executor executor, EventFilter f, std::size_t c) : filter(std::move(f)), capacity(c), changed(std::move(executor)) {}
  EventFilter filter;
  std::size_t capacity;
  std::deque<EventPtr> events;
  bool closed = false;
  bool overflowed = false;
  Notification changed;

  void push(const EventPtr& event) {
    if (closed) return;
    if (events.size() >= capacity) {
      // A listener that lost events must not believe that it saw all: it is cut off, and its memory is freed at once.
      overflowed = true;
      close();
      events.clear();
    } else {
      events.push_back(event);
    }
    changed.notify();
  }
  void close() {
    closed = true;
    changed.notify();
  }
};

struct Callback {
  EventFilter filter;
  std::function<void(const Event&)> call;
  bool alive = true;
};

}  // namespace

struct Events::State {
  State(Executor e, const Clock& c) : executor(std::move(e)), clock(c) {}
  Executor executor;
  const Clock& clock;
  std::vector<std::shared_ptr<Queue>> queues;
  std::vector<std::shared_ptr<Callback>> callbacks;
  std::atomic<int> log_lines_on_the_way{0};
  bool log_attached = false;
  bool stopped = false;

  bool wanted(EventType type) const noexcept {
    const auto bit = static_cast<unsigned>(type);
    for (const auto& q : queues)
      if (!q->closed && (q->filter.types & bit) != 0) return true;
    for (const auto& c : callbacks)
      if ((c->filter.types & bit) != 0) return true;
    return false;
  }

  void publish(EventType type, std::string project, json::object metadata) {
    if (!wanted(type)) return;
    auto event = std::make_shared<Event>();
    event->type = type;
    event->project = std::move(project);
    event->timestamp = clock.now();
    event->metadata = std::move(metadata);
    for (const auto& q : queues)
      if (!q->closed && q->filter.matches(*event)) q->push(event);
    // A callback may add or end listeners: walk a copy.
    const auto now = callbacks;
    for (const auto& c : now)
      if (c->alive && c->filter.matches(*event)) c->call(*event);
  }
};

namespace {

class QueueSubscription final : public Events::Subscription {
 public:
  QueueSubscription(std::shared_ptr<Queue> queue, std::function<void()> forget)
      : queue_(std::move(queue)), forget_(std::move(forget)) {}
  ~QueueSubscription() override { forget_(); }

  Task<EventPtr> next() override {
    auto queue = queue_;
    while (queue->events.empty()) {
      if (queue->closed) co_return nullptr;
      if (!co_await queue->changed.wait()) co_return nullptr;
    }
    EventPtr event = std::move(queue->events.front());
    queue->events.pop_front();
    co_return event;
  }
  bool overflowed() const noexcept override { return queue_->overflowed; }

 private:
  std::shared_ptr<Queue> queue_;
  std::function<void()> forget_;
};

class CallbackListener final : public Events::Listener {
 public:
  explicit CallbackListener(std::function<void()> forget) : forget_(std::move(forget)) {}
  ~CallbackListener() override { forget_(); }

 private:
  std::function<void()> forget_;
};

}  // namespace

Events::Events(Executor executor, const Clock& clock) : state_(std::make_shared<State>(std::move(executor), clock)) {}

Events::~Events() {
  stop();
}

const Clock& Events::system_clock() {
  static const SystemClock clock;
  return clock;
}

std::unique_ptr<Events::Subscription> Events::subscribe(EventFilter filter, std::size_t capacity) {
  auto queue = std::make_shared<Queue>(state_->executor, std::move(filter), capacity);
  if (state_->stopped) queue->close();
  state_->queues.push_back(queue);
  return std::make_unique<QueueSubscription>(queue, [weak = std::weak_ptr(state_), queue] {
    queue->close();
    queue->events.clear();
    if (auto state = weak.lock()) std::erase(state->queues, queue);
  });
}

std::unique_ptr<Events::Listener> Events::listen(EventFilter filter, std::function<void(const Event&)> callback) {
  auto entry = std::make_shared<Callback>(Callback{std::move(filter), std::move(callback)});
  state_->callbacks.push_back(entry);
  return std::make_unique<CallbackListener>([weak = std::weak_ptr(state_), entry] {
    entry->alive = false;
    if (auto state = weak.lock()) std::erase(state->callbacks, entry);
  });
}

bool Events::wanted(EventType type) const noexcept {
  return state_->wanted(type);
}

void Events::publish(EventType type, std::string project, json::object metadata) {
  state_->publish(type, std::move(project), std::move(metadata));
}

void Events::lifecycle(std::string action, std::string project, std::string source, const Caller& caller, json::object context) {
  log::debug("{} {} by {}", action, source, caller.username);
  if (!wanted(EventType::lifecycle)) return;
  std::string_view path = source;
  path = path.substr(0, path.find('?'));
  std::string name(path.substr(path.rfind('/') + 1));
  json::object metadata{{"action", std::move(action)},
                        {"source", std::move(source)},
                        {"name", std::move(name)},
                        {"project", project},
                        {"requestor", {{"username", caller.username}, {"protocol", caller.protocol}, {"address", caller.address}}},
                        {"context", std::move(context)}};
  state_->publish(EventType::lifecycle, std::move(project), std::move(metadata));
}

void Events::attach_log() {
  state_->log_attached = true;
  log::set_sink([weak = std::weak_ptr(state_)](const log::Line& line) {
    auto state = weak.lock();
    if (!state) return;
    constexpr int most = 1000;  // A flood of lines from a thread must not fill the loop's queue.
    if (state->log_lines_on_the_way.fetch_add(1) >= most) {
      state->log_lines_on_the_way.fetch_sub(1);
      return;
    }
    const Executor& executor = state->executor;
    boost::asio::post(executor, [weak, line] {
      auto s = weak.lock();
      if (!s) return;
      s->log_lines_on_the_way.fetch_sub(1);
      if (!s->wanted(EventType::logging)) return;
      s->publish(EventType::logging, "",
                 {{"level", log::to_string(line.level)}, {"message", valid_utf8(line.message)}, {"context", json::object()}});
    });
  });
}

void Events::stop() {
  if (std::exchange(state_->log_attached, false)) log::set_sink({});
  state_->stopped = true;
  const auto queues = state_->queues;
  for (const auto& q : queues) q->close();
}

}  // namespace virga::engine
