// Deleting and renaming.
#include <fmt/format.h>

#include <filesystem>

#include "engine/events/events.h"
#include "engine/instances/impl.h"
#include "engine/instances/metadata_document.h"
#include "engine/networks/service.h"
#include "model/name.h"

namespace virga::engine {

namespace fs = std::filesystem;

Procedure Instances::Impl::remove_procedure(std::string id, Ptr instance) {
  Procedure p;
  p.kind = "instance-delete";
  p.id = std::move(id);
  p.arguments = {{"uuid", instance->uuid}};
  p.on_recovery = OnRecovery::finish;
  p.steps.push_back({"guest", [this, instance] { return remove_guest(instance); }, {}});
  p.steps.push_back({"nics", [this, instance] { return unplug_nics(instance); }, {}});
  p.steps.push_back({"directories",
                     [this, instance]() -> Task<Result<>> {
                       const auto paths = paths_of(parts.state_dir, *instance);
                       std::error_code ec;
                       fs::remove_all(paths.run, ec);
                       if (!ec) fs::remove_all(paths.logs, ec);
                       if (ec) co_return fail(ErrorKind::unavailable, fmt::format("remove directories: {}", ec.message()));
                       co_return Result<>{};
                     },
                     {}});
  // Last: an instance whose volume is gone is of no use to anybody.
  p.steps.push_back({"volume",
                     [this, instance]() -> Task<Result<>> {
                       VIRGA_CO_TRY(auto* storage, storage_of(*instance));
                       VIRGA_CO_CHECK(co_await storage->detach(volume_id(*instance)));
                       co_return co_await storage->remove(volume_id(*instance));
                     },
                     {}});
  p.outcome = [this, instance]() -> Result<Transaction> {
    Transaction t;
    t.erase(document_key(instance->project, instance->name));
    t.erase(metadata_key(instance->uuid));
    parts.networks.erase(t, instance->uuid);
    return t;
  };
  return p;
}

Task<Result<>> Instances::Impl::remove(std::string operation_id, Ptr instance, Caller caller) {
  co_await shield();  // half a delete helps nobody
  auto done = co_await parts.journal.execute(remove_procedure(std::move(operation_id), instance));
  if (!done) co_return fail(std::move(done).error().wrap(fmt::format("delete instance '{}'", instance->name)));
  ids.release(instance->id_base);
  erase(instance->project, instance->name);
  parts.networks.forget(instance->uuid);
  lifecycle("instance-deleted", *instance, caller);
  co_return Result<>{};
}

Result<OperationPtr> Instances::remove(const Caller& caller, const std::string& project, const std::string& name) {
  VIRGA_TRY(auto instance, impl_->get(project, name));
  if (instance->status != InstanceStatus::stopped && instance->status != InstanceStatus::error)
    return fail(Error(ErrorKind::invalid, fmt::format("instance '{}' is running", name))
                    .with_hint("stop it first, or delete it with --force"));
  auto* self = impl_.get();
  return self->operate(caller, project, name, "Deleting instance", [self, project, name, caller](Operation& o) -> Task<Result<>> {
    VIRGA_CO_TRY(auto current, self->get(project, name));
    if (current->status != InstanceStatus::stopped && current->status != InstanceStatus::error)
      co_return fail(ErrorKind::busy, fmt::format("instance '{}' has been started meanwhile", name));
    co_return co_await self->remove(o.id(), current, caller);
  });
}

Procedure Instances::Impl::rename_procedure(std::string id, Ptr instance, std::string new_name) {
  Procedure p;
  p.kind = "instance-rename";
  p.id = std::move(id);
  p.arguments = {{"uuid", instance->uuid}, {"new_name", new_name}};
  p.on_recovery = OnRecovery::finish;
  auto renamed = std::make_shared<Instance>(*instance);
  renamed->name = new_name;
  renamed->config.try_emplace("volatile.apply_template", "rename");  // one that was just made is still to get those of its creation
  auto move_volume = [this](Ptr from, Ptr to) -> Task<Result<>> {
    end_file_sessions(from->uuid);
    VIRGA_CO_TRY(auto* storage, storage_of(*from));
    VIRGA_CO_CHECK(co_await storage->detach(volume_id(*from)));
    co_return co_await storage->rename(volume_id(*from), volume_id(*to));
  };
  auto move_logs = [this](Ptr from, Ptr to) -> Task<Result<>> {
    const auto old_path = paths_of(parts.state_dir, *from).logs, new_path = paths_of(parts.state_dir, *to).logs;
    std::error_code ec;
    if (fs::exists(old_path)) fs::rename(old_path, new_path, ec);
    if (ec) co_return fail(ErrorKind::unavailable, fmt::format("rename the log directory: {}", ec.message()));
    co_return Result<>{};
  };
  p.steps.push_back({"volume", [=] { return move_volume(instance, renamed); }, [=] { return move_volume(renamed, instance); }});
  p.steps.push_back({"logs", [=] { return move_logs(instance, renamed); }, [=] { return move_logs(renamed, instance); }});
  p.outcome = [this, instance, renamed]() -> Result<Transaction> {
    Transaction t;
    t.expect(document_key(renamed->project, renamed->name), 0);
    t.erase(document_key(instance->project, instance->name));
    t.put(document_key(renamed->project, renamed->name), json::serialize(encode(*renamed)));
    parts.networks.put_renamed(t, renamed->uuid, renamed->name);
    return t;
  };
  return p;
}

Result<OperationPtr> Instances::rename(const Caller& caller, const std::string& project, const std::string& name,
                                       const std::string& new_name) {
  VIRGA_TRY(auto instance, impl_->get(project, name));
  VIRGA_CHECK(check_instance_name(new_name));
  if (instance->status != InstanceStatus::stopped)
    return fail(Error(ErrorKind::invalid, fmt::format("instance '{}' is running: only a stopped one can be renamed", name)));
  if (find(project, new_name))
    return fail(Error(ErrorKind::exists, fmt::format("instance '{}' already exists", new_name)).with_field("name"));
  auto* self = impl_.get();
  return self->operate(caller, project, name, "Renaming instance",
                       [self, project, name, new_name, caller](Operation& o) -> Task<Result<>> {
                         // The new name is held too: nobody creates it meanwhile.
                         auto target = self->parts.operations.claim(instance_url(project, new_name), o);
                         if (!target) co_return fail(std::move(target).error());
                         if (self->all.count({project, new_name}) != 0)
                           co_return fail(ErrorKind::exists, fmt::format("instance '{}' already exists", new_name));
                         VIRGA_CO_TRY(auto current, self->get(project, name));
                         auto done = co_await self->parts.journal.execute(self->rename_procedure(o.id(), current, new_name));
                         if (!done) co_return fail(std::move(done).error().wrap(fmt::format("rename instance '{}'", name)));
                         Instance changed = *current;
                         changed.name = new_name;
                         changed.config.try_emplace("volatile.apply_template", "rename");
                         self->erase(project, name);
                         auto snapshot = self->put(std::move(changed));
                         self->parts.networks.renamed(snapshot->uuid, new_name);
                         self->lifecycle("instance-renamed", *snapshot, caller, {{"old_name", name}});
                         co_return Result<>{};
                       });
}

}  // namespace virga::engine
