// Coroutines: Task<T> is what every asynchronous function returns. TaskGroup is the only caller of co_spawn: it counts, cancels,
// joins and logs. All of it runs on one event loop thread; blocking work goes through BlockingPool. Nothing here is thread-safe
// except where it says so.
#pragma once

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "base/error.h"

namespace virga {

template <class T = void>
using Task = boost::asio::awaitable<T>;
using Executor = boost::asio::any_io_executor;
using Milliseconds = std::chrono::milliseconds;

/// The executor of the running coroutine.
Task<Executor> current_executor();

/// Sleeps; false when the task was cancelled, meanwhile or before.
Task<bool> sleep_for(Milliseconds duration);

/// Whether the running task was cancelled. After a cancel a pending wait returns early; long code asks here before it goes on.
Task<bool> is_cancelled();

/// Makes the rest of the running task immune to cancellation: clean-up and recorded outcomes.
Task<> shield();

/// Owns background tasks. Must be cancelled and joined before it is destroyed, unless the event loop is gone.
class TaskGroup {
 public:
  using Id = std::uint64_t;
  explicit TaskGroup(Executor executor);
  ~TaskGroup();
  TaskGroup(const TaskGroup&) = delete;
  TaskGroup& operator=(const TaskGroup&) = delete;

  /// Starts the task; its name appears in the log if it throws, which is a bug.
  Id spawn(std::string name, Task<> task);
  /// Asks one task, or all, to stop at their next wait. A task that has ended is ignored.
  void cancel(Id id);
  void cancel();
  /// Waits until no task is left.
  Task<> join();
  std::size_t size() const noexcept;
  /// How many tasks ended by an exception.
  int failures() const noexcept;
  const Executor& executor() const noexcept;

 private:
  struct State;
  std::shared_ptr<State> state_;
};

/// A condition that tasks wait for: notify() wakes all who wait now. Check your predicate again after waking.
class Notification {
 public:
  explicit Notification(Executor executor);
  ~Notification();
  Notification(const Notification&) = delete;
  Notification& operator=(const Notification&) = delete;
  void notify();
  /// False when the task was cancelled, meanwhile or before: a loop around it must end then, or it would never give up the loop.
  Task<bool> wait();
  /// False when the time ran out or the task was cancelled.
  Task<bool> wait_for(Milliseconds duration);

 private:
  struct State;
  std::shared_ptr<State> state_;
};

/// A first-come, first-served lock that may be held across co_await. Keep few of them, named for what they guard.
class AsyncMutex {
 public:
  class [[nodiscard]] Guard {
   public:
    Guard() = default;
    explicit Guard(AsyncMutex* mutex) : mutex_(mutex) {}
    Guard(Guard&& other) noexcept : mutex_(std::exchange(other.mutex_, nullptr)) {}
    Guard& operator=(Guard&& other) noexcept {
      if (this != &other) {
        release();
        mutex_ = std::exchange(other.mutex_, nullptr);
      }
      return *this;
    }
    ~Guard() { release(); }
    void release() {
      if (auto* m = std::exchange(mutex_, nullptr)) m->unlock();
    }

   private:
    AsyncMutex* mutex_ = nullptr;
  };
  explicit AsyncMutex(Executor executor) : freed_(std::move(executor)) {}
  /// Errors: cancelled.
  Task<Result<Guard>> lock();

 private:
  void unlock();
  Notification freed_;
  bool held_ = false;
  std::uint64_t next_ticket_ = 0;
  std::uint64_t now_serving_ = 0;
};

/// A few threads for what blocks: SQLite, mounts, fork, large files. run() may be called from the loop thread only; the function
/// runs to its end even when the task that waits for it is cancelled.
class BlockingPool {
 public:
  BlockingPool(std::string name, unsigned threads);
  ~BlockingPool();
  BlockingPool(const BlockingPool&) = delete;
  BlockingPool& operator=(const BlockingPool&) = delete;

  template <class F>
  Task<std::invoke_result_t<F>> run(F function) {
    using R = std::invoke_result_t<F>;
    if constexpr (std::is_void_v<R>) {
      co_await run_erased(std::function<void()>(std::move(function)));
    } else {
      std::optional<R> out;
      std::function<void()> call = [&out, &function] { out.emplace(function()); };
      co_await run_erased(std::move(call));
      co_return std::move(*out);
    }
  }

 private:
  Task<> run_erased(std::function<void()> function);
  struct State;
  std::unique_ptr<State> state_;
};

/// Roll-back steps, run last first. A destructor cannot wait, so who fails calls run(), which cannot be cancelled.
class Undo {
 public:
  void push(std::function<Task<>()> step) { steps_.push_back(std::move(step)); }
  void dismiss() { steps_.clear(); }
  Task<> run();

 private:
  std::vector<std::function<Task<>()>> steps_;
};

}  // namespace virga
