// Snapshots that are taken by the clock, and those that have had their time: one timer, set to the next of these moments.
#include "model/schedule.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>

#include "base/log.h"
#include "engine/instances/impl.h"

namespace virga::engine {
namespace {

/// Somebody may set the host's clock meanwhile.
constexpr Milliseconds longest_sleep = std::chrono::minutes(30);
/// A snapshot that could not be removed when it expired is tried again then.
constexpr auto retry_after = std::chrono::minutes(5);

std::string option(const Instance& instance, const char* key) {
  const auto it = instance.expanded_config.find(key);
  return it == instance.expanded_config.end() ? std::string() : it->second;
}

Schedule schedule_of(const Instance& instance) {
  return Schedule::parse(option(instance, "snapshots.schedule")).value_or(Schedule());
}

bool takes_part(const Instance& instance) {
  if (instance.status == InstanceStatus::running || instance.status == InstanceStatus::frozen) return true;
  return instance.status == InstanceStatus::stopped && parse_bool(option(instance, "snapshots.schedule.stopped")).value_or(false);
}

void sooner(std::optional<WallTime>& next, std::optional<WallTime> other) {
  if (other && (!next || *other < *next)) next = other;
}

}  // namespace

bool has_schedule(const Instance& instance) {
  return instance.expanded_config.contains("snapshots.schedule");
}

Task<std::optional<WallTime>> Instances::Impl::tend() {
  auto turn = co_await tending.lock();
  if (!turn) co_return std::nullopt;
  const auto now = parts.clock.now();
  // What was due while the daemon was not there, or before this call, is not made up for.
  const auto since = tended == WallTime{} ? now : std::min(tended, now);
  tended = now;
  std::vector<Ptr> to_take;
  for (const auto& [key, instance] : all) {
    if (!has_schedule(*instance) || !takes_part(*instance)) continue;
    if (const auto moment = schedule_of(*instance).next(since); moment && *moment <= now) to_take.push_back(instance);
  }
  for (const auto& instance : to_take) {
    if (stopping) co_return std::nullopt;
    auto operation = start_snapshot(internal_caller(), instance->project, instance->name, {}, true);
    auto error = operation ? std::optional<Error>() : std::optional(operation.error());
    if (operation) {
      // One after the other: each may move much data.
      auto done = co_await parts.operations.wait((*operation)->id(), std::nullopt);
      if (!done) co_return std::nullopt;
      error = (*done)->error();
    }
    if (error) log::error("instance '{}': no scheduled snapshot: {}", instance->name, error->text());
    if (on_scheduled) on_scheduled(*instance, error ? error->text() : std::string());
  }

  std::optional<WallTime> next;
  for (const auto& [path, snapshot] : snapshot_documents.entries()) {
    if (stopping) co_return std::nullopt;
    if (snapshot->expires_at == WallTime{}) continue;
    if (snapshot->expires_at > now) {
      sooner(next, snapshot->expires_at);
      continue;
    }
    const auto instance = by_uuid.find(snapshot->instance.uuid);
    if (instance == by_uuid.end()) continue;
    const auto [project, name] = instance->second;
    auto operation = remove_expired(project, name, snapshot->name);
    auto done = operation ? co_await parts.operations.wait((*operation)->id(), std::nullopt)
                          : Result<OperationPtr>(fail(operation.error()));
    if (stopping) co_return std::nullopt;
    if (done && !(*done)->error()) continue;
    log::warn("instance '{}': snapshot '{}' has expired and is still there: {}", name, snapshot->name,
              done ? (*done)->error()->text() : done.error().text());
    sooner(next, now + retry_after);
  }
  for (const auto& [key, instance] : all)
    if (has_schedule(*instance)) sooner(next, schedule_of(*instance).next(now));
  co_return next;
}

Result<OperationPtr> Instances::Impl::remove_expired(const std::string& project, const std::string& name,
                                                     const std::string& snapshot) {
  return operate(internal_caller(), project, name, "Deleting expired snapshot",
                 [this, project, name, snapshot](Operation& o) -> Task<Result<>> {
                   VIRGA_CO_TRY(auto instance, get(project, name));
                   VIRGA_CO_TRY(auto found, snapshot_of(*instance, snapshot));
                   // Somebody may have given it more time.
                   if (found->expires_at == WallTime{} || found->expires_at > parts.clock.now()) co_return Result<>{};
                   co_return co_await remove_snapshot(o.id(), instance, snapshot, internal_caller());
                 });
}

Task<> Instances::Impl::tend_for_ever() {
  const std::weak_ptr<const bool> here = alive;
  while (!here.expired() && !stopping) {
    const auto next = co_await tend();
    if (here.expired() || stopping || co_await is_cancelled()) co_return;
    if (!next) {
      if (!co_await due.wait()) co_return;
      continue;
    }
    const auto left = std::chrono::ceil<Milliseconds>(*next - parts.clock.now());
    if (left.count() > 0) co_await due.wait_for(std::min(left, longest_sleep));
  }
}

void Instances::Impl::at_startup(const Instance& instance) {
  if (!schedule_of(instance).at_startup()) return;
  auto later = [](Impl* self, std::string project, std::string name) -> Task<> {
    {  // The start's own operation has not ended yet.
      const auto purpose = "Waiting for the start's end";
      auto claim = co_await self->parts.operations.claim_when_free(instance_url(project, name), purpose, Milliseconds(600'000));
      if (!claim) co_return;
    }
    auto instance = self->get(project, name);
    auto taken =
        instance ? self->start_snapshot(internal_caller(), project, name, {}, true) : Result<OperationPtr>(fail(instance.error()));
    if (!taken) log::error("instance '{}': no snapshot at its start: {}", name, taken.error().text());
    if (!taken && instance && self->on_scheduled) self->on_scheduled(**instance, taken.error().text());
  };
  tasks.spawn("snapshot at the start of " + instance.name, later(this, instance.project, instance.name));
}

Task<std::optional<WallTime>> Instances::tend_snapshots() {
  co_return co_await impl_->tend();
}

void Instances::on_scheduled_snapshot(std::function<void(const Instance&, const std::string&)> call) {
  impl_->on_scheduled = std::move(call);
}

}  // namespace virga::engine
