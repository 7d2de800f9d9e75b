// Stopping every guest because the host or the daemon goes down: in order, and so that they come back.
#include <fmt/format.h>

#include "base/log.h"
#include "engine/instances/impl.h"
#include "engine/url.h"

namespace virga::engine {
namespace {

/// Higher numbers stop first.
std::int64_t stop_priority(const Instance& instance) {
  auto it = instance.expanded_config.find("boot.stop.priority");
  return it == instance.expanded_config.end() ? 0 : parse_integer(it->second, INT64_MIN, INT64_MAX).value_or(0);
}

bool runs(const Instance& instance) {
  return instance.status != InstanceStatus::stopped && instance.status != InstanceStatus::error;
}

}  // namespace

/// Clean, and by force where the guest does not take the hint. What it was is remembered: it starts again with the host.
Task<Result<>> Instances::Impl::stop_for_shutdown(Operation& operation, std::string project, std::string name, Caller caller,
                                                  bool force, std::int64_t timeout_seconds) {
  VIRGA_CO_TRY(auto instance, get(project, name));
  auto stopped = co_await stop(operation, project, name, caller, force, timeout_seconds, true);
  if (!stopped && !force) stopped = co_await stop(operation, project, name, caller, true, 0, true);
  if (stopped) lifecycle("instance-shutdown", *instance, caller);
  co_return stopped;
}

Task<Result<>> Instances::Impl::stop_group(std::vector<Ptr> group, Caller caller, bool force, std::int64_t timeout_seconds) {
  std::vector<OperationPtr> operations;
  std::string failed;
  for (const auto& instance : group) {
    interrupt_patient_stop(instance->uuid);
    // Whatever is being done with it comes to its end first.
    const auto url = instance_url(instance->project, instance->name);
    {
      auto turn = co_await parts.operations.claim_when_free(url, "Stopping instance", Milliseconds(60'000));
      if (!turn) failed += fmt::format("\ninstance '{}': {}", instance->name, turn.error().text());
    }
    auto now = get(instance->project, instance->name);
    if (!now || !runs(**now)) continue;
    auto operation = operate(caller, instance->project, instance->name, "Stopping instance",
                             [this, instance, caller, force, timeout_seconds](Operation& o) {
                               return stop_for_shutdown(o, instance->project, instance->name, caller, force, timeout_seconds);
                             });
    if (operation)
      operations.push_back(*operation);
    else
      failed += fmt::format("\ninstance '{}': {}", instance->name, operation.error().text());
  }
  for (const auto& operation : operations) {
    VIRGA_CO_TRY(auto done, co_await parts.operations.wait(operation->id(), std::nullopt));
    if (done->error()) failed += "\n" + done->error()->text();
  }
  if (failed.empty()) co_return Result<>{};
  co_return fail(Error(ErrorKind::unavailable, "not all guests could be stopped:" + failed)
                     .with_hint("look after them, or leave them running: stopping virgad itself does not touch them"));
}

Task<Result<>> Instances::stop_all(Caller caller, bool force, std::int64_t timeout_seconds) {
  auto* self = impl_.get();
  std::map<std::int64_t, std::vector<Ptr>, std::greater<>> groups;
  for (const auto& instance : list(std::nullopt))
    if (runs(*instance)) groups[stop_priority(*instance)].push_back(instance);
  // Before the first stop: a daemon that is killed in between starts again what it had stopped.
  Transaction forget;
  forget.put("/host/boot-id", json::serialize(json::value("shut down")));
  auto written = co_await self->parts.store.commit(std::move(forget));
  if (!written) co_return fail(std::move(written).error());
  for (auto& [priority, group] : groups)
    VIRGA_CO_CHECK(co_await self->stop_group(std::move(group), caller, force, timeout_seconds));
  co_return Result<>{};
}

}  // namespace virga::engine
