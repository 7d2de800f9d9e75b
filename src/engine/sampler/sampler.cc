#include "engine/sampler/sampler.h"

#include <algorithm>
#include <chrono>
#include <deque>
#include <unordered_set>

namespace virga::engine {

using SteadyTime = std::chrono::steady_clock::time_point;

namespace {

/// Enough for guests that answer, and a bound on what those that hang can hold.
constexpr std::size_t at_once = 16;

SteadyTime now() {
  return std::chrono::steady_clock::now();
}

}  // namespace

struct Sampler::State {
  State(Executor executor, const Clock& c, std::function<std::vector<Guest>()> g, SamplerTimes t)
      : clock(c), guests(std::move(g)), times(t), tasks(executor), passed(executor), freed(executor) {}
  const Clock& clock;
  std::function<std::vector<Guest>()> guests;
  SamplerTimes times;
  TaskGroup tasks;
  Notification passed;  ///< a pass has ended
  Notification freed;   ///< a guest has answered
  std::unordered_map<std::string, SamplePtr> samples;
  std::unordered_set<std::string> asked;  ///< guests that have not answered yet
  SteadyTime last_interest{};
  SteadyTime last_pass{};
  std::uint64_t passes = 0;
  bool going = false;
  bool stopped = false;

  static void interest(const std::shared_ptr<State>& self);
  static Task<> run(std::shared_ptr<State> self);
  static Task<> pass(const std::shared_ptr<State>& self);
  static Task<> take(std::shared_ptr<State> self, Guest guest);
  void forget_others(const std::vector<Guest>& running);
};

void Sampler::State::interest(const std::shared_ptr<State>& self) {
  self->last_interest = now();
  if (self->going || self->stopped) return;
  self->going = true;
  self->tasks.spawn("sample the guests", run(self));
}

Task<> Sampler::State::run(std::shared_ptr<State> self) {
  while (!co_await is_cancelled() && now() - self->last_interest < self->times.interest) {
    co_await pass(self);
    self->last_pass = now();
    ++self->passes;
    self->passed.notify();
    if (!co_await sleep_for(self->times.interval)) break;
  }
  self->going = false;
  // Samples that nobody asks for would only grow old.
  if (!self->stopped) self->samples.clear();
}

/// Ends when all guests were asked; one that hangs answers later or never.
Task<> Sampler::State::pass(const std::shared_ptr<State>& self) {
  const auto end = now() + self->times.interval;
  auto running = self->guests();
  self->forget_others(running);
  for (auto& guest : running) {
    while (self->asked.size() >= at_once && now() < end) {
      co_await self->freed.wait_for(Milliseconds(1'000));
      if (co_await is_cancelled()) co_return;
    }
    if (self->asked.size() >= at_once) co_return;
    if (!self->asked.insert(guest.id).second) continue;
    self->tasks.spawn("sample a guest", take(self, std::move(guest)));
  }
  // The last ones usually answer at once: a first scrape should have them.
  const auto soon = now() + self->times.settle;
  while (!self->asked.empty() && now() < soon) {
    co_await self->freed.wait_for(std::chrono::duration_cast<Milliseconds>(soon - now()) + Milliseconds(1));
    if (co_await is_cancelled()) co_return;
  }
}

Task<> Sampler::State::take(std::shared_ptr<State> self, Guest guest) {
  auto stats = co_await guest.driver->stats(guest.id);
  self->asked.erase(guest.id);
  self->freed.notify();
  if (!stats || self->stopped) co_return;
  auto sample = std::make_shared<Sample>();
  sample->taken = self->clock.now();
  sample->stats = std::move(*stats);
  self->samples[guest.id] = std::move(sample);
}

void Sampler::State::forget_others(const std::vector<Guest>& running) {
  std::unordered_set<std::string_view> ids;
  for (const auto& guest : running) ids.insert(guest.id);
  std::erase_if(samples, [&](const auto& entry) { return !ids.contains(entry.first); });
}

Sampler::Sampler(Executor executor, const Clock& clock, std::function<std::vector<Guest>()> guests, SamplerTimes times)
    : state_(std::make_shared<State>(std::move(executor), clock, std::move(guests), times)) {}
Sampler::~Sampler() = default;

SamplePtr Sampler::find(const std::string& id) {
  State::interest(state_);
  auto it = state_->samples.find(id);
  return it == state_->samples.end() ? nullptr : it->second;
}

Task<> Sampler::wait_fresh(std::optional<Milliseconds> patience) {
  auto state = state_;
  State::interest(state);
  const auto end = now() + std::min(patience.value_or(state->times.patience), state->times.patience);
  // A pass that is late by more than one interval is not waited for either: its samples tell their age.
  while (state->last_pass + 2 * state->times.interval < now() && now() < end) {
    if (!co_await state->passed.wait_for(std::chrono::duration_cast<Milliseconds>(end - now()) + Milliseconds(1))) co_return;
  }
}

std::uint64_t Sampler::passes() const noexcept {
  return state_->passes;
}

Task<> Sampler::stop() {
  auto state = state_;
  state->stopped = true;
  state->tasks.cancel();
  co_await state->tasks.join();
}

}  // namespace virga::engine
