// Instances made of backups. One document is made of what the backup says, checked as if a client had sent it, and only that is
// used. The root becomes an image of its own in the pool, out of lists, which goes with its last user; the instance is a clone of
// it.
#include <fmt/format.h>

#include <algorithm>
#include <filesystem>

#include "base/log.h"
#include "base/random.h"
#include "engine/events/events.h"
#include "engine/images/service.h"
#include "engine/instances/backup_document.h"
#include "engine/instances/impl.h"
#include "engine/instances/metadata_document.h"
#include "engine/networks/service.h"
#include "engine/pools/service.h"
#include "engine/profiles/service.h"
#include "engine/projects/service.h"
#include "model/name.h"

namespace virga::engine {

/// One import under way.
struct Importing {
  Instances::Ptr instance;
  image::UnpackRequest request;
  image::Metadata metadata;  ///< once unpacked
};

namespace {

constexpr Bytes most_virtual = Bytes(1) << 44;
constexpr Milliseconds longest{4 * 3600'000};

storage::VolumeId root_image(const Instance& instance) {
  return {.kind = storage::VolumeKind::image, .project = {}, .name = instance.image};
}

/// MAC addresses that another instance has by now are not taken along.
void drop_taken(Config& config, const std::map<std::pair<std::string, std::string>, Instances::Ptr>& all) {
  auto taken = [&](const auto& entry) {
    if (!entry.first.starts_with("volatile.") || !entry.first.ends_with(".hwaddr")) return false;
    return std::any_of(all.begin(), all.end(), [&](const auto& other) {
      const auto nics = nics_of(*other.second);
      return std::any_of(nics.begin(), nics.end(), [&](const NicDevice& nic) { return nic.mac == entry.second; });
    });
  };
  std::erase_if(config, taken);
}

}  // namespace

Result<Instance> Instances::Impl::imported(const ImportBackup& request, Instance instance, const std::string& pool) const {
  instance.project = request.project;
  if (!request.name.empty()) instance.name = request.name;
  instance.uuid = random_uuid();
  instance.created_at = parts.clock.now();
  VIRGA_CHECK(check_instance_name(instance.name));
  Config given = instance.config;
  std::erase_if(given, [](const auto& e) { return e.first.starts_with("image.") || e.first.starts_with("volatile."); });
  VIRGA_CHECK(check_config(given, instance.type, false));
  drop_taken(instance.config.edit(), all);
  instance.config["volatile.uuid"] = instance.uuid;
  instance.config["volatile.last_state.power"] = "STOPPED";
  VIRGA_TRY(const auto profiles, profiles_of(instance));
  expand(instance, profiles);
  auto root = root_disk(instance.expanded_devices);
  const auto wanted = !request.pool.empty() ? request.pool : root ? root->second.at("pool") : pool;
  if (!root || root->second.at("pool") != wanted) {
    const auto name = root ? root->first : std::string("root");
    auto& device = instance.devices[name] = root ? root->second : Config{{"type", "disk"}, {"path", "/"}};
    device["pool"] = wanted;
    expand(instance, profiles);
  }
  VIRGA_CHECK(check(instance));
  if (!parts.pools.find(wanted))
    return fail(Error(ErrorKind::not_found, fmt::format("storage pool '{}' not found", wanted))
                    .with_field("pool")
                    .with_hint("name one that is here: --storage"));
  instance.pool = wanted;
  instance.image = "import-" + instance.uuid;
  VIRGA_CHECK(volume_spec(instance));
  VIRGA_CHECK(check_networks(instance));
  if (all.contains({instance.project, instance.name})) return fail(name_taken(instance.name));
  return instance;
}

Procedure Instances::Impl::import_procedure(std::string id, std::shared_ptr<Importing> work) {
  const auto instance = work->instance;
  Procedure p;
  p.kind = "instance-import";
  p.id = std::move(id);
  p.arguments = {{"instance", encode(*instance)}};
  p.on_recovery = OnRecovery::undo;
  auto unpack = [this, work, instance]() -> Task<Result<>> {
    VIRGA_CO_TRY(auto* storage, storage_of(*instance));
    auto* images = storage->images();
    if (images == nullptr || storage->clones() == nullptr)
      co_return fail(ErrorKind::unsupported, fmt::format("storage pool '{}' cannot take in backups", instance->pool));
    auto request = work->request;
    VIRGA_CO_TRY(request.into, co_await images->stage(instance->image));
    VIRGA_CO_TRY(auto inspection, co_await parts.images.reader().unpack(std::move(request)));
    const bool container = inspection.type == image::Type::container;
    if (container != (instance->type == InstanceType::container))
      co_return fail(ErrorKind::invalid, "the backup is of another type than it says");
    work->metadata = std::move(inspection.metadata);
    co_return co_await images->publish(instance->image, container ? storage::ContentType::filesystem : storage::ContentType::block);
  };
  auto discard = [this, instance]() -> Task<Result<>> {
    VIRGA_CO_TRY(auto* storage, storage_of(*instance));
    if (auto* images = storage->images()) VIRGA_CO_CHECK(co_await images->discard_stage(instance->image));
    co_return co_await storage->remove(root_image(*instance));
  };
  auto templates = std::make_shared<Transaction>();
  auto clone = [this, work, instance, templates]() -> Task<Result<>> {
    VIRGA_CO_TRY(auto* storage, storage_of(*instance));
    InstanceMetadata kept;
    VIRGA_CO_TRY(kept.files, storage->images()->templates(instance->image));
    if (kept.files.size() > max_templates)
      co_return fail(ErrorKind::invalid, fmt::format("the backup has more than {} templates", max_templates));
    kept.image = work->metadata;
    *templates = {};
    if (!kept.files.empty()) templates->put(metadata_key(instance->uuid), json::serialize(encode(kept)));
    VIRGA_CO_TRY(auto spec, volume_spec(*instance));
    VIRGA_CO_CHECK(co_await storage->clones()->from_image(std::move(spec), instance->image));
    // Kept for its clone, and out of lists from here on.
    co_return co_await storage->remove(root_image(*instance));
  };
  p.steps.push_back({"unpack", unpack, discard});
  p.steps.push_back({"volume", clone, [this, instance] { return remove_root(instance); }});
  add_last_steps(p, instance, templates);
  return p;
}

Task<Result<>> Instances::Impl::import_backup(Operation& operation, ImportBackup request, Caller caller,
                                              const CreateInstance* wanted) {
  image::Limits limits;
  limits.max_unpacked = most_virtual;
  limits.timeout = longest;
  VIRGA_CO_TRY(auto inspection, co_await parts.images.reader().inspect_backup(request.file, limits));
  VIRGA_CO_TRY(auto read, read_backup(inspection));
  if (wanted != nullptr) {
    if (wanted->type != read.instance.type)
      co_return fail(ErrorKind::invalid,
                     fmt::format("what was sent is a {}, not a {}", to_string(read.instance.type), to_string(wanted->type)));
    read.instance = requested(*wanted);
  }
  VIRGA_CO_TRY(auto instance, imported(request, std::move(read.instance), read.pool));
  const auto target = instance_url(instance.project, instance.name);
  auto claim = parts.operations.claim(target, operation);
  if (!claim) co_return fail(std::move(claim).error());
  operation.add_resource("instances", target);
  auto make = [&](Ptr made, Transaction held) -> Task<Result<>> {
    auto work = std::make_shared<Importing>();
    work->instance = made;
    work->request.metadata_file = request.file;
    work->request.backup = true;
    work->request.id_base = read.id_base;
    work->request.id_count = read.id_count;
    work->request.limits = limits;
    VIRGA_CO_TRY(auto* storage, storage_of(*made));
    const auto space = co_await storage->pool_usage();
    // A tree takes what it says; the zeros of a disk take nothing.
    if (made->type == InstanceType::container && space && space->total)
      work->request.limits.max_unpacked = *space->total - std::min(space->used, *space->total);
    auto procedure = import_procedure(operation.id(), work);
    procedure.intent = std::move(held);
    co_return co_await parts.journal.execute(std::move(procedure));
  };
  auto purpose = fmt::format("import instance '{}'", instance.name);
  co_return co_await admit(std::move(instance), std::move(caller), std::move(purpose), make);
}

Task<Result<OperationPtr>> Instances::import_backup(Caller caller, ImportBackup request) {
  auto* self = impl_.get();
  auto start = [&]() -> Result<OperationPtr> {
    VIRGA_TRY(const auto project, self->parts.projects.get(request.project));
    if (!request.name.empty()) {
      VIRGA_CHECK(check_instance_name(request.name));
      if (find(request.project, request.name)) return fail(self->name_taken(request.name));
    }
    if (!request.pool.empty() && !self->parts.pools.find(request.pool))
      return fail(Error(ErrorKind::not_found, fmt::format("storage pool '{}' not found", request.pool)).with_field("pool"));
    OperationSpec spec;
    spec.project = project->name;
    spec.description = "Restoring backup";
    spec.may_cancel = true;
    spec.caller = caller;
    if (!request.name.empty()) spec.resources = {{"instances", {instance_url(request.project, request.name)}}};
    auto body = [self, request, caller](Operation& o) -> Task<Result<>> {
      auto done = co_await self->import_backup(o, request, caller);
      co_await shield();
      co_await self->parts.images.discard_upload(request.file);
      co_return done;
    };
    return self->parts.operations.start(std::move(spec), std::move(body));
  };
  auto started = start();
  if (!started) co_await self->parts.images.discard_upload(request.file);
  co_return started;
}

void Instances::Impl::register_imports() {
  parts.journal.register_kind("instance-import", [this](std::string id, json::object arguments) -> Task<Result<Procedure>> {
    VIRGA_CO_TRY(const auto document, Fields(arguments).object("instance"));
    VIRGA_CO_TRY(auto instance, decode_instance(document));
    if (all.count({instance.project, instance.name}) != 0) co_return Procedure{};
    auto work = std::make_shared<Importing>();
    work->instance = std::make_shared<const Instance>(std::move(instance));
    co_return import_procedure(std::move(id), work);
  });
}

}  // namespace virga::engine
