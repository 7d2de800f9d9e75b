// What running guests use, sampled in the background, so that metrics and lists never ask a guest: one pass over the guests that
// run each few seconds, as long as somebody has asked lately; nothing at all otherwise. A guest that does not answer keeps its last
// sample, with its age, and holds up nobody. Event loop only.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/clock.h"
#include "base/task.h"
#include "drivers/compute/driver.h"

namespace virga::engine {

struct Sample {
  WallTime taken{};
  compute::GuestStats stats;
};
using SamplePtr = std::shared_ptr<const Sample>;

struct SamplerTimes {
  Milliseconds interval{10'000};  ///< between two passes
  Milliseconds interest{90'000};  ///< passes go on so long after the last question
  Milliseconds patience{2'000};   ///< wait_fresh() waits for a first pass so long
  Milliseconds settle{1'500};     ///< a pass waits so long for its last guests to answer
};

class Sampler {
 public:
  struct Guest {
    std::string id;
    compute::Driver* driver = nullptr;
  };
  /// `guests` tells which run now.
  Sampler(Executor executor, const Clock& clock, std::function<std::vector<Guest>()> guests, SamplerTimes times = {});
  ~Sampler();
  Sampler(const Sampler&) = delete;
  Sampler& operator=(const Sampler&) = delete;

  /// The last sample of a guest, by its id; null where there is none yet. Asking keeps the sampler going.
  SamplePtr find(const std::string& id);
  /// Where the sampler has slept, waits a moment for its first pass. After that it returns at once. `patience`: less than that of
  /// the times.
  Task<> wait_fresh(std::optional<Milliseconds> patience = {});
  /// How many passes there were.
  std::uint64_t passes() const noexcept;
  Task<> stop();

 private:
  struct State;
  std::shared_ptr<State> state_;
};

}  // namespace virga::engine
