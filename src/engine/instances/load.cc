// The instances in memory, and what happens to them when the daemon starts: documents are read, guests that run are adopted, what
// is left of those that ended is cleared away, and those that shall run with the host are started.
#include <fmt/format.h>

#include "base/log.h"
#include "base/random.h"
#include "engine/instances/impl.h"
#include "engine/pools/service.h"
#include "engine/profiles/service.h"
#include "engine/projects/service.h"

namespace virga::engine {
namespace {

constexpr Milliseconds adoption_time{3'000};

}  // namespace

Result<std::uint32_t> IdRanges::take() {
  std::uint64_t base = first;
  for (auto used : used_) {
    if (used < base) continue;
    if (used > base) break;
    base += ids_per_guest;
  }
  if (base + ids_per_guest > last) return fail(ErrorKind::unavailable, "all ranges of host ids are in use");
  used_.insert(static_cast<std::uint32_t>(base));
  return static_cast<std::uint32_t>(base);
}

Result<Instances::Ptr> Instances::Impl::get(const std::string& project, const std::string& name) const {
  auto it = all.find({project, name});
  if (it == all.end()) return fail(ErrorKind::not_found, fmt::format("instance '{}' not found", name));
  return it->second;
}

Instances::Ptr Instances::Impl::put(Instance instance) {
  instance.revision = next_revision++;
  ++generation;
  // What the daemon keeps is in no profile: the expansion follows.
  erase_if(instance.expanded_config, [](const auto& e) { return e.first.starts_with("volatile."); });
  for (auto it = instance.config.lower_bound("volatile."); it != instance.config.end() && it->first.starts_with("volatile."); ++it)
    instance.expanded_config.insert(*it);
  share_expansion(instance);
  auto snapshot = std::make_shared<const Instance>(std::move(instance));
  by_uuid[snapshot->uuid] = {snapshot->project, snapshot->name};
  all[{snapshot->project, snapshot->name}] = snapshot;
  return snapshot;
}

void Instances::Impl::erase(const std::string& project, const std::string& name) {
  auto it = all.find({project, name});
  if (it == all.end()) return;
  auto found = by_uuid.find(it->second->uuid);
  if (found != by_uuid.end() && found->second == it->first) {
    disk_used.erase(it->second->uuid);
    started_at.erase(it->second->uuid);
    quick_reboots.erase(it->second->uuid);
    by_uuid.erase(found);
  }
  ++generation;
  all.erase(it);
}

Result<> Instances::Impl::check_adopted(const Instance& instance) const {
  if (!unadopted.contains(instance.uuid)) return {};
  return fail(Error(ErrorKind::busy, fmt::format("instance '{}' may still run: it was not taken up again yet", instance.name))
                  .with_hint("wait, or end it with 'stop --force' first"));
}

void Instances::Impl::set_status(const std::string& project, const std::string& name, InstanceStatus status) {
  auto it = all.find({project, name});
  if (it == all.end() || it->second->status == status) return;
  Instance copy = *it->second;
  copy.status = status;
  const auto revision = copy.revision;
  auto snapshot = std::make_shared<Instance>(std::move(copy));
  snapshot->revision = revision;  // what a client compares has not changed
  it->second = std::move(snapshot);
  ++generation;
}

InstanceStatus Instances::Impl::live_status(const Instance& instance) const {
  switch (driver(instance.type).status(instance.uuid).state) {
    case compute::State::running:
      return InstanceStatus::running;
    case compute::State::paused:
      return InstanceStatus::frozen;
    case compute::State::created:
      return InstanceStatus::starting;
    case compute::State::absent:
    case compute::State::stopped:
      return InstanceStatus::stopped;
  }
  return InstanceStatus::error;
}

Result<std::vector<std::shared_ptr<const Profile>>> Instances::Impl::profiles_of(const Instance& instance) const {
  VIRGA_TRY(auto home, parts.projects.profiles_of(instance.project));
  auto found = parts.profiles.get_all(home, instance.profiles);
  if (!found && found.error().field().empty()) return fail(std::move(found).error().with_field("profiles"));
  return found;
}

Result<storage::Driver*> Instances::Impl::storage_of(const Instance& instance) const {
  return parts.pools.driver(instance.pool);
}

bool Instances::Impl::uses_profile(const Instance& instance, const std::string& project, const std::string& name) const {
  if (std::find(instance.profiles.begin(), instance.profiles.end(), name) == instance.profiles.end()) return false;
  auto home = parts.projects.profiles_of(instance.project);
  return home && *home == project;
}

void Instances::Impl::profile_changed(const std::string& project, const std::string& name) {
  ++generation;
  due.notify();
  if (auto found = renaming.find({project, name}); found != renaming.end() && !parts.profiles.find(project, found->second)) {
    for (auto& [key, snapshot] : all) {
      if (!uses_profile(*snapshot, project, found->second)) continue;
      Instance copy = *snapshot;
      std::replace(copy.profiles.begin(), copy.profiles.end(), found->second, name);
      snapshot = std::make_shared<const Instance>(std::move(copy));
    }
    renaming.erase(found);
  }
  for (auto& [key, snapshot] : all) {
    if (!uses_profile(*snapshot, project, name)) continue;
    auto profiles = profiles_of(*snapshot);
    if (!profiles) continue;
    Instance copy = *snapshot;
    expand(copy, *profiles);
    copy.revision = next_revision++;
    const auto before = std::exchange(snapshot, std::make_shared<const Instance>(std::move(copy)));
    const bool runs = before->status == InstanceStatus::running || before->status == InstanceStatus::frozen;
    if (runs && limits_differ(*before, *snapshot)) tasks.spawn("limits of a changed profile", apply_limits(snapshot));
  }
}

Task<> Instances::Impl::apply_limits(Ptr instance) {
  auto spec = guest_spec(*instance, paths_of(parts.state_dir, *instance));
  if (!spec) co_return;
  auto applied =
      co_await driver(instance->type).set_limits(instance->uuid, compute::Limits{spec->cpus, spec->memory, spec->processes});
  if (!applied)
    log::warn("instance '{}': the limits of its changed profile hold from its next start on: {}", instance->name,
              applied.error().text());
}

Task<Result<>> Instances::load() {
  VIRGA_CO_TRY(auto documents, co_await impl_->parts.store.list("/instances/"));
  for (const auto& document : documents) {
    auto object = parse_json_object(document.value);
    auto instance = object ? decode_instance(*object) : Result<Instance>(fail(object.error()));
    if (!instance) co_return fail(std::move(instance).error().wrap(fmt::format("document '{}' cannot be read", document.key)));
    auto profiles = impl_->profiles_of(*instance);
    if (profiles) {
      expand(*instance, *profiles);
    } else {
      log::error("instance '{}': {}", instance->name, profiles.error().text());
      instance->status = InstanceStatus::error;
    }
    impl_->ids.mark(instance->id_base);
    impl_->put(std::move(*instance));
  }
  VIRGA_CO_CHECK(co_await impl_->snapshot_documents.load());
  VIRGA_CO_CHECK(co_await impl_->load_backups());
  impl_->register_procedures();

  auto* self = impl_.get();
  auto ended = [self](compute::GuestEvent event) {
    if (self->stopping) return;
    if (self->resumed) {
      self->tasks.spawn("clear up after a guest that ended", self->guest_ended(event.id, event.reboot));
    } else {
      self->early_events.push_back(std::move(event));
    }
  };
  self->parts.containers.on_event(ended);
  self->parts.vms.on_event(ended);
  // All at once, and for a few seconds: a guest that does not answer must not keep the others, and the API, waiting. Those that are
  // not taken up by then are tried again when the daemon runs.
  TaskGroup adoptions(self->executor), limit(self->executor);
  for (const auto& [key, snapshot] : self->all) adoptions.spawn("adopt " + snapshot->name, self->adopt(snapshot));
  auto give_up = [](TaskGroup& group) -> Task<> {
    if (co_await sleep_for(adoption_time)) group.cancel();
  };
  limit.spawn("limit of adoptions", give_up(adoptions));
  co_await adoptions.join();
  limit.cancel();
  co_await limit.join();
  co_return Result<>{};
}

Task<> Instances::Impl::adopt(Ptr instance) {
  auto adopted = co_await driver(instance->type).adopt(instance->uuid, paths_of(parts.state_dir, *instance).run);
  if (!adopted) {
    // It may well run: until we know, nobody touches it.
    log::error("instance '{}' cannot be taken up again: {}", instance->name, adopted.error().text());
    unadopted.insert(instance->uuid);
    set_status(instance->project, instance->name, InstanceStatus::error);
    co_return;
  }
  if (unadopted.erase(instance->uuid) != 0) set_status(instance->project, instance->name, live_status(*instance));
  if (adopted->state != compute::State::running && adopted->state != compute::State::paused) co_return;
  set_status(instance->project, instance->name, live_status(*instance));
  started_at[instance->uuid] = instance->last_used_at;
  log::info("instance '{}' runs on as process {}", instance->name, adopted->pid);
}

std::string power_of(const Instance& instance) {
  auto it = instance.config.find("volatile.last_state.power");
  return it == instance.config.end() ? std::string() : it->second;
}

namespace {

/// Whether an instance that does not run shall be started with the daemon.
bool starts_with_host(const Instance& instance, bool was_running) {
  auto it = instance.expanded_config.find("boot.autostart");
  if (it == instance.expanded_config.end() || it->second.empty()) return was_running;
  return parse_bool(it->second).value_or(false);
}

}  // namespace

Task<Result<>> Instances::resume() {
  auto* self = impl_.get();
  // The boot id tells a host that was restarted from a daemon that was: in the first case every guest is gone and some are to come
  // back.
  VIRGA_CO_TRY(auto known, co_await self->parts.store.get("/host/boot-id"));
  const bool rebooted = known && known->value != json::serialize(json::value(self->parts.boot_id));

  for (const auto& snapshot : list(std::nullopt)) {
    if (self->stopping) co_return Result<>{};
    if (self->unadopted.count(snapshot->uuid) != 0) continue;
    // A start that recovery took back had been adopted as running.
    if (snapshot->status != InstanceStatus::error)
      self->set_status(snapshot->project, snapshot->name, self->live_status(*snapshot));
    const bool runs =
        self->live_status(*snapshot) == InstanceStatus::running || self->live_status(*snapshot) == InstanceStatus::frozen;
    if (!runs && power_of(*snapshot) == "RUNNING") co_await self->ended_meanwhile(snapshot, rebooted);
    if (runs && templates_due(*snapshot)) self->tasks.spawn("write the templates", self->deliver_templates(snapshot->uuid));
  }
  self->resumed = true;
  for (auto& event : std::exchange(self->early_events, {}))
    self->tasks.spawn("clear up after a guest that ended", self->guest_ended(event.id, event.reboot));
  if (!self->unadopted.empty()) self->tasks.spawn("take up guests again", self->adopt_late());
  self->sweep_backups();
  self->tasks.spawn("remove backups that have expired", self->keep_pruning());
  self->tasks.spawn("start guests with the host", self->start_with_host(rebooted || !known));
  self->tended = self->parts.clock.now();
  self->tasks.spawn("schedules of snapshots", self->tend_for_ever());
  co_return Result<>{};
}

Task<> Instances::Impl::ended_meanwhile(Ptr instance, bool rebooted) {
  auto cleared = co_await teardown(random_uuid(), instance, rebooted ? Power::keep : Power::stopped);
  if (!cleared) log::error("instance '{}': cannot clear up after it ended: {}", instance->name, cleared.error().text());
  if (!cleared || rebooted) co_return;
  for (const auto& event : early_events)
    if (event.id == instance->uuid && event.reboot) co_return reboot_later(instance);
}

Task<> Instances::Impl::adopt_late() {
  for (int seconds = 1; !unadopted.empty() && !stopping; seconds = std::min(seconds * 2, 60)) {
    if (!co_await sleep_for(std::chrono::seconds(seconds))) co_return;
    for (const auto& uuid : std::set<std::string>(unadopted)) {
      auto key = by_uuid.find(uuid);
      auto instance =
          key == by_uuid.end() ? Result<Ptr>(fail(ErrorKind::not_found, "gone")) : get(key->second.first, key->second.second);
      if (!instance) {
        unadopted.erase(uuid);
        continue;
      }
      co_await adopt(*instance);
      if (unadopted.count(uuid) == 0 && live_status(**instance) == InstanceStatus::stopped)
        tasks.spawn("clear up after a guest that ended", guest_ended(uuid, false));
    }
  }
}

Task<> Instances::Impl::start_with_host(bool host_started) {
  if (!host_started) co_return;
  std::vector<std::pair<Ptr, OperationPtr>> started;
  auto tell = [this](const Instance& instance, const std::string& error) {
    if (on_autostart) on_autostart(instance, error);
  };
  for (const auto& [key, snapshot] : std::map<Key, Ptr>(all)) {
    if (snapshot->status != InstanceStatus::stopped || !starts_with_host(*snapshot, power_of(*snapshot) == "RUNNING")) continue;
    auto operation = operate(
        internal_caller(), snapshot->project, snapshot->name, "Starting instance",
        [this, project = key.first, name = key.second](Operation& o) { return start(o.id(), project, name, internal_caller()); });
    if (operation) {
      started.emplace_back(snapshot, *operation);
    } else {
      log::error("instance '{}' could not be started with the host: {}", snapshot->name, operation.error().text());
      tell(*snapshot, operation.error().text());
    }
  }
  for (const auto& [instance, operation] : started) {
    auto done = co_await parts.operations.wait(operation->id(), std::nullopt);
    if (stopping || !done) co_return;
    const auto& error = (*done)->error();
    if (error) log::error("instance '{}' could not be started with the host: {}", instance->name, error->text());
    tell(*instance, error ? error->text() : std::string());
  }
  if (stopping) co_return;
  // Only now: a daemon that is killed in between starts the rest when it comes back.
  Transaction remember;
  remember.put("/host/boot-id", json::serialize(json::value(parts.boot_id)));
  auto written = co_await parts.store.commit(std::move(remember));
  if (!written) log::error("the host's boot cannot be remembered: {}", written.error().text());
}

void Instances::on_autostart(std::function<void(const Instance&, const std::string&)> call) {
  impl_->on_autostart = std::move(call);
}

Task<> Instances::shut_down() {
  impl_->stopping = true;
  impl_->tasks.cancel();
  co_await impl_->tasks.join();
}

}  // namespace virga::engine
