// Deleting.
#include <fmt/format.h>

#include <filesystem>

#include "engine/events/events.h"
#include "engine/instances/impl.h"
#include "engine/instances/metadata_document.h"
#include "engine/networks/service.h"

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
                       co_return remove_backups(instance->uuid);
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
    erase_snapshots(*instance, t);
    erase_backups(instance->uuid, t);
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
  backups.erase(instance->uuid);
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
  VIRGA_CHECK(impl_->check_adopted(*instance));
  auto* self = impl_.get();
  return self->operate(caller, project, name, "Deleting instance", [self, project, name, caller](Operation& o) -> Task<Result<>> {
    VIRGA_CO_TRY(auto current, self->get(project, name));
    if (current->status != InstanceStatus::stopped && current->status != InstanceStatus::error)
      co_return fail(ErrorKind::busy, fmt::format("instance '{}' has been started meanwhile", name));
    co_return co_await self->remove(o.id(), current, caller);
  });
}

}  // namespace virga::engine
