// What is kept only to answer sooner, and let go when nobody asks.
#pragma once

#include <chrono>
#include <functional>

#include "base/task.h"

namespace virga::api {

/// Calls `forget` once nothing was used for `after`. One timer, armed by the first use: nothing polls.
class WhenIdle {
 public:
  WhenIdle(Executor executor, Milliseconds after, std::function<void()> forget)
      : tasks_(std::move(executor)), after_(after), forget_(std::move(forget)) {}
  void used() {
    last_ = Clock::now();
    if (std::exchange(armed_, true)) return;
    tasks_.spawn("let go of idle texts", wait());
  }
  Task<> stop() {
    tasks_.cancel();
    co_await tasks_.join();
  }

 private:
  using Clock = std::chrono::steady_clock;
  Task<> wait() {
    for (;;) {
      const auto left = std::chrono::ceil<Milliseconds>(last_ + after_ - Clock::now());
      if (left <= Milliseconds(0)) break;
      if (!co_await sleep_for(left)) co_return;
    }
    armed_ = false;
    forget_();
  }

  TaskGroup tasks_;
  Milliseconds after_;
  std::function<void()> forget_;
  Clock::time_point last_{};
  bool armed_ = false;
};

}  // namespace virga::api
