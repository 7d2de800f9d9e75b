// Starting, freezing and unfreezing.
#include <fmt/format.h>

#include "engine/instances/impl.h"
#include "engine/networks/service.h"

namespace virga::engine {
namespace {

/// What a start changes in the document. `templates`: of a virtual machine, which gets them when its agent answers.
void mark_started(Instance& instance, WallTime now, bool templates) {
  instance.config["volatile.last_state.power"] = "RUNNING";
  if (templates) {
    instance.config["volatile.templates.due"] = "true";
  } else {
    instance.config.erase("volatile.templates.due");
    instance.config.erase("volatile.apply_template");
  }
  instance.last_used_at = now;
  for (const auto& nic : nics_of(instance))
    instance.config["volatile." + nic.device + ".host_name"] = Networks::host_interface(instance.uuid, nic.device);
}

}  // namespace

Procedure Instances::Impl::start_procedure(std::string id, Ptr instance, bool templates) {
  Procedure p;
  p.kind = "instance-start";
  p.id = std::move(id);
  p.arguments = {{"uuid", instance->uuid}};
  // A start that was not acknowledged is taken back: the client sees a stopped instance and can try again.
  p.on_recovery = OnRecovery::undo;
  p.steps.push_back({"directories", [this, instance] { return make_directories(instance); },
                     [this, instance] { return remove_run_directory(instance); }});
  // Here rather than with its step: a guest that was half made by the next step needs its mounts until it is gone.
  p.steps.push_back({"taps", [this, instance] { return plug_taps(instance); }, [this, instance] { return unplug_nics(instance); }});
  p.steps.push_back({"guest", [this, instance] { return attach_and_create(instance); },
                     [this, instance]() -> Task<Result<>> {
                       VIRGA_CO_CHECK(co_await remove_guest(instance));
                       co_return co_await detach_root(instance);
                     }});
  p.steps.push_back({"veths", [this, instance] { return plug_veths(instance); }, {}});
  p.steps.push_back({"run", [this, instance] { return driver(instance->type).start(instance->uuid); }, {}});
  p.outcome = [this, instance, templates]() -> Result<Transaction> {
    VIRGA_TRY(auto current, get(instance->project, instance->name));
    Instance changed = *current;
    mark_started(changed, parts.clock.now(), templates);
    Transaction t;
    t.put(document_key(changed.project, changed.name), json::serialize(encode(changed)));
    return t;
  };
  return p;
}

Task<Result<>> Instances::Impl::start(std::string operation_id, std::string project, std::string name, Caller caller) {
  VIRGA_CO_TRY(auto instance, get(project, name));
  VIRGA_CO_CHECK(check(*instance));
  VIRGA_CO_CHECK(check_adopted(*instance));
  VIRGA_CO_TRY(instance, co_await ensure_addresses(instance));
  bool templates = false;
  if (instance->type == InstanceType::virtual_machine) {
    auto files = co_await render_templates(instance);
    if (!files) co_return fail(std::move(files).error().wrap(fmt::format("start instance '{}': apply the templates", name)));
    templates = !files->empty();
  }
  set_status(project, name, InstanceStatus::starting);
  auto done = co_await parts.journal.execute(start_procedure(std::move(operation_id), instance, templates));
  VIRGA_CO_TRY(auto current, get(project, name));
  if (!done) {
    set_status(project, name, live_status(*current));
    co_return fail(std::move(done).error().wrap(fmt::format("start instance '{}'", name)));
  }
  Instance changed = *current;
  mark_started(changed, parts.clock.now(), templates);
  changed.status = live_status(changed);
  started_at[changed.uuid] = parts.clock.now();
  auto snapshot = put(std::move(changed));
  lifecycle("instance-started", *snapshot, caller);
  if (templates) tasks.spawn("write the templates", deliver_templates(snapshot->uuid));
  at_startup(*snapshot);
  co_return Result<>{};
}

Task<Result<>> Instances::Impl::freeze(std::string project, std::string name, Caller caller) {
  VIRGA_CO_TRY(auto instance, get(project, name));
  VIRGA_CO_CHECK(co_await driver(instance->type).pause(instance->uuid));
  set_status(project, name, live_status(*instance));
  lifecycle("instance-paused", *instance, caller);
  co_return Result<>{};
}

Task<Result<>> Instances::Impl::unfreeze(std::string project, std::string name, Caller caller) {
  VIRGA_CO_TRY(auto instance, get(project, name));
  VIRGA_CO_CHECK(co_await driver(instance->type).resume(instance->uuid));
  set_status(project, name, live_status(*instance));
  lifecycle("instance-resumed", *instance, caller);
  co_return Result<>{};
}

}  // namespace virga::engine
