#include "engine/operations/operations.h"

#include <algorithm>
#include <deque>
#include <exception>
#include <unordered_map>

#include "base/random.h"
#include "engine/operations/log.h"
#include "engine/operations/operation.h"
#include "engine/operations/restore.h"
#include "engine/url.h"

namespace virga::engine {

using SteadyTime = std::chrono::steady_clock::time_point;

struct Claim::Held {
  std::string url;
  std::string holder;  ///< for the message of whoever comes second
  std::function<void(Held&)> give_back;
};

Claim::Claim(std::shared_ptr<Held> held) : held_(std::move(held)) {}
Claim::Claim(Claim&&) noexcept = default;
Claim& Claim::operator=(Claim&& other) noexcept {
  if (this != &other) {
    release();
    held_ = std::move(other.held_);
  }
  return *this;
}
Claim::~Claim() {
  release();
}
void Claim::release() {
  if (auto held = std::exchange(held_, nullptr)) held->give_back(*held);
}

struct Operations::State : std::enable_shared_from_this<Operations::State> {
  State(Executor e, Events& ev, const Clock& c, Limits l)
      : executor(e), events(ev), clock(c), limits(l), bodies(e), housekeeping(e), claims_changed(e) {}
  Executor executor;
  Events& events;
  const Clock& clock;
  Limits limits;
  TaskGroup bodies;
  TaskGroup housekeeping;
  std::unordered_map<std::string, OperationPtr> operations;
  using Finished = std::deque<std::pair<SteadyTime, std::string>>;
  Finished finished;  ///< oldest first
  std::map<std::string, std::size_t, std::less<>> finished_of_tenants;
  OperationLog* log = nullptr;
  bool reaping = false;
  bool stopping = false;
  std::size_t live = 0;
  std::map<std::string, std::size_t, std::less<>> of_tenants;  ///< the live ones of each that is not an administrator
  std::uint64_t next_sequence = 1;
  std::map<std::string, std::shared_ptr<Claim::Held>, std::less<>> claims;
  Notification claims_changed;

  void finish(Operation& op, Result<> result);
  void keep_finished(Operation& op, Milliseconds time);
  void forget(Finished::iterator at);
  static const std::string* tenant_of(const Operation& op);
  void record(const Operation& op);
  OperationPtr add_restored(LoggedOperation logged);
  Result<Claim> claim(std::string url, std::string holder);
  static Task<> run(std::shared_ptr<State> self, OperationPtr op, Body body);
  static Task<> reap(std::shared_ptr<State> self);
  static Task<> record_if_long(std::shared_ptr<State> self, std::weak_ptr<Operation> op);
  void request_cancel(Operation& op);
};

void Operations::State::finish(Operation& op, Result<> result) {
  auto& s = *op.state_;
  if (result) {
    s.status = OperationStatus::success;
  } else {
    s.status = s.cancel_requested ? OperationStatus::cancelled : OperationStatus::failure;
    s.error = std::move(result).error();
    if (s.cancel_requested) {
      op.info("{}: cancelled", s.spec.description);
    } else {
      op.warn("{}: {}", s.spec.description, s.error->text());
    }
  }
  s.drop_channels();
  op.publish();
  s.finished.notify();
  --live;
  if (const auto mine = of_tenants.find(s.spec.caller.username); !s.spec.caller.admin && mine != of_tenants.end())
    if (--mine->second == 0) of_tenants.erase(mine);
  record(op);
  keep_finished(op, limits.retention);
}

/// Whose share it counts for; null for administrators, and for what an earlier life of the daemon has left, which does not tell.
const std::string* Operations::State::tenant_of(const Operation& op) {
  return op.spec().caller.admin || op.state_->restored ? nullptr : &op.spec().caller.username;
}

void Operations::State::keep_finished(Operation& op, Milliseconds time) {
  finished.emplace_back(std::chrono::steady_clock::now() + time, op.id());
  if (const auto* who = tenant_of(op);
      who != nullptr && ++finished_of_tenants[*who] > std::max<std::size_t>(1, limits.finished / 5)) {
    // Whoever does much pushes out what he did himself, not how the others' ended.
    auto is_his = [&](const auto& entry) {
      const auto other = operations.find(entry.second);
      const auto* owner = other == operations.end() ? nullptr : tenant_of(*other->second);
      return owner != nullptr && *owner == *who;
    };
    forget(std::find_if(finished.begin(), finished.end(), is_his));
  }
  while (finished.size() > limits.finished) forget(finished.begin());
  if (!reaping && !stopping) {
    reaping = true;
    housekeeping.spawn("forget finished operations", reap(shared_from_this()));
  }
}

void Operations::State::forget(Finished::iterator at) {
  const auto id = std::move(at->second);
  finished.erase(at);
  auto op = operations.find(id);
  if (op == operations.end()) return;
  if (const auto* who = tenant_of(*op->second))
    if (const auto his = finished_of_tenants.find(*who); his != finished_of_tenants.end() && --his->second == 0)
      finished_of_tenants.erase(his);
  if (log != nullptr && op->second->spec().op_class != OperationClass::token) log->forget(id);
  operations.erase(op);
}

void Operations::State::record(const Operation& op) {
  // Tokens are kept where they belong, and their operations are made anew.
  if (log == nullptr || op.spec().op_class == OperationClass::token) return;
  log->record(op.id(), encode_for_log(op));
}

Task<> Operations::State::run(std::shared_ptr<State> self, OperationPtr op, Body body) {
  op->state_->body_entered = true;
  Result<> result;
  if (op->cancel_requested()) {
    result = fail(ErrorKind::cancelled, "cancelled before it began");
  } else {
    try {
      result = co_await body(*op);
    } catch (const std::exception& e) {
      // A bug, but only this operation's: its client must hear of the end all the same.
      log::error("operation {}: {}: exception: {}", op->id(), op->spec().description, e.what());
      result = fail(ErrorKind::internal, std::string("unexpected: ") + e.what());
    }
  }
  body = nullptr;  // What it captured (claims, channels) is given back before anybody hears of the end.
  self->finish(*op, std::move(result));
}

Task<> Operations::State::reap(std::shared_ptr<State> self) {
  while (!self->finished.empty()) {
    const auto now = std::chrono::steady_clock::now();
    if (const auto due = self->finished.front().first; due > now) {
      if (!co_await sleep_for(std::chrono::ceil<Milliseconds>(due - now))) break;
      continue;
    }
    self->forget(self->finished.begin());
  }
  self->reaping = false;
}

void Operations::State::request_cancel(Operation& op) {
  auto& s = *op.state_;
  s.cancel_requested = true;
  s.status = OperationStatus::cancelling;
  op.publish();
  // A task that has not begun has no wait to interrupt; run() looks at the flag itself.
  if (s.body_entered) s.cancel_task();
}

Operations::Operations(Executor executor, Events& events, const Clock& clock)
    : Operations(std::move(executor), events, clock, Limits()) {}
Operations::Operations(Executor executor, Events& events, const Clock& clock, Limits limits)
    : state_(std::make_shared<State>(std::move(executor), events, clock, limits)) {}
Operations::~Operations() = default;

Result<OperationPtr> Operations::start(OperationSpec spec, Body body) {
  State& s = *state_;
  if (s.stopping) return fail(ErrorKind::unavailable, "the daemon is shutting down");
  if (s.live >= s.limits.live) {
    auto error = Error(ErrorKind::unavailable, "too many operations at once").with_hint("wait for some to end and try again");
    return fail(std::move(error));
  }
  if (!spec.caller.admin) {
    // Nobody takes all the room: the others' guests must still be stopped.
    auto& mine = s.of_tenants[spec.caller.username];
    if (mine >= s.limits.of_one) {
      auto error = Error(ErrorKind::unavailable, "this client has too many operations at once");
      return fail(std::move(error).with_hint("wait for some to end and try again"));
    }
    ++mine;
  }
  auto op =
      OperationPtr(new Operation(std::make_unique<Operation::State>(s.executor, s.events, s.clock, s.limits.secret_lifetime)));
  auto& o = *op->state_;
  o.id = random_uuid();
  o.metadata = std::move(spec.metadata);
  spec.metadata = {};
  o.spec = std::move(spec);
  o.created = s.clock.now();
  o.sequence = s.next_sequence++;
  o.status = OperationStatus::running;
  for (const auto& name : o.spec.channels) (void)op->add_channel(name);
  s.operations.emplace(o.id, op);
  ++s.live;
  op->debug("{} by {}", o.spec.description, o.spec.caller.username);
  op->publish();
  if (s.log != nullptr && o.spec.op_class != OperationClass::token)
    s.housekeeping.spawn("record a long operation", State::record_if_long(state_, std::weak_ptr(op)));
  const auto task = s.bodies.spawn("operation " + o.id, State::run(state_, op, std::move(body)));
  o.cancel_task = [weak = std::weak_ptr(state_), task] {
    if (auto state = weak.lock()) state->bodies.cancel(task);
  };
  return op;
}

Task<> Operations::State::record_if_long(std::shared_ptr<State> self, std::weak_ptr<Operation> weak) {
  if (!co_await sleep_for(Milliseconds(1'000))) co_return;
  if (auto op = weak.lock(); op && !op->done()) self->record(*op);
}

void Operations::set_log(OperationLog& log) {
  state_->log = &log;
}

OperationPtr Operations::State::add_restored(LoggedOperation logged) {
  auto op = OperationPtr(new Operation(std::make_unique<Operation::State>(executor, events, clock, limits.secret_lifetime)));
  auto& o = *op->state_;
  o.id = std::move(logged.id);
  o.spec = std::move(logged.spec);
  o.metadata = std::move(logged.metadata);
  o.status = logged.status;
  o.error = std::move(logged.error);
  o.created = logged.created;
  o.updated = logged.updated;
  o.sequence = next_sequence++;
  o.restored = true;
  operations.emplace(o.id, op);
  return op;
}

Task<Result<>> Operations::restore() {
  State& s = *state_;
  if (s.log == nullptr) co_return Result<>();
  VIRGA_CO_TRY(const auto documents, co_await s.log->load());
  std::vector<LoggedOperation> all;
  for (const auto& document : documents) {
    auto logged = decode_from_log(document);
    if (logged) all.push_back(std::move(*logged));
  }
  std::sort(all.begin(), all.end(), [](const auto& a, const auto& b) { return a.created < b.created; });
  const auto now = s.clock.now();
  for (auto& logged : all) {
    const auto left = std::chrono::duration_cast<Milliseconds>(logged.updated + s.limits.retention - now);
    auto op = s.add_restored(std::move(logged));
    s.keep_finished(*op, std::clamp(left, Milliseconds(0), s.limits.retention));
  }
  co_return Result<>();
}

void Operations::recovered(const std::string& id, const std::string& kind, bool finished) {
  State& s = *state_;
  auto op = find(id);
  if (!op) {
    LoggedOperation logged;
    logged.id = id;
    logged.spec.description = describe_kind(kind);
    logged.spec.caller = internal_caller();
    logged.created = s.clock.now();
    op = s.add_restored(std::move(logged));
    s.keep_finished(*op, s.limits.retention);
  }
  auto& o = *op->state_;
  if (!o.restored) return;
  o.updated = s.clock.now();
  o.status = finished ? OperationStatus::success : OperationStatus::failure;
  o.error.reset();
  if (!finished) o.error = Error(ErrorKind::internal, "the daemon ended while this ran; it was taken back");
  s.record(*op);
}

std::vector<OperationPtr> Operations::list(std::string_view project) const {
  std::vector<OperationPtr> out;
  for (const auto& [id, op] : state_->operations)
    if (project.empty() || op->spec().project == project) out.push_back(op);
  std::sort(out.begin(), out.end(), [](const auto& a, const auto& b) { return a->state_->sequence > b->state_->sequence; });
  return out;
}

OperationPtr Operations::find(std::string_view id) const {
  auto it = state_->operations.find(std::string(id));
  return it == state_->operations.end() ? nullptr : it->second;
}

namespace {
tl::unexpected<Error> no_operation(std::string_view id) {
  return fail(ErrorKind::not_found, "no operation '" + std::string(id) + "'");
}
}  // namespace

Task<Result<OperationPtr>> Operations::wait(std::string id, std::optional<Milliseconds> timeout) {
  auto op = find(id);
  if (!op) co_return no_operation(id);
  const auto start = std::chrono::steady_clock::now();
  while (!op->done()) {
    auto left = Milliseconds::max();
    if (timeout) {
      left = *timeout - std::chrono::duration_cast<Milliseconds>(std::chrono::steady_clock::now() - start);
      if (left <= Milliseconds(0)) break;
    }
    co_await op->state_->finished.wait_for(left);
    if (co_await is_cancelled()) co_return fail(ErrorKind::cancelled, "cancelled while waiting for an operation");
  }
  co_return op;
}

Result<> Operations::cancel(std::string_view id) {
  auto op = find(id);
  if (!op) return no_operation(id);
  if (op->done()) return fail(ErrorKind::busy, "operation '" + op->id() + "' has ended already");
  if (!op->spec().may_cancel) return fail(ErrorKind::busy, "operation '" + op->spec().description + "' cannot be cancelled");
  if (!op->cancel_requested()) state_->request_cancel(*op);
  return {};
}

Task<std::size_t> Operations::drain(Milliseconds timeout) {
  const auto until = std::chrono::steady_clock::now() + timeout;
  while (true) {
    std::vector<OperationPtr> running = list();
    std::erase_if(running, [](const OperationPtr& op) { return op->done() || op->spec().op_class == OperationClass::token; });
    const auto left = std::chrono::duration_cast<Milliseconds>(until - std::chrono::steady_clock::now());
    if (running.empty() || left <= Milliseconds(0) || co_await is_cancelled()) co_return running.size();
    (void)co_await wait(running.front()->id(), left);
  }
}

void Operations::end_sessions(std::string_view fingerprint) {
  for (const auto& op : list()) {
    const auto& spec = op->spec();
    if (op->done() || spec.op_class != OperationClass::websocket || spec.caller.fingerprint != fingerprint) continue;
    if (!op->cancel_requested()) state_->request_cancel(*op);
  }
}

namespace {
/// The slot that a secret opens, or null.
ChannelSlot* slot_of(std::map<std::string, ChannelSlot, std::less<>>& channels, std::string_view secret) {
  const auto now = std::chrono::steady_clock::now();
  ChannelSlot* found = nullptr;
  for (auto& [name, slot] : channels)
    if (!slot.secret.empty() && slot.expires > now && equal_constant_time(slot.secret, secret)) found = &slot;
  return found;
}
}  // namespace

bool Operations::may_connect(std::string_view id, std::string_view secret, const Caller& caller) const {
  auto op = find(id);
  return op && !op->done() && !op->cancel_requested() && (op->spec().bearer || op->spec().caller.same_identity(caller)) &&
         slot_of(op->state_->channels, secret) != nullptr;
}

Task<Result<>> Operations::connect(std::string id, std::string secret, std::unique_ptr<Channel> channel, Caller caller) {
  auto state = state_;
  auto op = find(id);
  if (!may_connect(id, secret, caller)) co_return no_operation(id);
  auto* found = slot_of(op->state_->channels, secret);
  auto loan = std::make_shared<Loan>(state->executor);
  const bool again = op->spec().many_connections;
  if (!again) found->secret.clear();
  if (again) found->expires = SteadyTime::max();  // for who has proved to know it
  if (found->waiting.size() >= 16) co_return no_operation(id);
  found->connected = true;
  found->waiting.push_back(std::make_unique<LentChannel>(std::move(channel), loan));
  op->state_->channels_changed.notify();
  op.reset();
  while (!loan->ended) {
    co_await loan->changed.wait();
    if (co_await is_cancelled()) co_return fail(ErrorKind::cancelled, "cancelled while a client was connected");
  }
  co_return Result<>();
}

Result<Claim> Operations::State::claim(std::string url, std::string holder) {
  if (auto it = claims.find(url); it != claims.end())
    return fail(ErrorKind::busy, describe_url(url) + " is busy: " + it->second->holder);
  auto held = std::make_shared<Claim::Held>();
  held->url = url;
  held->holder = std::move(holder);
  held->give_back = [weak = weak_from_this()](Claim::Held& h) {
    if (auto state = weak.lock()) {
      state->claims.erase(h.url);
      state->claims_changed.notify();
    }
  };
  claims.emplace(std::move(url), held);
  return Claim(std::move(held));
}

Result<Claim> Operations::claim(std::string url, const Operation& operation) {
  return state_->claim(std::move(url), "operation '" + operation.spec().description + "' (" + operation.id() + ") holds it");
}

Result<Claim> Operations::claim(std::string url, std::string purpose) {
  return state_->claim(std::move(url), std::move(purpose));
}

Task<Result<Claim>> Operations::claim_when_free(std::string url, std::string purpose, Milliseconds timeout) {
  auto state = state_;
  const auto deadline = std::chrono::steady_clock::now() + timeout;
  while (true) {
    auto claim = state->claim(url, purpose);
    if (claim || claim.error().kind() != ErrorKind::busy) co_return claim;
    const auto left = std::chrono::duration_cast<Milliseconds>(deadline - std::chrono::steady_clock::now());
    if (left <= Milliseconds(0)) co_return fail(ErrorKind::timeout, claim.error().message());
    co_await state->claims_changed.wait_for(left);
    if (co_await is_cancelled()) co_return fail(ErrorKind::cancelled, "cancelled while waiting for " + describe_url(url));
  }
}

bool Operations::is_claimed(std::string_view url) const noexcept {
  return state_->claims.find(url) != state_->claims.end();
}

Task<> Operations::stop() {
  auto state = state_;
  state->stopping = true;
  const auto all = list();
  for (const auto& op : all)
    if (!op->done() && !op->cancel_requested()) state->request_cancel(*op);
  co_await state->bodies.join();
  state->housekeeping.cancel();
  co_await state->housekeeping.join();
}

bool Operations::stopping() const noexcept {
  return state_->stopping;
}
std::size_t Operations::running() const noexcept {
  return state_->live;
}

}  // namespace virga::engine
