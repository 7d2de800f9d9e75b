// Taking, renaming and removing snapshots.
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <tuple>

#include "base/log.h"
#include "engine/events/events.h"
#include "engine/instances/impl.h"
#include "engine/instances/metadata_document.h"
#include "engine/projects/service.h"
#include "engine/templates/render.h"
#include "model/expiry.h"

namespace virga::engine {
namespace {

/// A guest whose disk is being noted waits at most so long, whatever becomes of us.
constexpr Milliseconds longest_hold{10'000};

std::string prefix_of(const std::string& uuid) {
  return fmt::format("/snapshots/{}/", uuid);
}
std::string key_of(const std::string& uuid, const std::string& name) {
  return prefix_of(uuid) + name;
}
std::string metadata_of(const std::string& uuid, const std::string& name) {
  return fmt::format("{}/{}", metadata_key(uuid), name);
}

std::string option(const Config& config, const char* key) {
  const auto it = config.find(key);
  return it == config.end() ? std::string() : it->second;
}

Result<std::string> rendered(const std::string& pattern, WallTime now) {
  templates::Context context;
  context.variables["creation_date"] = format_time(std::chrono::floor<std::chrono::seconds>(now));
  auto text = templates::render(pattern, context, {.steps = 10'000, .output = 1000, .source = 4096, .depth = 10});
  if (!text) return fail(std::move(text).error().with_field("config.snapshots.pattern").wrap("the pattern of snapshot names"));
  return text;
}

Result<WallTime> expiry(const Config& config, bool scheduled, WallTime now) {
  const auto manual = option(config, "snapshots.expiry.manual");
  const auto text = scheduled || manual.empty() ? option(config, "snapshots.expiry") : manual;
  if (text.empty()) return WallTime{};
  return parse_expiry(text, now);
}

}  // namespace

std::vector<Instances::SnapshotPtr> Instances::Impl::snapshots_of(const std::string& uuid) const {
  auto out = snapshot_documents.list(prefix_of(uuid));
  std::sort(out.begin(), out.end(),
            [](const auto& a, const auto& b) { return std::tie(a->created_at, a->name) < std::tie(b->created_at, b->name); });
  return out;
}

Result<Instances::SnapshotPtr> Instances::Impl::snapshot_of(const Instance& instance, const std::string& name) const {
  auto found = snapshot_documents.find(key_of(instance.uuid, name));
  if (!found) return fail(ErrorKind::not_found, fmt::format("instance '{}' has no snapshot '{}'", instance.name, name));
  return found;
}

std::vector<Instances::SnapshotPtr> Instances::snapshots(const Instance& instance) const {
  return impl_->snapshots_of(instance.uuid);
}
Result<Instances::SnapshotPtr> Instances::snapshot(const Instance& instance, const std::string& name) const {
  return impl_->snapshot_of(instance, name);
}

Result<storage::SnapshotOps*> Instances::Impl::snapshot_ops(const Instance& instance) const {
  VIRGA_TRY(auto* storage, storage_of(instance));
  if (auto* ops = storage->snapshots()) return ops;
  return fail(ErrorKind::unsupported, fmt::format("storage pool '{}' cannot keep snapshots", instance.pool));
}

void Instances::Impl::erase_snapshots(const Instance& instance, Transaction& t) const {
  for (const auto& s : snapshot_documents.list(prefix_of(instance.uuid))) {
    t.erase(key_of(instance.uuid, s->name));
    t.erase(metadata_of(instance.uuid, s->name));
  }
}

Task<Result<>> Instances::Impl::put_copied_snapshots(const Instance& from, const Instance& to, Transaction& t) {
  for (const auto& s : snapshots_of(from.uuid)) {
    InstanceSnapshot copy = *s;
    auto& i = copy.instance;
    i.project = to.project;
    i.name = to.name;
    i.uuid = to.uuid;
    i.pool = to.pool;
    i.id_base = to.id_base;
    t.put(key_of(to.uuid, copy.name), json::serialize(encode(copy)));
    VIRGA_CO_TRY(auto metadata, co_await parts.store.get(metadata_of(from.uuid, copy.name)));
    if (metadata) t.put(metadata_of(to.uuid, copy.name), metadata->value);
  }
  co_return Result<>{};
}

void Instances::Impl::snapshot_lifecycle(const std::string& action, const Instance& instance, const std::string& snapshot,
                                         const Caller& caller, json::object context) {
  parts.events.lifecycle(action, instance.project, snapshot_url(instance.project, instance.name, snapshot), caller,
                         std::move(context));
}

// --- guests that run: their file systems are whole in the snapshot, or at least as after a power cut

Task<Result<>> Instances::Impl::hold_guest(Ptr instance) {
  auto& compute = driver(instance->type);
  if (instance->type == InstanceType::container) co_return co_await compute.pause(instance->uuid);
  auto* freezing = compute.freezing();
  auto held = freezing == nullptr ? Result<>(fail(ErrorKind::unsupported, "it has no such means"))
                                  : co_await freezing->freeze_files(instance->uuid, longest_hold);
  if (!held) log::info("instance '{}': the snapshot is taken without its agent: {}", instance->name, held.error().text());
  co_return Result<>{};
}

Task<Result<>> Instances::Impl::release_guest(Ptr instance) {
  auto& compute = driver(instance->type);
  if (live_status(*instance) == InstanceStatus::stopped) co_return Result<>{};
  if (instance->type == InstanceType::container) co_return co_await compute.resume(instance->uuid);
  if (auto* freezing = compute.freezing())
    if (auto thawed = co_await freezing->thaw_files(instance->uuid); !thawed)
      log::warn("instance '{}': its file systems go on by themselves in a moment: {}", instance->name, thawed.error().text());
  co_return Result<>{};
}

Procedure Instances::Impl::snapshot_procedure(std::string id, Ptr instance, std::shared_ptr<InstanceSnapshot> snapshot, bool runs) {
  Procedure p;
  p.kind = "instance-snapshot";
  p.id = std::move(id);
  p.arguments = {{"uuid", instance->uuid}, {"snapshot", encode(*snapshot)}, {"runs", runs}};
  p.on_recovery = OnRecovery::undo;
  p.intent.expect(key_of(instance->uuid, snapshot->name), 0);
  auto release = [this, instance] { return release_guest(instance); };
  if (runs) p.steps.push_back({"hold", [this, instance] { return hold_guest(instance); }, release});
  p.steps.push_back({"volume",
                     [this, instance, snapshot]() -> Task<Result<>> {
                       VIRGA_CO_TRY(auto* ops, snapshot_ops(*instance));
                       co_return co_await ops->create(volume_id(*instance), snapshot->name);
                     },
                     [this, instance, snapshot]() -> Task<Result<>> {
                       VIRGA_CO_TRY(auto* ops, snapshot_ops(*instance));
                       co_return co_await ops->remove(volume_id(*instance), snapshot->name);
                     }});
  if (instance->type == InstanceType::virtual_machine)
    p.steps.push_back({"layer",
                       [this, instance]() -> Task<Result<>> {
                         auto& compute = driver(instance->type);
                         if (live_status(*instance) == InstanceStatus::stopped || compute.disks() == nullptr) co_return Result<>{};
                         VIRGA_CO_TRY(auto* storage, storage_of(*instance));
                         VIRGA_CO_TRY(auto attached, co_await storage->attach(volume_id(*instance), {}));
                         co_return co_await compute.disks()->add_layer(
                             instance->uuid, 0, {.device = {}, .path = attached.path, .backing = attached.backing});
                       },
                       {}});
  // Its undo is the first of all: no guest waits while data is taken back.
  if (runs) p.steps.push_back({"release", release, release});
  auto metadata = std::make_shared<std::optional<Document>>();
  p.steps.push_back({"size",
                     [this, instance, snapshot, metadata]() -> Task<Result<>> {
                       VIRGA_CO_TRY(*metadata, co_await parts.store.get(metadata_key(instance->uuid)));
                       VIRGA_CO_TRY(auto* ops, snapshot_ops(*instance));
                       if (auto usage = co_await ops->usage(volume_id(*instance), snapshot->name)) snapshot->size = usage->used;
                       co_return Result<>{};
                     },
                     {}});
  p.outcome = [instance, snapshot, metadata]() -> Result<Transaction> {
    Transaction t;
    t.put(key_of(instance->uuid, snapshot->name), json::serialize(encode(*snapshot)));
    if (*metadata) t.put(metadata_of(instance->uuid, snapshot->name), (*metadata)->value);
    return t;
  };
  return p;
}

Result<InstanceSnapshot> Instances::Impl::planned_snapshot(const Instance& instance, const CreateSnapshot& request,
                                                           bool scheduled) const {
  if (request.stateful)
    return fail(
        Error(ErrorKind::unsupported, "stateful snapshots, with the guest's memory, are not supported yet").with_field("stateful"));
  VIRGA_CHECK(parts.projects.policy().check_snapshot(instance.project));
  VIRGA_CHECK(snapshot_ops(instance));
  InstanceSnapshot out;
  out.created_at = parts.clock.now();
  out.name = request.name;
  if (out.name.empty()) {
    std::vector<std::string> taken;
    for (const auto& s : snapshots_of(instance.uuid)) taken.push_back(s->name);
    const auto pattern = option(instance.expanded_config, "snapshots.pattern");
    VIRGA_TRY(const auto text, rendered(pattern.empty() ? "snap%d" : pattern, out.created_at));
    VIRGA_TRY(out.name, next_snapshot_name(text, taken));
  }
  VIRGA_CHECK(check_snapshot_name(out.name));
  if (snapshot_documents.find(key_of(instance.uuid, out.name)))
    return fail(Error(ErrorKind::exists, fmt::format("instance '{}' has a snapshot '{}' already", instance.name, out.name))
                    .with_field("name"));
  if (request.expires_at) {
    out.expires_at = *request.expires_at;
    if (out.expires_at != WallTime{} && out.expires_at <= out.created_at)
      return invalid("expires_at", "the snapshot would have expired already");
  } else {
    VIRGA_TRY(out.expires_at, expiry(instance.expanded_config, scheduled, out.created_at));
  }
  out.instance = instance;
  return out;
}

Result<OperationPtr> Instances::Impl::start_snapshot(const Caller& caller, const std::string& project, const std::string& name,
                                                     CreateSnapshot request, bool scheduled) {
  VIRGA_TRY(auto instance, get(project, name));
  // Once here, so that a wrong field is the answer to the request; once more with the instance held.
  VIRGA_CHECK(planned_snapshot(*instance, request, scheduled));
  return operate(caller, project, name, "Snapshotting instance", [this, project, name, request, caller, scheduled](Operation& o) {
    return take_snapshot(o, project, name, request, caller, scheduled);
  });
}

Result<OperationPtr> Instances::create_snapshot(const Caller& caller, const std::string& project, const std::string& name,
                                                CreateSnapshot request) {
  return impl_->start_snapshot(caller, project, name, std::move(request), false);
}

Task<Result<>> Instances::Impl::take_snapshot(Operation& operation, std::string project, std::string name, CreateSnapshot request,
                                              Caller caller, bool scheduled) {
  VIRGA_CO_TRY(auto instance, get(project, name));
  VIRGA_CO_TRY(auto planned, planned_snapshot(*instance, request, scheduled));
  auto snapshot = std::make_shared<InstanceSnapshot>(std::move(planned));
  // One that its user has paused is held already.
  const bool runs = live_status(*instance) == InstanceStatus::running;
  auto done = co_await parts.journal.execute(snapshot_procedure(operation.id(), instance, snapshot, runs));
  if (!done) co_return fail(std::move(done).error().wrap(fmt::format("take a snapshot of instance '{}'", name)));
  due.notify();
  snapshot_lifecycle("instance-snapshot-created", *instance, snapshot->name, caller);
  co_return Result<>{};
}

// --- removing

Procedure Instances::Impl::remove_snapshot_procedure(std::string id, Ptr instance, std::string snapshot) {
  Procedure p;
  p.kind = "instance-snapshot-delete";
  p.id = std::move(id);
  p.arguments = {{"uuid", instance->uuid}, {"snapshot", snapshot}};
  p.on_recovery = OnRecovery::finish;
  p.steps.push_back({"volume",
                     [this, instance, snapshot]() -> Task<Result<>> {
                       VIRGA_CO_TRY(auto* ops, snapshot_ops(*instance));
                       co_return co_await ops->remove(volume_id(*instance), snapshot);
                     },
                     {}});
  p.outcome = [instance, snapshot]() -> Result<Transaction> {
    Transaction t;
    t.erase(key_of(instance->uuid, snapshot));
    t.erase(metadata_of(instance->uuid, snapshot));
    return t;
  };
  return p;
}

Task<Result<>> Instances::Impl::remove_snapshot(std::string operation_id, Ptr instance, std::string snapshot, Caller caller) {
  co_await shield();  // half a delete helps nobody
  auto done = co_await parts.journal.execute(remove_snapshot_procedure(std::move(operation_id), instance, snapshot));
  if (!done) co_return fail(std::move(done).error().wrap(fmt::format("delete snapshot '{}'", snapshot)));
  snapshot_lifecycle("instance-snapshot-deleted", *instance, snapshot, caller);
  co_await merge_layers(instance);
  co_return Result<>{};
}

Task<> Instances::Impl::merge_layers(Ptr instance) {
  auto ops = snapshot_ops(*instance);
  auto storage = storage_of(*instance);
  if (!ops || !storage) co_return;
  const auto id = volume_id(*instance);
  auto& compute = driver(instance->type);
  for (;;) {
    auto merge = co_await (*ops)->next_merge(id);
    if (merge && !*merge) co_return;
    auto done = merge ? Result<>() : Result<>(fail(merge.error()));
    if (done && live_status(*instance) == InstanceStatus::stopped) {
      done = co_await (*ops)->merge(id, **merge);
    } else if (done) {
      auto attached = co_await (*storage)->attach(id, {});
      if (!attached || compute.disks() == nullptr) co_return;
      compute::Disk disk{.device = {}, .path = attached->path, .backing = attached->backing};
      done = co_await compute.disks()->merge_layers(instance->uuid, 0, std::move(disk), (*merge)->upper, (*merge)->lower);
      // The layer that the guest writes to is merged when it has stopped, or has got another one.
      if (!done && done.error().kind() == ErrorKind::unsupported) co_return;
      if (done) done = co_await (*ops)->merged(id, **merge);
    }
    if (!done) {
      log::warn("instance '{}': space of removed snapshots is not given back yet: {}", instance->name, done.error().text());
      co_return;
    }
  }
}

Result<OperationPtr> Instances::remove_snapshot(const Caller& caller, const std::string& project, const std::string& name,
                                                const std::string& snapshot) {
  auto* self = impl_.get();
  VIRGA_TRY(auto instance, self->get(project, name));
  VIRGA_CHECK(self->snapshot_of(*instance, snapshot));
  return self->operate(caller, project, name, "Deleting snapshot",
                       [self, project, name, snapshot, caller](Operation& o) -> Task<Result<>> {
                         VIRGA_CO_TRY(auto current, self->get(project, name));
                         VIRGA_CO_CHECK(self->snapshot_of(*current, snapshot));
                         co_return co_await self->remove_snapshot(o.id(), current, snapshot, caller);
                       });
}

// --- renaming, and when it expires

Procedure Instances::Impl::rename_snapshot_procedure(std::string id, Ptr instance, std::string from, std::string to) {
  Procedure p;
  p.kind = "instance-snapshot-rename";
  p.id = std::move(id);
  p.arguments = {{"uuid", instance->uuid}, {"from", from}, {"to", to}};
  p.on_recovery = OnRecovery::finish;
  auto rename = [this, instance](std::string old_name, std::string new_name) -> Task<Result<>> {
    VIRGA_CO_TRY(auto* ops, snapshot_ops(*instance));
    co_return co_await ops->rename(volume_id(*instance), std::move(old_name), std::move(new_name));
  };
  auto metadata = std::make_shared<std::optional<Document>>();
  p.steps.push_back({"metadata",
                     [this, instance, from, metadata]() -> Task<Result<>> {
                       VIRGA_CO_TRY(*metadata, co_await parts.store.get(metadata_of(instance->uuid, from)));
                       co_return Result<>{};
                     },
                     {}});
  p.steps.push_back({"volume", [=] { return rename(from, to); }, [=] { return rename(to, from); }});
  p.outcome = [this, instance, from, to, metadata]() -> Result<Transaction> {
    VIRGA_TRY(auto snapshot, snapshot_of(*instance, from));
    auto renamed = *snapshot;
    renamed.name = to;
    Transaction t;
    t.expect(key_of(instance->uuid, to), 0);
    t.erase(key_of(instance->uuid, from)).put(key_of(instance->uuid, to), json::serialize(encode(renamed)));
    if (*metadata) t.erase(metadata_of(instance->uuid, from)).put(metadata_of(instance->uuid, to), (*metadata)->value);
    return t;
  };
  return p;
}

Result<OperationPtr> Instances::rename_snapshot(const Caller& caller, const std::string& project, const std::string& name,
                                                const std::string& snapshot, const std::string& new_name) {
  auto* self = impl_.get();
  VIRGA_TRY(auto instance, self->get(project, name));
  VIRGA_CHECK(self->snapshot_of(*instance, snapshot));
  VIRGA_CHECK(check_snapshot_name(new_name));
  auto free = [self, snapshot, new_name](const Instance& i) -> Result<> {
    VIRGA_CHECK(self->snapshot_of(i, snapshot));
    if (self->snapshot_documents.find(key_of(i.uuid, new_name)))
      return fail(
          Error(ErrorKind::exists, fmt::format("instance '{}' has a snapshot '{}' already", i.name, new_name)).with_field("name"));
    return {};
  };
  VIRGA_CHECK(free(*instance));
  return self->operate(
      caller, project, name, "Renaming snapshot",
      [self, project, name, snapshot, new_name, caller, free](Operation& o) -> Task<Result<>> {
        VIRGA_CO_TRY(auto current, self->get(project, name));
        VIRGA_CO_CHECK(free(*current));
        auto done = co_await self->parts.journal.execute(self->rename_snapshot_procedure(o.id(), current, snapshot, new_name));
        if (!done) co_return fail(std::move(done).error().wrap(fmt::format("rename snapshot '{}'", snapshot)));
        self->snapshot_lifecycle("instance-snapshot-renamed", *current, new_name, caller, {{"old_name", snapshot}});
        co_return Result<>{};
      });
}

Result<OperationPtr> Instances::update_snapshot(const Caller& caller, const std::string& project, const std::string& name,
                                                const std::string& snapshot, WallTime expires_at,
                                                std::optional<std::int64_t> expected) {
  auto* self = impl_.get();
  VIRGA_TRY(auto instance, self->get(project, name));
  VIRGA_TRY(auto before, self->snapshot_of(*instance, snapshot));
  if (expected && *expected != before->revision)
    return fail(ErrorKind::conflict, fmt::format("snapshot '{}' has changed meanwhile", snapshot));
  return self->operate(caller, project, name, "Updating snapshot",
                       [self, project, name, snapshot, caller, expires_at](Operation&) -> Task<Result<>> {
                         VIRGA_CO_TRY(auto current, self->get(project, name));
                         VIRGA_CO_TRY(auto found, self->snapshot_of(*current, snapshot));
                         auto changed = *found;
                         changed.expires_at = expires_at;
                         Transaction t;
                         t.expect(key_of(current->uuid, snapshot), found->revision);
                         t.put(key_of(current->uuid, snapshot), json::serialize(encode(changed)));
                         VIRGA_CO_CHECK(co_await self->parts.store.commit(std::move(t)));
                         self->due.notify();
                         self->snapshot_lifecycle("instance-snapshot-updated", *current, snapshot, caller);
                         co_return Result<>{};
                       });
}

}  // namespace virga::engine
