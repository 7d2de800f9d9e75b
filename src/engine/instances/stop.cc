// Stopping and restarting, and what is done when a guest ends by itself.
#include <fmt/format.h>

#include "base/log.h"
#include "base/random.h"
#include "engine/instances/impl.h"

namespace virga::engine {

void mark_stopped(Instance& instance, Power power) {
  if (power == Power::stopped) instance.config["volatile.last_state.power"] = "STOPPED";
  for (const auto& nic : nics_of(instance)) instance.config.erase("volatile." + nic.device + ".host_name");
}

Procedure Instances::Impl::stop_procedure(std::string id, Ptr instance, Power power) {
  Procedure p;
  p.kind = "instance-stop";
  p.id = std::move(id);
  p.arguments = {{"uuid", instance->uuid}};
  p.on_recovery = OnRecovery::finish;
  p.steps.push_back({"guest", [this, instance] { return remove_guest(instance); }, {}});
  p.steps.push_back({"nics", [this, instance] { return unplug_nics(instance); }, {}});
  p.steps.push_back({"root", [this, instance] { return detach_root(instance); }, {}});
  p.steps.push_back({"run-directory", [this, instance] { return remove_run_directory(instance); }, {}});
  p.outcome = [this, instance, power]() -> Result<Transaction> {
    VIRGA_TRY(auto current, get(instance->project, instance->name));
    Instance changed = *current;
    mark_stopped(changed, power);
    Transaction t;
    t.put(document_key(changed.project, changed.name), json::serialize(encode(changed)));
    return t;
  };
  return p;
}

Task<Result<>> Instances::Impl::teardown(std::string operation_id, Ptr instance, Power power) {
  co_await shield();  // a guest that has ended cannot be made to run again: only the rest is left to do
  if (instance->ephemeral && power == Power::stopped)
    co_return co_await remove(std::move(operation_id), instance, internal_caller());
  VIRGA_CO_CHECK(co_await parts.journal.execute(stop_procedure(std::move(operation_id), instance, power)));
  VIRGA_CO_TRY(auto current, get(instance->project, instance->name));
  Instance changed = *current;
  mark_stopped(changed, power);
  changed.status = InstanceStatus::stopped;
  started_at.erase(changed.uuid);
  unadopted.erase(changed.uuid);
  put(std::move(changed));
  co_return Result<>{};
}

Task<Result<>> Instances::Impl::stop(Operation& operation, std::string project, std::string name, Caller caller, bool force,
                                     std::int64_t timeout_seconds, bool restarting) {
  VIRGA_CO_TRY(auto instance, get(project, name));
  set_status(project, name, InstanceStatus::stopping);
  if (!force) {
    constexpr std::int64_t longest = 24 * 3600;
    const auto seconds = timeout_seconds < 0 || timeout_seconds > longest ? longest : timeout_seconds;
    // While the guest takes its time, somebody may lose patience: see change_state().
    patient_stops[instance->uuid] = operation.id();
    operation.set_may_cancel(true);
    auto stopped = co_await driver(instance->type).stop(instance->uuid, std::chrono::seconds(seconds));
    patient_stops.erase(instance->uuid);
    operation.set_may_cancel(false);
    if (!stopped) {
      set_status(project, name, live_status(*instance));
      co_return fail(
          Error(std::move(stopped).error().wrap(fmt::format("stop instance '{}'", name))).with_hint("--force stops it at once"));
    }
  }
  auto done = co_await teardown(operation.id(), instance, restarting ? Power::keep : Power::stopped);
  if (!done) {
    if (auto current = get(project, name)) set_status(project, name, live_status(**current));
    co_return fail(std::move(done).error().wrap(fmt::format("stop instance '{}'", name)));
  }
  if (!restarting) lifecycle(force ? "instance-stopped" : "instance-shutdown", *instance, caller);
  co_return Result<>{};
}

Task<Result<>> Instances::Impl::restart(Operation& operation, std::string project, std::string name, Caller caller, bool force,
                                        std::int64_t timeout_seconds) {
  VIRGA_CO_CHECK(co_await stop(operation, project, name, caller, force, timeout_seconds, true));
  // The two halves are journalled under names of their own: a row is one procedure.
  VIRGA_CO_CHECK(co_await start(random_uuid(), project, name, caller));
  VIRGA_CO_TRY(auto instance, get(project, name));
  lifecycle("instance-restarted", *instance, caller);
  co_return Result<>{};
}

Task<> Instances::Impl::guest_ended(std::string uuid, bool reboot) {
  while (!stopping) {
    auto key = by_uuid.find(uuid);
    if (key == by_uuid.end()) co_return;
    const auto [project, name] = key->second;
    auto claim = co_await parts.operations.claim_when_free(instance_url(project, name), "Clearing up after the guest ended",
                                                           Milliseconds(60'000));
    if (!claim && claim.error().kind() == ErrorKind::timeout) continue;
    if (!claim) co_return;
    // Whoever held it meanwhile may have stopped, started or renamed it.
    auto instance = get(project, name);
    if (!instance || (*instance)->uuid != uuid) continue;
    if (live_status(**instance) != InstanceStatus::stopped || power_of(**instance) != "RUNNING") co_return;

    auto done = co_await teardown(random_uuid(), *instance, reboot ? Power::keep : Power::stopped);
    if (!done) {
      log::error("instance '{}' ended; clearing up failed: {}", name, done.error().text());
      set_status(project, name, InstanceStatus::error);
      co_return;
    }
    lifecycle("instance-shutdown", **instance, internal_caller());
    if (reboot) reboot_later(*instance);
    co_return;
  }
}

void Instances::Impl::reboot_later(Ptr instance) {
  // A guest that reboots as soon as it has started must not keep the host busy: each time in a row it waits twice as long.
  auto started = started_at.find(instance->uuid);
  const bool at_once = started != started_at.end() && parts.clock.now() - started->second < std::chrono::seconds(10);
  auto& row = quick_reboots[instance->uuid];
  row = at_once ? std::min(row + 1, 7) : 0;
  tasks.spawn("reboot " + instance->name, reboot_after(instance, row == 0 ? Milliseconds(0) : Milliseconds(500) * (1 << row)));
}

Task<> Instances::Impl::reboot_after(Ptr instance, Milliseconds pause) {
  if (pause.count() > 0 && !co_await sleep_for(pause)) co_return;
  auto key = by_uuid.find(instance->uuid);
  if (key == by_uuid.end() || stopping) co_return;
  const auto [project, name] = key->second;
  auto current = get(project, name);
  if (!current || (*current)->status != InstanceStatus::stopped || power_of(**current) != "RUNNING")
    co_return;  // somebody was faster
  auto started = operate(internal_caller(), project, name, "Restarting instance",
                         [this, project, name](Operation& o) { return start(o.id(), project, name, internal_caller()); });
  if (!started) log::warn("instance '{}' asked for a restart: {}", name, started.error().text());
}

}  // namespace virga::engine
