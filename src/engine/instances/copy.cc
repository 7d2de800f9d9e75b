// Copies of instances within this daemon: the root volume's content at one moment, under a new name, with new addresses and a new
// range of ids. A source that runs is paused for as long as its data is read.
#include <fmt/format.h>

#include <filesystem>

#include "base/random.h"
#include "engine/events/events.h"
#include "engine/instances/copying.h"
#include "engine/instances/impl.h"
#include "engine/instances/metadata_document.h"
#include "engine/networks/service.h"
#include "engine/pools/service.h"
#include "engine/profiles/service.h"
#include "engine/projects/service.h"
#include "model/name.h"

namespace virga::engine {
namespace {

constexpr Milliseconds patience{600'000};  ///< while something else holds the source

std::string value_of(const Config& config, const char* key) {
  auto it = config.find(key);
  return it == config.end() ? std::string() : it->second;
}

/// The source's own keys with those of the request over them; an empty value takes a key away. What the daemon keeps stays behind,
/// save what tells of the image.
Result<Config> copied_config(const Instance& source, const Config& asked) {
  Config given = asked;
  std::erase_if(given, [&](const auto& e) {
    const auto own = source.config.find(e.first);
    // Clients send what the daemon keeps as they got it; of a guest that runs it may have changed since.
    return e.first.starts_with("image.") ||
           (e.first.starts_with("volatile.") && own != source.config.end() &&
            (own->second == e.second || e.first.ends_with(".host_name") || e.first.starts_with("volatile.last_state.")));
  });
  VIRGA_CHECK(check_config(given, source.type, false));
  for (const auto& [key, value] : source.config)
    if (!key.starts_with("volatile.")) given.emplace(key, value);
  for (const auto& [key, value] : asked)
    if (key.starts_with("image.")) given[key] = value;
  std::erase_if(given, [](const auto& e) { return e.second.empty(); });
  if (auto image = value_of(source.config, "volatile.base_image"); !image.empty()) given["volatile.base_image"] = image;
  return given;
}

}  // namespace

Result<Instance> Instances::Impl::copied(const Instance& source, const CreateInstance& request) const {
  const auto& from = *request.copy;
  if (from.type && *from.type != source.type)
    return invalid("type", fmt::format("instance '{}' is a {}: a copy is of the same type", source.name, to_string(source.type)));
  Instance out;
  out.project = request.project;
  out.name = request.name;
  out.uuid = random_uuid();
  out.type = source.type;
  out.architecture = source.architecture;
  out.description = request.description;
  out.ephemeral = request.ephemeral;
  out.created_at = parts.clock.now();
  out.profiles = request.profiles.value_or(source.profiles);
  out.devices = request.devices;
  for (const auto& [name, device] : source.devices) out.devices.emplace(name, device);
  out.image = source.image;
  VIRGA_CHECK(check_instance_name(out.name));
  VIRGA_TRY(out.config, copied_config(source, request.config));
  out.config["volatile.uuid"] = out.uuid;
  out.config["volatile.last_state.power"] = "STOPPED";
  // One that was just made is still to get the templates of its creation.
  out.config["volatile.apply_template"] = value_of(source.config, "volatile.apply_template") == "create" ? "create" : "copy";
  VIRGA_TRY(auto profiles, profiles_of(out));
  expand(out, profiles);
  VIRGA_CHECK(check(out));
  VIRGA_TRY(auto root, root_disk(out.expanded_devices));
  out.pool = root.second.at("pool");
  VIRGA_TRY(auto* storage, storage_at(out.pool, "devices." + root.first + ".pool"));
  if (storage->copies() == nullptr)
    return fail(ErrorKind::unsupported, fmt::format("storage pool '{}' cannot make copies of instances", out.pool));
  VIRGA_CHECK(volume_spec(out));
  VIRGA_CHECK(check_networks(out));
  return out;
}

/// What a copy is like: the source, or what it was when the snapshot was taken.
Result<Instances::Ptr> Instances::Impl::copy_model(const Instance& source, const CopySource& from) const {
  if (from.snapshot.empty()) return std::make_shared<const Instance>(source);
  VIRGA_TRY(const auto snapshot, snapshot_of(source, from.snapshot));
  Instance out = snapshot->instance;
  out.image = source.image;
  return std::make_shared<const Instance>(std::move(out));
}

Result<storage::Driver*> Instances::Impl::storage_at(const std::string& pool, std::string field) const {
  if (!parts.pools.find(pool))
    return fail(Error(ErrorKind::not_found, fmt::format("storage pool '{}' not found", pool)).with_field(std::move(field)));
  return parts.pools.driver(pool);
}

/// The steps around the data: the source stands still from before the first byte is read until after the last.
void Instances::Impl::add_copy_steps(Procedure& p, std::shared_ptr<const Copying> work) {
  auto resume = [this, work]() -> Task<Result<>> {
    const auto& source = *work->source;
    if (!work->pause || live_status(source) != InstanceStatus::frozen) co_return Result<>{};
    VIRGA_CO_CHECK(co_await driver(source.type).resume(source.uuid));
    set_status(source.project, source.name, live_status(source));
    co_return Result<>{};
  };
  auto pause = [this, work]() -> Task<Result<>> {
    if (!work->pause) co_return Result<>{};
    co_return co_await driver(work->source->type).pause(work->source->uuid);
  };
  auto copy = [this, work]() -> Task<Result<>> {
    const auto& source = *work->source;
    const auto& target = *work->target;
    VIRGA_CO_TRY(auto* from, storage_of(source));
    VIRGA_CO_TRY(auto* to, storage_of(target));
    VIRGA_CO_TRY(auto spec, volume_spec(target));
    const auto shift = id_shift(target);
    storage::CopySource like{
        .driver = from, .id = volume_id(source), .snapshot = work->snapshot, .with_snapshots = work->with_snapshots};
    if (!work->over) co_return co_await to->copies()->copy(std::move(spec), std::move(like), shift, work->control);
    end_file_sessions(target.uuid);
    VIRGA_CO_CHECK(co_await to->detach(volume_id(target)));
    co_return co_await to->copies()->refresh(std::move(spec), std::move(like), shift, work->control);
  };
  auto remove = [this, work]() -> Task<Result<>> {
    if (work->over) co_return Result<>{};  // what is there is whole, the old or the new
    co_return co_await remove_root(work->target);
  };
  p.steps.push_back({"pause", pause, resume});
  p.steps.push_back({"volume", copy, remove});
  p.steps.push_back({"resume", resume, {}});
}

Procedure Instances::Impl::copy_procedure(std::string id, std::shared_ptr<const Copying> work) {
  Procedure p;
  p.kind = "instance-copy";
  p.id = std::move(id);
  p.arguments = {{"source", work->source->uuid}, {"instance", encode(*work->target)}, {"pause", work->pause}};
  p.on_recovery = OnRecovery::undo;
  const auto target = work->target;
  auto templates = std::make_shared<Transaction>();
  p.steps.push_back({"metadata",
                     [this, work, templates]() -> Task<Result<>> {
                       *templates = {};
                       const auto& source = *work->source;
                       VIRGA_CO_TRY(auto document, co_await parts.store.get(metadata_key(source.uuid)));
                       if (document) templates->put(metadata_key(work->target->uuid), document->value);
                       if (!work->with_snapshots) co_return Result<>{};
                       co_return co_await put_copied_snapshots(source, *work->target, *templates);
                     },
                     {}});
  add_copy_steps(p, work);
  add_last_steps(p, target, templates);
  return p;
}

Procedure Instances::Impl::refresh_procedure(std::string id, std::shared_ptr<const Copying> work) {
  Procedure p;
  p.kind = "instance-refresh";
  p.id = std::move(id);
  p.arguments = {{"source", work->source->uuid}, {"target", work->target->uuid}, {"pause", work->pause}};
  p.on_recovery = OnRecovery::undo;
  auto snapshots = std::make_shared<Transaction>();
  p.steps.push_back({"metadata",
                     [this, work, snapshots]() -> Task<Result<>> {
                       *snapshots = {};
                       if (!work->with_snapshots) co_return Result<>{};
                       erase_snapshots(*work->target, *snapshots);
                       co_return co_await put_copied_snapshots(*work->source, *work->target, *snapshots);
                     },
                     {}});
  add_copy_steps(p, work);
  p.outcome = [target = work->target, snapshots]() -> Result<Transaction> {
    Transaction t = *snapshots;
    t.put(document_key(target->project, target->name), json::serialize(encode(*target)));
    return t;
  };
  return p;
}

void Instances::Impl::register_copies() {
  auto source_of = [this](const Fields& fields) -> Result<Ptr> {
    VIRGA_TRY(auto uuid, fields.string("source"));
    auto key = by_uuid.find(uuid);
    // Deleted since: an instance that is nowhere has nothing to be resumed.
    if (key == by_uuid.end()) return Ptr(std::make_shared<const Instance>());
    return get(key->second.first, key->second.second);
  };
  auto work_of = [source_of](const Fields& fields) -> Result<std::shared_ptr<Copying>> {
    auto work = std::make_shared<Copying>();
    VIRGA_TRY(work->source, source_of(fields));
    VIRGA_TRY(work->pause, fields.boolean("pause"));
    work->control = std::make_shared<TransferControl>();
    return work;
  };
  parts.journal.register_kind("instance-copy", [this, work_of](std::string id, json::object arguments) -> Task<Result<Procedure>> {
    const Fields fields(arguments);
    VIRGA_CO_TRY(auto document, fields.object("instance"));
    VIRGA_CO_TRY(auto instance, decode_instance(document));
    if (all.count({instance.project, instance.name}) != 0) co_return Procedure{};
    VIRGA_CO_TRY(auto work, work_of(fields));
    work->target = std::make_shared<const Instance>(std::move(instance));
    co_return copy_procedure(std::move(id), work);
  });
  parts.journal.register_kind("instance-refresh",
                              [this, work_of](std::string id, json::object arguments) -> Task<Result<Procedure>> {
                                const Fields fields(arguments);
                                VIRGA_CO_TRY(auto work, work_of(fields));
                                work->over = true;
                                work->target = work->source;  // nothing of it is undone
                                co_return refresh_procedure(std::move(id), work);
                              });
}

Task<> Instances::Impl::show_transfer(Operation& operation, std::string what, std::shared_ptr<TransferControl> control) {
  for (;;) {
    if (operation.cancel_requested() || parts.operations.stopping()) control->stop = true;
    operation.set_progress("fs_progress", json::string(fmt::format("{}: {}", what, format_bytes(control->bytes))));
    if (!co_await sleep_for(Milliseconds(200))) co_return;
  }
}

Task<Result<>> Instances::Impl::run_copy(Operation& operation, Procedure procedure, std::shared_ptr<const Copying> work) {
  TaskGroup watcher(executor);
  watcher.spawn("progress of a copy", show_transfer(operation, work->target->name, work->control));
  auto done = co_await parts.journal.execute(std::move(procedure));
  watcher.cancel();
  co_await shield();
  co_await watcher.join();
  co_return done;
}

Task<Result<>> Instances::Impl::copy(Operation& operation, CreateInstance request, Caller caller) {
  const auto& from = *request.copy;
  VIRGA_CO_TRY(auto source, get(from.project, from.name));
  VIRGA_CO_TRY(const auto model, copy_model(*source, from));
  VIRGA_CO_TRY(auto instance, copied(*model, request));
  auto make = [&](Ptr target, Transaction held) -> Task<Result<>> {
    auto work = std::make_shared<Copying>();
    work->source = source;
    work->target = std::move(target);
    work->snapshot = from.snapshot;
    work->with_snapshots = from.snapshot.empty() && !from.instance_only && !snapshots_of(source->uuid).empty();
    work->pause = from.snapshot.empty() && live_status(*source) == InstanceStatus::running;
    work->control = std::make_shared<TransferControl>();
    auto procedure = copy_procedure(operation.id(), work);
    procedure.intent = std::move(held);
    co_return co_await run_copy(operation, std::move(procedure), work);
  };
  co_return co_await admit(std::move(instance), std::move(caller), fmt::format("copy instance '{}'", source->name), make);
}

Task<Result<>> Instances::Impl::refresh(Operation& operation, CreateInstance request, Caller caller) {
  const auto& from = *request.copy;
  VIRGA_CO_TRY(auto source, get(from.project, from.name));
  VIRGA_CO_TRY(auto before, get(request.project, request.name));
  if (before->status != InstanceStatus::stopped)
    co_return fail(ErrorKind::busy, fmt::format("instance '{}' has been started meanwhile", before->name));
  Instance changed = *before;
  changed.config["volatile.apply_template"] = "copy";
  changed.image = source->image;
  if (auto image = value_of(source->config, "volatile.base_image"); !image.empty()) changed.config["volatile.base_image"] = image;
  auto work = std::make_shared<Copying>();
  work->source = source;
  work->target = std::make_shared<const Instance>(changed);
  work->over = true;
  work->with_snapshots = !from.instance_only;
  work->pause = live_status(*source) == InstanceStatus::running;
  work->control = std::make_shared<TransferControl>();
  auto done = co_await run_copy(operation, refresh_procedure(operation.id(), work), work);
  if (!done) co_return fail(std::move(done).error().wrap(fmt::format("refresh instance '{}'", before->name)));
  auto snapshot = put(std::move(changed));
  lifecycle("instance-updated", *snapshot, caller);
  co_return Result<>{};
}

Result<OperationPtr> Instances::copy(const Caller& caller, CreateInstance request) {
  auto* self = impl_.get();
  const auto& from = *request.copy;
  auto source = self->get(from.project, from.name);
  if (!source) return fail(std::move(source).error().with_field("source.source"));
  VIRGA_CHECK(self->parts.projects.get(request.project));
  if (request.name.empty()) request.name = self->free_name(request.project);
  const auto target = find(request.project, request.name);
  const bool over = target != nullptr && from.refresh;
  if (over) {
    if (target == *source) return invalid("source.source", "an instance cannot be refreshed from itself");
    if (!from.snapshot.empty()) return invalid("source.source", "an instance cannot be refreshed from a snapshot");
    if (from.instance_only && !self->snapshots_of(target->uuid).empty())
      return fail(Error(ErrorKind::unsupported, fmt::format("instance '{}' has snapshots, which would be lost", target->name))
                      .with_field("source.instance_only")
                      .with_hint("refresh it with the snapshots of its source, or delete its own first"));
    if (target->type != (*source)->type)
      return invalid("source.source", fmt::format("instance '{}' is a {}, '{}' a {}", target->name, to_string(target->type),
                                                  (*source)->name, to_string((*source)->type)));
    if (target->status != InstanceStatus::stopped)
      return fail(
          Error(ErrorKind::invalid, fmt::format("instance '{}' is running: only a stopped one can be refreshed", target->name))
              .with_hint("stop the instance first"));
  } else {
    if (target) return fail(self->name_taken(request.name));
    // Once here, so that a wrong field is the answer to the request; once more with the names held.
    VIRGA_TRY(const auto model, self->copy_model(**source, from));
    VIRGA_TRY(auto trial, self->copied(*model, request));
    VIRGA_CHECK(self->parts.projects.policy().check(trial));
  }
  const auto source_url = instance_url(from.project, from.name);
  auto body = [self, caller, source_url, over, request](Operation& o) -> Task<Result<>> {
    o.set_may_cancel(true);  // what was done by then is undone
    // Copies of one source wait for each other.
    auto held = co_await self->parts.operations.claim_when_free(source_url, "being copied", patience);
    if (!held) co_return fail(std::move(held).error());
    auto done = over ? co_await self->refresh(o, request, caller) : co_await self->copy(o, request, caller);
    held->release();
    if (!done || !request.start) co_return done;
    co_return co_await self->start_created(o, request.project, request.name, caller);
  };
  return self->operate(caller, request.project, request.name, over ? "Refreshing instance" : "Creating instance", std::move(body));
}

}  // namespace virga::engine
