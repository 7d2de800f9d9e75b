#include "engine/warnings/service.h"

#include <algorithm>

#include "base/log.h"
#include "base/random.h"
#include "engine/url.h"

namespace virga::engine {
namespace {

constexpr std::string_view prefix = "/warnings/";
constexpr auto keep_resolved = std::chrono::hours(24);
constexpr std::size_t most = 1'000;       ///< warnings at once
constexpr std::size_t most_queued = 200;  ///< changes that wait to be written
constexpr std::size_t longest = 4'096;    ///< bytes of a message

bool is_about(const Warning& w, WarningType type, const WarningSubject& subject) {
  return w.type == type && w.project == subject.project && w.entity_url == subject.entity_url;
}

}  // namespace

struct Warnings::Change {
  WarningType type;
  WarningSubject subject;
  std::string message;  ///< empty: resolved
  std::string gone;     ///< instead of all that: the URL of an object that was deleted
};

Warnings::Warnings(Executor executor, Store& store, Events& events, const Clock& clock)
    : store_(store),
      events_(events),
      clock_(clock),
      cache_(store, std::string(prefix), decode_warning),
      tasks_(executor),
      writing_(executor) {}
Warnings::~Warnings() = default;

std::string Warnings::key(std::string_view uuid) {
  return std::string(prefix) + std::string(uuid);
}

Task<Result<>> Warnings::start() {
  VIRGA_CO_CHECK(co_await cache_.load());
  Transaction old;
  for (const auto& w : cache_.list())
    if (w->status == WarningStatus::resolved && w->updated_at + keep_resolved < clock_.now()) old.erase(key(w->uuid));
  if (!old.deletes.empty()) VIRGA_CO_CHECK(co_await commit(std::move(old)));
  // Warnings end with what they are about.
  EventFilter deletions{.types = static_cast<unsigned>(EventType::lifecycle), .project = {}, .also = {}};
  listener_ = events_.listen(std::move(deletions), [this](const Event& event) {
    const auto* action = event.metadata.if_contains("action");
    const auto* source = event.metadata.if_contains("source");
    if (action == nullptr || source == nullptr || !action->is_string() || !source->is_string()) return;
    if (action->get_string().ends_with("-deleted")) forget_subject(std::string(source->get_string()));
  });
  co_return Result<>();
}

Task<> Warnings::stop() {
  listener_.reset();
  co_await tasks_.join();
}

void Warnings::forget_subject(const std::string& url) {
  const auto all = cache_.list();
  if (std::any_of(all.begin(), all.end(), [&](const auto& w) { return w->entity_url == url; }))
    enqueue({.type = {}, .subject = {}, .message = {}, .gone = url});
}

WarningPtr Warnings::find(WarningType type, const WarningSubject& subject) const {
  for (const auto& w : cache_.list())
    if (is_about(*w, type, subject)) return w;
  return nullptr;
}

void Warnings::raise(WarningType type, WarningSubject subject, std::string message) {
  if (message.empty()) message = to_string(type);
  if (message.size() > longest) message.resize(longest);
  enqueue({type, std::move(subject), valid_utf8(message), {}});
}

void Warnings::resolve(WarningType type, WarningSubject subject) {
  const bool queued = std::any_of(queue_.begin(), queue_.end(),
                                  [&](const Change& c) { return c.type == type && c.subject.entity_url == subject.entity_url; });
  auto known = find(type, subject);
  if (!queued && (!known || known->status == WarningStatus::resolved)) return;
  enqueue({type, std::move(subject), {}, {}});
}

void Warnings::report(WarningType type, WarningSubject subject, std::string message) {
  if (message.empty()) {
    resolve(type, std::move(subject));
  } else {
    raise(type, std::move(subject), std::move(message));
  }
}

void Warnings::enqueue(Change change) {
  if (queue_.size() >= most_queued) {
    log::warn("a flood of warnings: '{}' is not kept", to_string(change.type));
    return;
  }
  queue_.push_back(std::move(change));
  if (std::exchange(writer_runs_, true)) return;
  tasks_.spawn("write warnings", apply_queue());
}

Task<> Warnings::apply_queue() {
  co_await shield();
  while (!queue_.empty()) {
    auto turn = co_await writing_.lock();
    if (!turn) break;
    auto changes = std::exchange(queue_, {});
    for (const auto& change : changes) {
      auto transaction = write(change);
      if (transaction.puts.empty() && transaction.deletes.empty()) continue;
      auto written = co_await commit(std::move(transaction));
      if (!written) log::error("the warning '{}' cannot be kept: {}", to_string(change.type), written.error().text());
    }
  }
  writer_runs_ = false;
}

Transaction Warnings::write(const Change& change) const {
  Transaction t;
  if (!change.gone.empty()) {
    for (const auto& w : cache_.list())
      if (w->entity_url == change.gone) t.erase(key(w->uuid));
    return t;
  }
  auto known = find(change.type, change.subject);
  Warning w = known ? *known : Warning{};
  if (change.message.empty()) {
    if (!known || w.status == WarningStatus::resolved) return t;
    w.status = WarningStatus::resolved;
    w.updated_at = clock_.now();
  } else {
    w.last_seen_at = clock_.now();
    w.message = change.message;
    if (known) {
      ++w.count;
    } else {
      if (cache_.size() >= most) return t;
      w.uuid = random_uuid();
      w.type = change.type;
      w.project = change.subject.project;
      w.entity_url = change.subject.entity_url;
      w.first_seen_at = w.updated_at = w.last_seen_at;
    }
    if (w.status == WarningStatus::resolved) {
      w.status = WarningStatus::fresh;
      w.updated_at = w.last_seen_at;
    }
  }
  t.put(key(w.uuid), json::serialize(encode(w)));
  return t;
}

Task<Result<>> Warnings::commit(Transaction transaction) {
  auto revision = co_await store_.commit(std::move(transaction));
  if (!revision) co_return fail(std::move(revision).error());
  co_return Result<>();
}

Result<WarningPtr> Warnings::get(std::string_view uuid) const {
  if (auto warning = cache_.find(key(uuid))) return warning;
  return fail(ErrorKind::not_found, "Warning not found");
}

std::size_t Warnings::unseen() const {
  const auto all = cache_.list();
  return static_cast<std::size_t>(
      std::count_if(all.begin(), all.end(), [](const auto& w) { return w->status == WarningStatus::fresh; }));
}

Task<Result<>> Warnings::set_status(std::string uuid, WarningStatus status, Caller caller) {
  VIRGA_CO_TRY(const auto turn, co_await writing_.lock());
  VIRGA_CO_TRY(const auto known, get(uuid));
  Warning changed = *known;
  changed.status = status;
  changed.updated_at = clock_.now();
  Transaction t;
  t.put(key(uuid), json::serialize(encode(changed)));
  VIRGA_CO_CHECK(co_await commit(std::move(t)));
  events_.lifecycle(status == WarningStatus::acknowledged ? "warning-acknowledged" : "warning-reset", changed.project,
                    url({"warnings", uuid}), caller);
  co_return Result<>();
}

Task<Result<>> Warnings::remove(std::string uuid, Caller caller) {
  VIRGA_CO_TRY(const auto turn, co_await writing_.lock());
  VIRGA_CO_TRY(const auto known, get(uuid));
  Transaction t;
  t.erase(key(uuid));
  VIRGA_CO_CHECK(co_await commit(std::move(t)));
  events_.lifecycle("warning-deleted", known->project, url({"warnings", uuid}), caller);
  co_return Result<>();
}

}  // namespace virga::engine
