// Backups: made of a stopped instance's root as it lies there, of a running one's by way of a copy, for which it is paused as long
// as that takes. The files are STATE/backups/instances/UUID/NAME.
#include <fmt/format.h>

#include <algorithm>
#include <filesystem>

#include "base/log.h"
#include "base/transfer.h"
#include "drivers/image/packer.h"
#include "engine/events/events.h"
#include "engine/images/service.h"
#include "engine/instances/backup_document.h"
#include "engine/instances/backups.h"
#include "engine/instances/copying.h"
#include "engine/instances/impl.h"
#include "engine/instances/metadata_document.h"
#include "engine/pools/service.h"
#include "engine/projects/service.h"
#include "model/name.h"

namespace virga::engine {

namespace fs = std::filesystem;

/// One backup being made.
struct BackingUp {
  Instances::Ptr instance;
  Backup backup;
  image::PackRequest request;
  std::function<void(Bytes)> progress;
  Copying copying;  ///< of one that runs: to a volume of its own, which goes again
  Claim claim;      ///< the instance, until its data is not needed any more
};

namespace {

constexpr Milliseconds patience{600'000};  ///< while something else holds the instance

std::string backup_key(const std::string& uuid, const std::string& name) {
  return fmt::format("/backups/{}/{}", uuid, name);
}

std::string backup_url(const Instance& i, const std::string& name) {
  return url({"instances", i.name, "backups", name}, i.project);
}

Result<> check_expiry(std::optional<WallTime> at, WallTime now) {
  if (at && *at != WallTime{} && *at <= now) return invalid("expires_at", "field 'expires_at' lies in the past");
  return {};
}

tl::unexpected<Error> no_backup(const Instance& i, const std::string& name) {
  return fail(ErrorKind::not_found, fmt::format("instance '{}' has no backup '{}'", i.name, name));
}

Result<> remove_file(const std::string& path) {
  std::error_code ec;
  fs::remove(path, ec);
  if (ec) return fail(ErrorKind::unavailable, fmt::format("remove '{}': {}", path, ec.message()));
  return {};
}

Result<> rename_file(const std::string& from, const std::string& to) {
  std::error_code ec;
  if (!fs::exists(from) && fs::exists(to)) return {};
  fs::rename(from, to, ec);
  if (ec) return fail(ErrorKind::unavailable, fmt::format("rename '{}': {}", from, ec.message()));
  return {};
}

}  // namespace

json::object encode(const Backup& b) {
  return {{"name", b.name},
          {"created_at", format_time(b.created_at)},
          {"expires_at", format_time(b.expires_at)},
          {"instance_only", b.instance_only}};
}

Result<Backup> decode_backup(const json::object& document) {
  const Fields f(document);
  Backup b;
  VIRGA_TRY(b.name, f.string("name"));
  VIRGA_CHECK(check_object_name("backup", b.name));
  VIRGA_TRY(const auto created, f.string("created_at"));
  VIRGA_TRY(b.created_at, parse_time(created));
  VIRGA_TRY(const auto expires, f.string("expires_at"));
  VIRGA_TRY(b.expires_at, parse_time(expires));
  VIRGA_TRY(b.instance_only, f.boolean("instance_only"));
  return b;
}

std::string Instances::Impl::backup_directory(const std::string& uuid) const {
  return fmt::format("{}/backups/instances/{}", parts.state_dir, uuid);
}

// --- reads

Result<std::vector<Backup>> Instances::backups(const std::string& project, const std::string& name) const {
  VIRGA_TRY(const auto instance, impl_->get(project, name));
  std::vector<Backup> out;
  if (auto found = impl_->backups.find(instance->uuid); found != impl_->backups.end())
    for (const auto& [key, backup] : found->second) out.push_back(backup);
  return out;
}

Result<Backup> Instances::backup(const std::string& project, const std::string& name, const std::string& backup) const {
  VIRGA_TRY(const auto instance, impl_->get(project, name));
  const auto* found = impl_->find_backup(*instance, backup);
  if (found == nullptr) return no_backup(*instance, backup);
  return *found;
}

Result<std::string> Instances::backup_file(const std::string& project, const std::string& name, const std::string& backup) const {
  VIRGA_CHECK(this->backup(project, name, backup));
  VIRGA_TRY(const auto instance, impl_->get(project, name));
  return impl_->backup_directory(instance->uuid) + "/" + backup;
}

const Backup* Instances::Impl::find_backup(const Instance& instance, const std::string& name) const {
  auto of = backups.find(instance.uuid);
  if (of == backups.end()) return nullptr;
  auto found = of->second.find(name);
  return found == of->second.end() ? nullptr : &found->second;
}

// --- making one

Result<> Instances::Impl::check_without_snapshots(const Instance& instance, bool instance_only) const {
  if (instance_only || snapshots_of(instance.uuid).empty()) return {};
  return fail(
      Error(ErrorKind::unsupported, fmt::format("instance '{}' has snapshots, which cannot be in a backup yet", instance.name))
          .with_field("instance_only")
          .with_hint("leave them out: --instance-only"));
}

Procedure Instances::Impl::backup_procedure(std::string id, std::shared_ptr<BackingUp> work) {
  const auto instance = work->instance;
  const auto name = work->backup.name;
  const auto directory = backup_directory(instance->uuid);
  Procedure p;
  p.kind = "instance-backup";
  p.id = std::move(id);
  p.arguments = {{"uuid", instance->uuid},
                 {"name", name},
                 {"pause", work->copying.pause},
                 {"copy", work->copying.target ? encode(*work->copying.target) : json::object()}};
  p.on_recovery = OnRecovery::undo;
  p.intent.expect(backup_key(instance->uuid, name), 0);
  if (work->copying.target) {
    const std::shared_ptr<const Copying> copying(work, &work->copying);
    add_copy_steps(p, copying);
    p.steps.push_back({"let-go",
                       [work]() -> Task<Result<>> {
                         work->claim.release();
                         co_return Result<>{};
                       },
                       {}});
  }
  const auto from = work->copying.target ? work->copying.target : instance;
  auto detach = [this, from, own = !work->copying.target]() -> Task<Result<>> {
    if (own && live_status(*from) != InstanceStatus::stopped) co_return Result<>{};  // recovery: it was started since
    co_return co_await detach_root(from);
  };
  auto pack = [this, work, from]() -> Task<Result<>> {
    VIRGA_CO_CHECK(make_private_directory(backup_directory(work->instance->uuid)));
    end_file_sessions(from->uuid);  // what they write would be half in it
    VIRGA_CO_TRY(auto* storage, storage_of(*from));
    auto attached = co_await storage->attach(volume_id(*from), id_shift(*from));
    if (!attached) co_return fail(std::move(attached).error().wrap("attach the root volume"));
    co_return co_await pack_root(from, std::move(*attached), work->request, work->progress, "backed up");
  };
  auto discard = [detach, directory, name]() -> Task<Result<>> {
    VIRGA_CO_CHECK(co_await detach());
    VIRGA_CO_CHECK(remove_file(directory + "/.new-" + name));
    co_return remove_file(directory + "/.disk-" + name);
  };
  p.steps.push_back({"pack", pack, discard});
  p.steps.push_back({"detach", detach, {}});
  if (work->copying.target) p.steps.push_back({"remove-copy", [this, from] { return remove_root(from); }, {}});
  p.steps.push_back({"keep",
                     [directory, name]() -> Task<Result<>> {
                       VIRGA_CO_CHECK(remove_file(directory + "/.disk-" + name));
                       co_return rename_file(directory + "/.new-" + name, directory + "/" + name);
                     },
                     [directory, name]() -> Task<Result<>> { co_return remove_file(directory + "/" + name); }});
  p.outcome = [this, work]() -> Result<Transaction> {
    if (!by_uuid.contains(work->instance->uuid)) return fail(ErrorKind::not_found, "the instance was deleted meanwhile");
    Transaction t;
    t.put(backup_key(work->instance->uuid, work->backup.name), json::serialize(encode(work->backup)));
    return t;
  };
  return p;
}

Task<Result<>> Instances::Impl::back_up(Operation& operation, Ptr asked, CreateBackup request, Caller caller) {
  operation.set_may_cancel(true);
  auto claim = co_await parts.operations.claim_when_free(instance_url(asked->project, asked->name), "being backed up", patience);
  if (!claim) co_return fail(std::move(claim).error());
  VIRGA_CO_TRY(auto instance, get(asked->project, asked->name));
  if (find_backup(*instance, request.name) != nullptr)
    co_return fail(ErrorKind::exists, fmt::format("instance '{}' has a backup '{}' already", instance->name, request.name));
  auto work = std::make_shared<BackingUp>();
  work->instance = instance;
  work->claim = std::move(*claim);
  work->backup = {.name = request.name,
                  .created_at = parts.clock.now(),
                  .expires_at = request.expires_at.value_or(WallTime{}),
                  .instance_only = request.instance_only};
  const auto status = live_status(*instance);
  if (status != InstanceStatus::stopped) {
    auto& copying = work->copying;
    auto target = *instance;
    target.name = "virga-backup-" + operation.id().substr(0, 8);
    copying.source = instance;
    copying.target = std::make_shared<const Instance>(std::move(target));
    copying.pause = status == InstanceStatus::running;
    copying.control = std::make_shared<TransferControl>();
  }
  VIRGA_CO_TRY(auto profiles, profiles_of(*instance));
  const auto pool = parts.pools.find(instance->pool);
  if (!pool) co_return fail(ErrorKind::not_found, fmt::format("storage pool '{}' not found", instance->pool));
  image::BackupContent content;
  content.documents = backup_documents(*instance, *pool, profiles);
  VIRGA_CO_TRY(auto document, co_await parts.store.get(metadata_key(instance->uuid)));
  if (document) {
    VIRGA_CO_TRY(const auto object, parse_json_object(document->value));
    VIRGA_CO_TRY(auto metadata, decode_metadata(object));
    work->request.metadata = std::move(metadata.image);
    content.templates = std::move(metadata.files);
  }
  auto& packed = work->request;
  packed.metadata.architecture = instance->architecture;
  packed.metadata.creation_date =
      std::max<std::int64_t>(packed.metadata.creation_date, std::chrono::system_clock::to_time_t(work->backup.created_at));
  VIRGA_CO_TRY(packed.compression, image::parse_compression(request.compression));
  packed.into = backup_directory(instance->uuid) + "/.new-" + request.name;
  packed.scratch = backup_directory(instance->uuid) + "/.disk-" + request.name;
  packed.limits.max_unpacked = Bytes(1) << 44;
  packed.limits.timeout = std::chrono::hours(12);
  packed.backup = std::move(content);
  work->progress = [&operation](Bytes read) { operation.set_progress("create_backup_progress", json::string(format_bytes(read))); };
  auto done = co_await run_backup(operation, work);
  if (!done) co_return fail(std::move(done).error().wrap(fmt::format("back up instance '{}'", instance->name)));
  backups[instance->uuid][work->backup.name] = work->backup;
  prune_soon.notify();
  parts.events.lifecycle("instance-backup-created", instance->project, backup_url(*instance, work->backup.name), caller, {});
  co_return Result<>{};
}

Task<Result<>> Instances::Impl::run_backup(Operation& operation, std::shared_ptr<BackingUp> work) {
  auto procedure = backup_procedure(operation.id(), work);
  if (work->copying.target)
    co_return co_await run_copy(operation, std::move(procedure), std::shared_ptr<const Copying>(work, &work->copying));
  co_return co_await parts.journal.execute(std::move(procedure));
}

Result<OperationPtr> Instances::create_backup(const Caller& caller, const std::string& project, const std::string& name,
                                              CreateBackup request) {
  auto* self = impl_.get();
  VIRGA_TRY(auto instance, self->get(project, name));
  VIRGA_CHECK(self->parts.projects.policy().check_backup(project));
  for (int n = 0; request.name.empty(); ++n)
    if (auto free = fmt::format("backup{}", n);
        self->find_backup(*instance, free) == nullptr && !self->backups_asked.contains(free + instance->uuid))
      request.name = free;
  VIRGA_CHECK(check_object_name("backup", request.name));
  if (self->find_backup(*instance, request.name) != nullptr)
    return fail(
        Error(ErrorKind::exists, fmt::format("instance '{}' has a backup '{}' already", name, request.name)).with_field("name"));
  VIRGA_CHECK(check_expiry(request.expires_at, self->parts.clock.now()));
  if (request.compression.empty()) request.compression = self->parts.images.backup_compression();
  VIRGA_CHECK(image::parse_compression(request.compression));
  VIRGA_CHECK(self->check_without_snapshots(*instance, request.instance_only));
  VIRGA_CHECK(self->parts.images.packer());
  OperationSpec spec;
  spec.project = project;
  spec.description = "Backing up instance";
  spec.resources = {{"instances", {instance_url(project, name)}}, {"backups", {backup_url(*instance, request.name)}}};
  spec.caller = caller;
  // Two that are made at the same time get two names.
  self->backups_asked.insert(request.name + instance->uuid);
  auto body = [self, instance, request, caller](Operation& o) -> Task<Result<>> {
    auto done = co_await self->back_up(o, instance, request, caller);
    self->backups_asked.erase(request.name + instance->uuid);
    co_return done;
  };
  auto started = self->parts.operations.start(std::move(spec), std::move(body));
  if (!started) self->backups_asked.erase(request.name + instance->uuid);
  return started;
}

// --- renaming, deleting, expiring

Task<Result<>> Instances::Impl::forget_backup(Ptr instance, std::string name) {
  Transaction t;
  t.erase(backup_key(instance->uuid, name));
  VIRGA_CO_CHECK(co_await parts.store.commit(std::move(t)));
  if (auto of = backups.find(instance->uuid); of != backups.end()) of->second.erase(name);
  // Without its document the file is swept when the daemon starts, should this be the last that it does.
  co_return remove_file(backup_directory(instance->uuid) + "/" + name);
}

Result<OperationPtr> Instances::remove_backup(const Caller& caller, const std::string& project, const std::string& name,
                                              const std::string& backup) {
  VIRGA_CHECK(this->backup(project, name, backup));
  auto* self = impl_.get();
  VIRGA_TRY(auto instance, self->get(project, name));
  OperationSpec spec;
  spec.project = project;
  spec.description = "Deleting backup";
  spec.resources = {{"instances", {instance_url(project, name)}}, {"backups", {backup_url(*instance, backup)}}};
  spec.caller = caller;
  auto body = [self, instance, backup, caller](Operation&) -> Task<Result<>> {
    VIRGA_CO_CHECK(co_await self->forget_backup(instance, backup));
    self->parts.events.lifecycle("instance-backup-deleted", instance->project, backup_url(*instance, backup), caller, {});
    co_return Result<>{};
  };
  return self->parts.operations.start(std::move(spec), std::move(body));
}

Procedure Instances::Impl::backup_rename_procedure(std::string id, Ptr instance, Backup before, std::string name) {
  Procedure p;
  p.kind = "instance-backup-rename";
  p.id = std::move(id);
  p.arguments = {{"uuid", instance->uuid}, {"backup", encode(before)}, {"name", name}};
  p.on_recovery = OnRecovery::undo;
  const auto directory = backup_directory(instance->uuid);
  const auto old_path = directory + "/" + before.name, new_path = directory + "/" + name;
  p.intent.expect(backup_key(instance->uuid, name), 0);
  p.steps.push_back({"file", [=]() -> Task<Result<>> { co_return rename_file(old_path, new_path); },
                     [=]() -> Task<Result<>> { co_return rename_file(new_path, old_path); }});
  p.outcome = [uuid = instance->uuid, before, name]() -> Result<Transaction> {
    auto after = before;
    after.name = name;
    Transaction t;
    t.erase(backup_key(uuid, before.name));
    t.put(backup_key(uuid, name), json::serialize(encode(after)));
    return t;
  };
  return p;
}

Result<OperationPtr> Instances::rename_backup(const Caller& caller, const std::string& project, const std::string& name,
                                              const std::string& backup, const std::string& new_name) {
  VIRGA_TRY(const auto before, this->backup(project, name, backup));
  VIRGA_CHECK(check_object_name("backup", new_name));
  auto* self = impl_.get();
  VIRGA_TRY(auto instance, self->get(project, name));
  if (self->find_backup(*instance, new_name) != nullptr)
    return fail(
        Error(ErrorKind::exists, fmt::format("instance '{}' has a backup '{}' already", name, new_name)).with_field("name"));
  return self->operate(
      caller, project, name, "Renaming backup", [self, instance, before, new_name, caller](Operation& o) -> Task<Result<>> {
        auto done = co_await self->parts.journal.execute(self->backup_rename_procedure(o.id(), instance, before, new_name));
        if (!done) co_return done;
        auto& all = self->backups[instance->uuid];
        all.erase(before.name);
        all[new_name] = before;
        all[new_name].name = new_name;
        self->parts.events.lifecycle("instance-backup-renamed", instance->project, backup_url(*instance, new_name), caller,
                                     {{"old_name", before.name}});
        co_return Result<>{};
      });
}

/// All that have expired; returns when the next one does.
Task<WallTime> Instances::Impl::prune_backups() {
  const auto now = parts.clock.now();
  auto next = WallTime::max();
  std::vector<std::pair<Ptr, std::string>> expired;
  for (const auto& [uuid, of] : backups) {
    const auto key = by_uuid.find(uuid);
    if (key == by_uuid.end()) continue;
    for (const auto& [name, backup] : of) {
      if (backup.expires_at == WallTime{}) continue;
      if (backup.expires_at <= now) {
        expired.emplace_back(all.at(key->second), name);
      } else {
        next = std::min(next, backup.expires_at);
      }
    }
  }
  for (const auto& [instance, name] : expired) {
    log::info("instance '{}': backup '{}' has expired", instance->name, name);
    if (auto gone = co_await forget_backup(instance, name); !gone)
      log::warn("instance '{}': backup '{}': {}", instance->name, name, gone.error().text());
  }
  co_return next;
}

Task<> Instances::Impl::keep_pruning() {
  const std::weak_ptr<const bool> here = alive;
  for (;;) {
    const auto next = co_await prune_backups();
    if (next == WallTime::max()) {
      if (!co_await prune_soon.wait() || here.expired()) co_return;
      continue;
    }
    const auto rest =
        std::chrono::duration_cast<Milliseconds>(std::min(next - parts.clock.now(), WallTime::duration(std::chrono::hours(1))));
    // A clock that is set forward is seen within the hour, a backup that expires sooner at once.
    co_await prune_soon.wait_for(std::max(rest, Milliseconds(100)));
    if (here.expired() || co_await is_cancelled()) co_return;
  }
}

// --- life

Task<Result<>> Instances::Impl::load_backups() {
  VIRGA_CO_TRY(const auto documents, co_await parts.store.list("/backups/"));
  for (const auto& document : documents) {
    const auto slash = document.key.find('/', 9);
    auto object = parse_json_object(document.value);
    auto backup = object ? decode_backup(*object) : Result<Backup>(fail(object.error()));
    if (!backup || slash == std::string::npos) {
      log::error("document '{}' cannot be read{}", document.key, backup ? "" : ": " + backup.error().text());
      continue;
    }
    backups[document.key.substr(9, slash - 9)][backup->name] = *backup;
  }
  co_return Result<>{};
}

/// What was interrupted, and what belongs to nothing.
void Instances::Impl::sweep_backups() {
  const fs::directory_iterator end;
  std::error_code ec, ignored;
  for (fs::directory_iterator directory(parts.state_dir + "/backups/instances", ec); !ec && directory != end;
       directory.increment(ec)) {
    const auto known = backups.find(directory->path().filename().string());
    std::error_code inner;
    for (fs::directory_iterator file(directory->path(), inner); !inner && file != end; file.increment(inner))
      if (known == backups.end() || !known->second.contains(file->path().filename().string())) fs::remove(file->path(), ignored);
    if (known == backups.end()) fs::remove(directory->path(), ignored);
  }
}

Result<> Instances::Impl::remove_backups(const std::string& uuid) const {
  std::error_code ec;
  fs::remove_all(backup_directory(uuid), ec);
  if (ec) return fail(ErrorKind::unavailable, fmt::format("remove the backups: {}", ec.message()));
  return {};
}

void Instances::Impl::erase_backups(const std::string& uuid, Transaction& t) const {
  if (auto of = backups.find(uuid); of != backups.end())
    for (const auto& [name, backup] : of->second) t.erase(backup_key(uuid, name));
}

void Instances::Impl::register_backups() {
  parts.journal.register_kind("instance-backup", [this](std::string id, json::object arguments) -> Task<Result<Procedure>> {
    const Fields fields(arguments);
    auto work = std::make_shared<BackingUp>();
    VIRGA_CO_TRY(const auto uuid, fields.string("uuid"));
    VIRGA_CO_TRY(work->backup.name, fields.string("name"));
    VIRGA_CO_TRY(const auto copy, fields.object("copy"));
    if (!copy.empty()) {
      VIRGA_CO_TRY(auto target, decode_instance(copy));
      work->copying.target = std::make_shared<const Instance>(std::move(target));
      VIRGA_CO_TRY(work->copying.pause, fields.boolean("pause"));
    }
    work->copying.control = std::make_shared<TransferControl>();
    if (auto key = by_uuid.find(uuid); key != by_uuid.end()) {
      VIRGA_CO_TRY(work->instance, get(key->second.first, key->second.second));
    } else {  // deleted since: its copy is still to go
      Instance gone;
      gone.uuid = uuid;
      work->instance = std::make_shared<const Instance>(std::move(gone));
      if (!work->copying.target) co_return Procedure{};
    }
    work->copying.source = work->instance;
    co_return backup_procedure(std::move(id), work);
  });
  parts.journal.register_kind("instance-backup-rename", [this](std::string id, json::object arguments) -> Task<Result<Procedure>> {
    const Fields fields(arguments);
    VIRGA_CO_TRY(const auto uuid, fields.string("uuid"));
    VIRGA_CO_TRY(const auto document, fields.object("backup"));
    VIRGA_CO_TRY(auto before, decode_backup(document));
    VIRGA_CO_TRY(auto name, fields.string("name"));
    auto key = by_uuid.find(uuid);
    if (key == by_uuid.end()) co_return Procedure{};
    VIRGA_CO_TRY(auto instance, get(key->second.first, key->second.second));
    co_return backup_rename_procedure(std::move(id), instance, std::move(before), std::move(name));
  });
}

}  // namespace virga::engine
