// The face of the service: reads from memory, and state changes that start an operation.
#include "engine/instances/service.h"

#include <fmt/format.h>

#include <algorithm>

#include "engine/events/events.h"
#include "engine/instances/impl.h"
#include "engine/pools/service.h"
#include "engine/profiles/service.h"
#include "engine/projects/service.h"

namespace virga::engine {

Instances::Instances(Parts parts, Executor executor) : impl_(std::make_unique<Impl>(std::move(parts), std::move(executor))) {}
Instances::~Instances() = default;

Instances::Ptr Instances::find(const std::string& project, const std::string& name) const {
  auto it = impl_->all.find({project, name});
  return it == impl_->all.end() ? nullptr : it->second;
}

std::uint64_t Instances::generation() const noexcept {
  return impl_->generation;
}

std::vector<Instances::Ptr> Instances::list(const std::optional<std::string>& project) const {
  std::vector<Ptr> out;
  if (!project) {
    out.reserve(impl_->all.size());
    for (const auto& [key, snapshot] : impl_->all) out.push_back(snapshot);
    return out;
  }
  for (auto it = impl_->all.lower_bound({*project, ""}); it != impl_->all.end() && it->first.first == *project; ++it)
    out.push_back(it->second);
  return out;
}

std::vector<std::string> Instances::Impl::urls_where(const std::function<bool(const Instance&)>& condition) const {
  std::vector<std::string> out;
  for (const auto* map : {&all, &pending})
    for (const auto& [key, i] : *map)
      if (condition(*i)) out.push_back(instance_url(i->project, i->name));
  return out;
}

std::vector<Instances::Ptr> Instances::Impl::users_of(const std::string& project, const std::string& profile) const {
  std::vector<Ptr> out;
  for (const auto* map : {&all, &pending})
    for (const auto& [key, i] : *map)
      if (uses_profile(*i, project, profile)) out.push_back(i);
  return out;
}

std::vector<std::string> Instances::users_of_profile(const std::string& project, const std::string& name) const {
  return impl_->urls_where([&](const Instance& i) { return impl_->uses_profile(i, project, name); });
}

std::vector<std::string> Instances::users_of_network(const std::string& name) const {
  return impl_->urls_where([&](const Instance& i) {
    return std::any_of(i.expanded_devices.begin(), i.expanded_devices.end(), [&](const auto& entry) {
      auto network = entry.second.find("network");
      return network != entry.second.end() && network->second == name;
    });
  });
}

std::vector<std::string> Instances::users_of_pool(const std::string& name) const {
  return impl_->urls_where([&](const Instance& i) { return i.pool == name; });
}

std::vector<std::string> Instances::users_of_project(const std::string& name) const {
  return impl_->urls_where([&](const Instance& i) { return i.project == name; });
}

std::vector<Instances::Ptr> Instances::counted(const std::string& project) const {
  auto out = list(project);
  for (auto it = impl_->pending.lower_bound({project, ""}); it != impl_->pending.end() && it->first.first == project; ++it)
    out.push_back(it->second);
  return out;
}

Result<std::shared_ptr<void>> Instances::check_profile(const Profile& next) const {
  VIRGA_CHECK(impl_->parts.projects.policy().check(next));
  std::vector<Ptr> changed;
  for (const auto& i : impl_->users_of(next.project, next.name)) {
    VIRGA_TRY(auto profiles, impl_->profiles_of(*i));
    for (auto& p : profiles)
      if (p->name == next.name) p = std::make_shared<const Profile>(next);
    Instance trial = *i;
    expand(trial, profiles);
    auto fits = impl_->check_change(*i, trial);
    if (!fits) return fail(std::move(fits).error().wrap(fmt::format("instance '{}' uses this profile", i->name)));
    changed.push_back(std::make_shared<const Instance>(std::move(trial)));
  }
  return impl_->parts.projects.policy().check(std::move(changed));
}

Result<> Instances::rename_profile(const Profile& old, const std::string& new_name, Transaction& transaction) const {
  for (const auto& i : impl_->users_of(old.project, old.name)) {
    if (impl_->parts.operations.is_claimed(instance_url(i->project, i->name)))
      return fail(ErrorKind::busy, fmt::format("instance '{}', which uses the profile, is busy", i->name));
    Instance changed = *i;
    std::replace(changed.profiles.begin(), changed.profiles.end(), old.name, new_name);
    transaction.put(document_key(i->project, i->name), json::serialize(encode(changed)));
  }
  impl_->renaming[{old.project, new_name}] = old.name;
  return {};
}

void Instances::profile_changed(const std::string& project, const std::string& name) {
  impl_->profile_changed(project, name);
}

void Instances::Impl::lifecycle(const std::string& action, const Instance& instance, const Caller& caller, json::object context) {
  parts.events.lifecycle(action, instance.project, instance_url(instance.project, instance.name), caller, std::move(context));
}

void Instances::Impl::interrupt_patient_stop(const std::string& uuid) {
  auto waiting = patient_stops.find(uuid);
  if (waiting != patient_stops.end()) (void)parts.operations.cancel(waiting->second);
}

Result<OperationPtr> Instances::Impl::operate(const Caller& caller, const std::string& project, const std::string& name,
                                              std::string description, Body body, bool wait_for_turn) {
  const auto url = instance_url(project, name);
  // Asked for and given back at once: a conflict is the answer to the request rather than an operation that fails. Who forces
  // something has just interrupted what was in the way, which needs a moment to end.
  const bool interrupted = wait_for_turn && std::any_of(patient_stops.begin(), patient_stops.end(), [&](const auto& e) {
                             return by_uuid.count(e.first) != 0 && by_uuid.at(e.first) == Key{project, name};
                           });
  if (!interrupted) {
    if (auto free = parts.operations.claim(url, description); !free) return fail(std::move(free).error());
  }
  OperationSpec spec;
  spec.project = project;
  spec.description = std::move(description);
  spec.resources = {{"instances", {url}}};
  spec.caller = caller;
  auto held = [this, url, interrupted, purpose = spec.description, body = std::move(body)](Operation& operation) -> Task<Result<>> {
    auto claim = interrupted ? co_await parts.operations.claim_when_free(url, purpose, Milliseconds(60'000))
                             : parts.operations.claim(url, operation);
    if (!claim) co_return fail(std::move(claim).error());
    co_return co_await body(operation);
  };
  return parts.operations.start(std::move(spec), std::move(held));
}

Result<OperationPtr> Instances::change_state(const Caller& caller, const std::string& project, const std::string& name,
                                             StateChange change) {
  if (change.stateful)
    return fail(Error(ErrorKind::unsupported, "keeping a guest's memory over a stop is not supported yet").with_field("stateful"));
  VIRGA_TRY(auto instance, impl_->get(project, name));
  auto* self = impl_.get();
  // A VM may have paused itself (its disk is full): what the driver says counts.
  if (instance->status == InstanceStatus::running || instance->status == InstanceStatus::frozen)
    self->set_status(project, name, self->live_status(*instance));
  const auto status = self->get(project, name).value()->status;
  auto refuse = [&](const char* why) { return fail(ErrorKind::invalid, fmt::format("instance '{}' {}", name, why)); };
  switch (change.action) {
    case StateAction::start: {
      if (status == InstanceStatus::running) return refuse("is running already");
      if (status == InstanceStatus::frozen)
        return self->operate(caller, project, name, "Unfreezing instance",
                             [self, caller, project, name](Operation&) { return self->unfreeze(project, name, caller); });
      return self->operate(caller, project, name, "Starting instance",
                           [self, caller, project, name](Operation& o) -> Task<Result<>> {
                             o.set_may_cancel(true);  // what was done by then is undone
                             co_return co_await self->start(o.id(), project, name, caller);
                           });
    }
    case StateAction::stop:
      if (status == InstanceStatus::stopped) return refuse("is stopped already");
      if (change.force) self->interrupt_patient_stop(instance->uuid);
      return self->operate(
          caller, project, name, "Stopping instance",
          [self, caller, project, name, change](Operation& o) {
            return self->stop(o, project, name, caller, change.force, change.timeout_seconds, false);
          },
          change.force);
    case StateAction::restart:
      if (status == InstanceStatus::stopped) return refuse("is not running");
      if (change.force) self->interrupt_patient_stop(instance->uuid);
      return self->operate(
          caller, project, name, "Restarting instance",
          [self, caller, project, name, change](Operation& o) {
            return self->restart(o, project, name, caller, change.force, change.timeout_seconds);
          },
          change.force);
    case StateAction::freeze:
      if (status != InstanceStatus::running) return refuse("is not running");
      return self->operate(caller, project, name, "Freezing instance",
                           [self, caller, project, name](Operation&) { return self->freeze(project, name, caller); });
    case StateAction::unfreeze:
      if (status != InstanceStatus::frozen) return refuse("is not frozen");
      return self->operate(caller, project, name, "Unfreezing instance",
                           [self, caller, project, name](Operation&) { return self->unfreeze(project, name, caller); });
  }
  return fail(ErrorKind::invalid, "unknown action");
}

std::string Instances::log_directory(const Instance& instance) const {
  return log_path(impl_->parts.state_dir, instance.project, instance.name);
}

Instances::Vitals Instances::vitals(const Instance& instance) const {
  Vitals out;
  if (instance.status == InstanceStatus::running || instance.status == InstanceStatus::frozen)
    out.pid = impl_->driver(instance.type).status(instance.uuid).pid;
  if (auto started = impl_->started_at.find(instance.uuid); started != impl_->started_at.end()) out.started_at = started->second;
  if (auto used = impl_->disk_used.find(instance.uuid); used != impl_->disk_used.end()) {
    out.disk_used = used->second;
    if (auto root = root_disk(instance.expanded_devices)) out.root_device = root->first;
  }
  return out;
}

Task<Result<InstanceState>> Instances::state(std::string project, std::string name) {
  VIRGA_CO_TRY(auto instance, impl_->get(project, name));
  InstanceState out;
  out.status = instance->status;
  auto& driver = impl_->driver(instance->type);
  if (out.status == InstanceStatus::running || out.status == InstanceStatus::frozen) {
    out.pid = driver.status(instance->uuid).pid;
    auto stats = co_await driver.stats(instance->uuid);
    if (stats) out.stats = std::move(*stats);
  }
  if (auto started = impl_->started_at.find(instance->uuid); started != impl_->started_at.end()) out.started_at = started->second;
  if (auto root = root_disk(instance->expanded_devices)) out.root_device = root->first;
  if (auto known = impl_->disk_used.find(instance->uuid); known != impl_->disk_used.end()) out.disk_used = known->second;
  // One count of a root at a time: the guest decides how many files there are, and whoever may ask, how often.
  auto storage = impl_->storage_of(*instance);
  if (storage && impl_->measuring.insert(instance->uuid).second) {
    auto usage = co_await (*storage)->usage(volume_id(*instance));
    impl_->measuring.erase(instance->uuid);
    if (usage) out.disk_used = usage->used;
    // It may have been deleted meanwhile.
    if (usage && impl_->by_uuid.contains(instance->uuid)) impl_->disk_used[instance->uuid] = usage->used;
  }
  co_return out;
}

}  // namespace virga::engine
