// Going back to a snapshot.
#include <fmt/format.h>

#include "base/log.h"
#include "base/random.h"
#include "engine/events/events.h"
#include "engine/instances/impl.h"
#include "engine/instances/metadata_document.h"
#include "engine/networks/service.h"
#include "engine/projects/service.h"

namespace virga::engine {

/// What the instance would be: the snapshot's configuration with what the daemon keeps now.
Result<Instance> Instances::Impl::restored(const Instance& now, const InstanceSnapshot& snapshot) const {
  UpdateInstance request;
  request.description = snapshot.instance.description;
  request.architecture = snapshot.instance.architecture;
  request.ephemeral = snapshot.instance.ephemeral;
  request.profiles = snapshot.instance.profiles;
  request.config = snapshot.instance.config;
  std::erase_if(*request.config, [](const auto& e) { return e.first.starts_with("volatile."); });
  request.devices = snapshot.instance.devices;
  Instance stopped = now;
  stopped.status = InstanceStatus::stopped;  // it is by then
  auto after = updated(stopped, request);
  if (!after && after.error().field() == "profiles")
    return fail(
        Error(std::move(after).error().wrap(fmt::format("snapshot '{}' uses a profile that is not there any more", snapshot.name)))
            .with_hint("make the profile again, or publish the snapshot and make an instance from the image"));
  return after;
}

Procedure Instances::Impl::restore_procedure(std::string id, Ptr before, Ptr after, std::string snapshot) {
  Procedure p;
  p.kind = "instance-snapshot-restore";
  p.id = std::move(id);
  p.arguments = {{"uuid", before->uuid}, {"snapshot", snapshot}, {"after", encode(*after)}};
  // Half of it cannot be taken back: what was there before is gone. It is done again instead, to the same end.
  p.on_recovery = OnRecovery::finish;
  auto metadata = std::make_shared<std::optional<Document>>();
  p.steps.push_back({"metadata",
                     [this, before, snapshot, metadata]() -> Task<Result<>> {
                       VIRGA_CO_TRY(*metadata,
                                    co_await parts.store.get(fmt::format("{}/{}", metadata_key(before->uuid), snapshot)));
                       co_return Result<>{};
                     },
                     {}});
  p.steps.push_back({"volume",
                     [this, before, snapshot]() -> Task<Result<>> {
                       end_file_sessions(before->uuid);
                       VIRGA_CO_TRY(auto* storage, storage_of(*before));
                       VIRGA_CO_CHECK(co_await storage->detach(volume_id(*before)));
                       VIRGA_CO_TRY(auto* ops, snapshot_ops(*before));
                       co_return co_await ops->restore(volume_id(*before), snapshot);
                     },
                     {}});
  p.outcome = [this, before, after, metadata]() -> Result<Transaction> {
    Instance changed = *after;
    std::vector<std::string> gone;
    auto t = update_transaction(*before, changed, gone);
    if (*metadata) {
      t.put(metadata_key(before->uuid), (*metadata)->value);
    } else {
      t.erase(metadata_key(before->uuid));
    }
    return t;
  };
  p.recovered = [this, before, after] {
    Instance changed = *after;
    std::vector<std::string> gone;
    (void)update_transaction(*before, changed, gone);
    for (const auto& device : gone) parts.networks.forget(before->uuid, device);
    if (auto profiles = profiles_of(changed)) expand(changed, *profiles);
    put(std::move(changed));
  };
  return p;
}

Task<Result<>> Instances::Impl::restore(Operation& operation, std::string project, std::string name, std::string snapshot,
                                        Caller caller) {
  VIRGA_CO_TRY(auto instance, get(project, name));
  VIRGA_CO_TRY(auto source, snapshot_of(*instance, snapshot));
  // Before anything is stopped.
  VIRGA_CO_TRY(auto trial, restored(*instance, *source));
  VIRGA_CO_CHECK(parts.projects.policy().check(trial));
  const bool ran = live_status(*instance) != InstanceStatus::stopped;
  if (ran) VIRGA_CO_CHECK(co_await stop(operation, project, name, caller, true, 0, true));
  co_await shield();
  VIRGA_CO_TRY(instance, get(project, name));
  VIRGA_CO_TRY(auto after, restored(*instance, *source));
  VIRGA_CO_TRY(const Policy::Hold held, parts.projects.policy().check(after));
  auto wanted = std::make_shared<const Instance>(after);
  auto procedure = restore_procedure(random_uuid(), instance, wanted, snapshot);
  const auto recovered = procedure.recovered;
  auto done = co_await parts.journal.execute(std::move(procedure));
  if (!done) co_return fail(std::move(done).error().wrap(fmt::format("restore instance '{}'", name)));
  recovered();
  due.notify();
  VIRGA_CO_TRY(instance, get(project, name));
  lifecycle("instance-restored", *instance, caller, {{"snapshot", snapshot}});
  co_await merge_layers(instance);
  if (ran) VIRGA_CO_CHECK(co_await start(random_uuid(), project, name, caller));
  co_return Result<>{};
}

Result<OperationPtr> Instances::restore(const Caller& caller, const std::string& project, const std::string& name,
                                        const std::string& snapshot) {
  auto* self = impl_.get();
  VIRGA_TRY(auto instance, self->get(project, name));
  VIRGA_TRY(auto source, self->snapshot_of(*instance, snapshot));
  VIRGA_TRY(auto trial, self->restored(*instance, *source));
  VIRGA_CHECK(self->parts.projects.policy().check(trial));
  return self->operate(caller, project, name, "Restoring snapshot", [self, project, name, snapshot, caller](Operation& o) {
    return self->restore(o, project, name, snapshot, caller);
  });
}

void Instances::Impl::register_snapshot_procedures() {
  parts.journal.register_kind("instance-snapshot", recovering([this](std::string id, Ptr i, const json::object& arguments) {
                                const Fields fields(arguments);
                                auto snapshot = decode_snapshot(fields.object("snapshot").value_or(json::object()));
                                if (!snapshot || snapshot_of(*i, snapshot->name)) return Procedure{};
                                auto shared = std::make_shared<InstanceSnapshot>(std::move(*snapshot));
                                return snapshot_procedure(std::move(id), i, shared, fields.boolean("runs").value_or(false));
                              }));
  parts.journal.register_kind("instance-snapshot-delete", recovering([this](std::string id, Ptr i, const json::object& arguments) {
                                return remove_snapshot_procedure(std::move(id), i,
                                                                 Fields(arguments).string("snapshot").value_or(""));
                              }));
  parts.journal.register_kind("instance-snapshot-rename", recovering([this](std::string id, Ptr i, const json::object& arguments) {
                                const Fields fields(arguments);
                                const auto from = fields.string("from").value_or(""), to = fields.string("to").value_or("");
                                if (!snapshot_of(*i, from)) return Procedure{};
                                return rename_snapshot_procedure(std::move(id), i, from, to);
                              }));
  parts.journal.register_kind("instance-snapshot-restore", recovering([this](std::string id, Ptr i, const json::object& arguments) {
                                const Fields fields(arguments);
                                const auto name = fields.string("snapshot").value_or("");
                                auto after = decode_instance(fields.object("after").value_or(json::object()));
                                auto snapshot = snapshot_of(*i, name);
                                // One that runs has been started since, with what its root is now.
                                if (!after || !snapshot || live_status(*i) != InstanceStatus::stopped) return Procedure{};
                                after->project = i->project;
                                after->name = i->name;
                                if (auto profiles = profiles_of(*after)) expand(*after, *profiles);
                                return restore_procedure(std::move(id), i, std::make_shared<const Instance>(*after), name);
                              }));
}

}  // namespace virga::engine
