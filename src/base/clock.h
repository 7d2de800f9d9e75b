// The wall clock behind an interface, so that tests set it. Time-outs use the steady clock of the event loop instead.
#pragma once

#include <chrono>

#include "base/units.h"

namespace virga {

class Clock {
 public:
  virtual ~Clock() = default;
  virtual WallTime now() const = 0;
};

class SystemClock final : public Clock {
 public:
  WallTime now() const override { return std::chrono::system_clock::now(); }
};

class ManualClock final : public Clock {
 public:
  WallTime now() const override { return now_; }
  void advance(std::chrono::nanoseconds by) { now_ += std::chrono::duration_cast<WallTime::duration>(by); }

 private:
  WallTime now_ = std::chrono::system_clock::from_time_t(1'800'000'000);
};

}  // namespace virga
