#include "base/task.h"

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/bind_cancellation_slot.hpp>
#include <boost/asio/cancellation_signal.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/thread_pool.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <exception>
#include <list>
#include <map>

#include "base/log.h"

namespace asio = boost::asio;

namespace virga {
namespace {

constexpr auto await_ec = asio::as_tuple(asio::use_awaitable);

/// What every spawned task runs under: a cancel makes a pending wait return an error instead of throwing past the roll-back.
Task<> guarded(Task<> task) {
  co_await asio::this_coro::throw_if_cancelled(false);
  co_await std::move(task);
}

std::string describe(const std::exception_ptr& e) {
  try {
    std::rethrow_exception(e);
  } catch (const std::exception& x) {
    return x.what();
  } catch (...) {
    return "unknown exception";
  }
}

}  // namespace

Task<Executor> current_executor() {
  co_return co_await asio::this_coro::executor;
}

Task<bool> sleep_for(Milliseconds duration) {
  // A cancel interrupts the wait that is pending when it comes; one that came before, while the task was in a call that cannot be
  // cancelled, has been and gone.
  if (co_await is_cancelled()) co_return false;
  asio::steady_timer timer(co_await asio::this_coro::executor, duration);
  auto [ec] = co_await timer.async_wait(await_ec);
  co_return !ec;
}

Task<bool> is_cancelled() {
  auto state = co_await asio::this_coro::cancellation_state;
  co_return state.cancelled() != asio::cancellation_type::none;
}

Task<> shield() {
  co_await asio::this_coro::reset_cancellation_state(asio::disable_cancellation());
}

struct TaskGroup::State {
  explicit State(Executor e) : executor(std::move(e)), idle(executor) { idle.expires_at(asio::steady_timer::time_point::max()); }
  Executor executor;
  asio::steady_timer idle;
  std::map<Id, std::shared_ptr<asio::cancellation_signal>> live;
  Id next = 1;
  int failures = 0;
};

TaskGroup::TaskGroup(Executor executor) : state_(std::make_shared<State>(std::move(executor))) {}
TaskGroup::~TaskGroup() = default;

TaskGroup::Id TaskGroup::spawn(std::string name, Task<> task) {
  auto signal = std::make_shared<asio::cancellation_signal>();
  const Id id = state_->next++;
  state_->live.emplace(id, signal);
  auto done = [state = state_, id, signal, name = std::move(name)](const std::exception_ptr& e) {
    if (e) {
      ++state->failures;
      log::error("task '{}' ended by an exception: {}", name, describe(e));
    }
    state->live.erase(id);
    if (state->live.empty()) state->idle.cancel();
  };
  asio::co_spawn(state_->executor, guarded(std::move(task)), asio::bind_cancellation_slot(signal->slot(), std::move(done)));
  return id;
}

void TaskGroup::cancel(Id id) {
  auto it = state_->live.find(id);
  if (it == state_->live.end()) return;
  auto signal = it->second;
  asio::post(state_->executor, [signal] { signal->emit(asio::cancellation_type::terminal); });
}

void TaskGroup::cancel() {
  auto copy = state_->live;
  for (auto& [id, signal] : copy) signal->emit(asio::cancellation_type::terminal);
}

Task<> TaskGroup::join() {
  auto state = state_;
  while (!state->live.empty()) {
    // One timer serves all joiners: cancelling it wakes each of them.
    co_await state->idle.async_wait(await_ec);
  }
}

std::size_t TaskGroup::size() const noexcept {
  return state_->live.size();
}
int TaskGroup::failures() const noexcept {
  return state_->failures;
}
const Executor& TaskGroup::executor() const noexcept {
  return state_->executor;
}

struct Notification::State {
  explicit State(Executor e) : executor(std::move(e)) {}
  Executor executor;
  std::list<asio::steady_timer*> waiting;
};

Notification::Notification(Executor executor) : state_(std::make_shared<State>(std::move(executor))) {}
Notification::~Notification() {
  notify();
}

void Notification::notify() {
  // expires_at rather than cancel: the waiter then sees success, and a real cancellation stays recognisable.
  for (auto* timer : state_->waiting) timer->expires_at(asio::steady_timer::time_point::min());
}

Task<bool> Notification::wait() {
  return wait_for(Milliseconds::max());
}

Task<bool> Notification::wait_for(Milliseconds duration) {
  auto state = state_;
  if (co_await is_cancelled()) co_return false;
  asio::steady_timer timer(state->executor);
  if (duration == Milliseconds::max()) {
    timer.expires_at(asio::steady_timer::time_point::max());
  } else {
    timer.expires_after(duration);
  }
  auto place = state->waiting.insert(state->waiting.end(), &timer);
  co_await timer.async_wait(await_ec);
  state->waiting.erase(place);
  co_return timer.expiry() == asio::steady_timer::time_point::min();
}

Task<Result<AsyncMutex::Guard>> AsyncMutex::lock() {
  // Tickets keep the order; a waiter that is cancelled leaves its turn to the next by passing it on.
  if (!held_ && next_ticket_ == now_serving_) {
    held_ = true;
    ++next_ticket_;
    co_return Guard(this);
  }
  const std::uint64_t ticket = next_ticket_++;
  while (held_ || now_serving_ != ticket) {
    const bool woken = co_await freed_.wait();
    if (woken) continue;
    // Cancelled: wait without cancellation for the turn, then hand it on. Turns are short, and the order stays exact.
    co_await shield();
    while (held_ || now_serving_ != ticket) co_await freed_.wait();
    held_ = true;
    unlock();
    co_return fail(ErrorKind::cancelled, "cancelled while waiting for its turn");
  }
  held_ = true;
  co_return Guard(this);
}

void AsyncMutex::unlock() {
  held_ = false;
  ++now_serving_;
  freed_.notify();
}

struct BlockingPool::State {
  State(std::string n, unsigned threads) : name(std::move(n)), pool(threads) {}
  std::string name;
  asio::thread_pool pool;
};

BlockingPool::BlockingPool(std::string name, unsigned threads) : state_(std::make_unique<State>(std::move(name), threads)) {}
BlockingPool::~BlockingPool() {
  state_->pool.join();
}

Task<> BlockingPool::run_erased(std::function<void()> function) {
  auto executor = co_await asio::this_coro::executor;
  std::exception_ptr thrown;
  auto initiate = [this, executor, &function, &thrown](auto handler) {
    auto shared = std::make_shared<decltype(handler)>(std::move(handler));
    // The loop must not run out of work while the pool holds the only thread of the story.
    auto work = asio::prefer(executor, asio::execution::outstanding_work.tracked);
    asio::post(state_->pool, [shared, work, &function, &thrown] {
      try {
        function();
      } catch (...) {
        thrown = std::current_exception();
      }
      asio::post(work, [shared] { std::move (*shared)(); });
    });
  };
  co_await asio::async_initiate<const asio::use_awaitable_t<>, void()>(std::move(initiate), asio::use_awaitable);
  if (thrown) std::rethrow_exception(thrown);
}

Task<> Undo::run() {
  co_await shield();
  while (!steps_.empty()) {
    auto step = std::move(steps_.back());
    steps_.pop_back();
    co_await step();
  }
}

}  // namespace virga
