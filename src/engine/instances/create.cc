// Creating an instance from an image.
#include <fmt/format.h>

#include <array>
#include <filesystem>

#include "base/random.h"
#include "engine/images/service.h"
#include "engine/instances/impl.h"
#include "engine/networks/service.h"
#include "engine/pools/service.h"
#include "engine/profiles/service.h"
#include "engine/projects/service.h"
#include "model/name.h"

namespace virga::engine {
namespace {

/// What an instance says about the image it is made from.
void take_image(Instance& instance, const Image& image) {
  instance.image = image.fingerprint;
  for (const auto& [key, value] : image.properties) instance.config["image." + key] = value;
  instance.config["volatile.base_image"] = image.fingerprint;
}

}  // namespace

std::string made_up_name() {
  static constexpr std::array<std::string_view, 16> first{"amber", "brisk", "calm",  "clear", "deft",  "eager", "fleet", "gentle",
                                                          "keen",  "light", "merry", "plain", "quick", "sunny", "tidy",  "warm"};
  static constexpr std::array<std::string_view, 16> second{"cirrus", "drizzle", "finch",  "harbor", "heron",  "island",
                                                           "lark",   "maple",   "meadow", "otter",  "pebble", "river",
                                                           "robin",  "sparrow", "willow", "wren"};
  const auto hex = random_hex(4);
  const auto n = std::stoul(hex, nullptr, 16);
  return fmt::format("{}-{}-{}", first[n & 15], second[(n >> 4) & 15], (n >> 8) % 1000);
}

Procedure Instances::Impl::create_procedure(std::string id, Ptr instance) {
  Procedure p;
  p.kind = "instance-create";
  p.id = std::move(id);
  p.arguments = {{"instance", encode(*instance)}};
  p.on_recovery = OnRecovery::undo;
  p.steps.push_back({"image",
                     [this, instance]() -> Task<Result<>> {
                       VIRGA_CO_TRY(auto* storage, storage_of(*instance));
                       co_return co_await parts.images.ensure_unpacked(*storage, instance->image);
                     },
                     {}});
  auto templates = std::make_shared<Transaction>();
  p.steps.push_back({"metadata",
                     [this, instance, templates]() -> Task<Result<>> {
                       *templates = {};
                       co_return co_await remember_metadata(*instance, *templates);
                     },
                     {}});
  p.steps.push_back({"volume",
                     [this, instance]() -> Task<Result<>> {
                       VIRGA_CO_TRY(auto* storage, storage_of(*instance));
                       auto* clones = storage->clones();
                       if (clones == nullptr)
                         co_return fail(ErrorKind::unsupported,
                                        fmt::format("storage pool '{}' cannot make volumes from images", instance->pool));
                       VIRGA_CO_TRY(auto spec, volume_spec(*instance));
                       co_return co_await clones->from_image(std::move(spec), instance->image);
                     },
                     [this, instance] { return remove_root(instance); }});
  add_last_steps(p, instance, templates);
  return p;
}

Task<Result<OperationPtr>> Instances::create(Caller caller, CreateInstance request) {
  auto* self = impl_.get();
  if (request.migration) co_return receive(caller, std::move(request));
  if (request.copy) co_return copy(caller, std::move(request));
  VIRGA_CO_TRY(auto project, self->parts.projects.get(request.project));
  Instance instance;
  instance.project = project->name;
  instance.name = request.name;
  if (instance.name.empty()) instance.name = self->free_name(request.project);
  instance.uuid = random_uuid();
  instance.type = request.type;
  if (!request.architecture.empty()) instance.architecture = request.architecture;
  instance.description = std::move(request.description);
  instance.ephemeral = request.ephemeral;
  instance.created_at = self->parts.clock.now();
  instance.config = std::move(request.config);
  instance.devices = std::move(request.devices);
  VIRGA_CO_CHECK(check_instance_name(instance.name));
  // Keys that are ours may not come from outside, save what clients copy from the image.
  Config given = instance.config;
  std::erase_if(given, [](const auto& entry) { return entry.first.starts_with("image."); });
  VIRGA_CO_CHECK(check_config(given, instance.type, false));
  if (find(instance.project, instance.name)) co_return fail(self->name_taken(instance.name));

  Images::Ptr image;
  if (!request.image_server) {
    VIRGA_CO_TRY(image, self->parts.images.resolve(request.project, request.image_alias, request.image_fingerprint, request.type));
  }
  instance.profiles = request.profiles                    ? *request.profiles
                      : image && !image->profiles.empty() ? image->profiles
                                                          : std::vector<std::string>{"default"};
  VIRGA_CO_CHECK(self->place(instance));

  std::optional<FetchImage> fetch;
  if (request.image_server) {
    fetch.emplace();
    fetch->source = *request.image_server;
    fetch->source.type = request.type;
    fetch->image.project = request.project;
    fetch->image.cached = true;
    VIRGA_CO_CHECK(self->parts.images.check_fetch(*fetch));
  } else {
    take_image(instance, *image);
  }
  instance.config["volatile.uuid"] = instance.uuid;
  instance.config["volatile.last_state.power"] = "STOPPED";
  instance.config["volatile.apply_template"] = "create";
  VIRGA_CO_CHECK(self->place(instance));
  VIRGA_CO_CHECK(self->parts.projects.policy().check(instance));

  const auto url = instance_url(instance.project, instance.name);
  const std::string description = "Creating instance";
  if (auto free = self->parts.operations.claim(url, description); !free) co_return fail(std::move(free).error());
  OperationSpec operation;
  operation.project = instance.project;
  operation.description = description;
  operation.resources = {{"instances", {url}}};
  operation.may_cancel = true;
  operation.caller = caller;
  const bool then_start = request.start, profiles_of_image = !request.profiles;
  auto body = [self, caller, url, then_start, profiles_of_image, instance, fetch](Operation& o) -> Task<Result<>> {
    auto claim = self->parts.operations.claim(url, o);
    if (!claim) co_return fail(std::move(claim).error());
    auto made = instance;
    if (fetch) VIRGA_CO_CHECK(co_await self->fetch_image(o, *fetch, made, profiles_of_image));
    VIRGA_CO_CHECK(co_await self->create(o.id(), std::move(made), caller));
    if (!then_start) co_return Result<>{};
    co_return co_await self->start_created(o, instance.project, instance.name, caller);
  };
  co_return self->parts.operations.start(std::move(operation), std::move(body));
}

Result<> Instances::Impl::place(Instance& instance) const {
  VIRGA_TRY(auto profiles, profiles_of(instance));
  expand(instance, profiles);
  VIRGA_CHECK(check(instance));
  VIRGA_TRY(auto root, root_disk(instance.expanded_devices));
  instance.pool = root.second.at("pool");
  if (!parts.pools.find(instance.pool))
    return fail(Error(ErrorKind::not_found, fmt::format("storage pool '{}' not found", instance.pool))
                    .with_field(fmt::format("devices.{}.pool", root.first)));
  VIRGA_CHECK(volume_spec(instance));
  return check_networks(instance);
}

Task<Result<>> Instances::Impl::start_created(Operation& operation, std::string project, std::string name, Caller caller) {
  auto started = co_await start(random_uuid(), project, name, caller);
  if (started || !operation.cancel_requested() || parts.operations.stopping()) co_return started;
  // Who cancels a creation wants nothing to be left of it.
  co_await shield();
  if (auto current = get(project, name)) {
    auto gone = co_await remove(random_uuid(), *current, caller);
    if (!gone) operation.warn("what was created stays: {}", gone.error().text());
  }
  co_return started;
}

Task<Result<>> Instances::Impl::fetch_image(Operation& operation, FetchImage request, Instance& instance, bool profiles_of_image) {
  const auto type = instance.type;
  const auto project = request.image.project;
  VIRGA_CO_TRY(auto fingerprint, co_await parts.images.fetch_within(operation, std::move(request)));
  VIRGA_CO_TRY(auto image, parts.images.resolve(project, "", fingerprint, type));
  take_image(instance, *image);
  // One that was here already may have been given profiles.
  if (!profiles_of_image || image->profiles.empty()) co_return Result<>{};
  instance.profiles = image->profiles;
  co_return place(instance);
}

Task<Result<>> Instances::Impl::create(std::string operation_id, Instance instance, Caller caller) {
  auto purpose = fmt::format("create instance '{}'", instance.name);
  auto make = [this, operation_id = std::move(operation_id)](Ptr held_instance, Transaction held) -> Task<Result<>> {
    auto procedure = create_procedure(operation_id, std::move(held_instance));
    procedure.intent = std::move(held);
    co_return co_await parts.journal.execute(std::move(procedure));
  };
  co_return co_await admit(std::move(instance), std::move(caller), std::move(purpose), std::move(make));
}

Journal::Builder Instances::Impl::recovering(std::function<Procedure(std::string, Ptr, const json::object&)> make) {
  // A row outlives its operation when its undo failed. By the time it is taken up again the name may stand for another instance, or
  // the instance may have moved on: rows say the uuid, and one that is out of date becomes a procedure without steps, which closes
  // it.
  return [this, make = std::move(make)](std::string id, json::object arguments) -> Task<Result<Procedure>> {
    VIRGA_CO_TRY(auto uuid, Fields(arguments).string("uuid"));
    auto key = by_uuid.find(uuid);
    if (key == by_uuid.end()) co_return Procedure{};
    VIRGA_CO_TRY(auto instance, get(key->second.first, key->second.second));
    co_return make(std::move(id), instance, arguments);
  };
}

void Instances::Impl::register_procedures() {
  register_copies();
  register_backups();
  register_imports();
  auto with_instance = [this](auto make) { return recovering(std::move(make)); };
  parts.journal.register_kind("instance-create", [this](std::string id, json::object arguments) -> Task<Result<Procedure>> {
    VIRGA_CO_TRY(auto document, Fields(arguments).object("instance"));
    VIRGA_CO_TRY(auto instance, decode_instance(document));
    if (all.count({instance.project, instance.name}) != 0) co_return Procedure{};
    co_return create_procedure(std::move(id), std::make_shared<const Instance>(std::move(instance)));
  });
  parts.journal.register_kind("instance-publish", with_instance([this](std::string id, Ptr i, const json::object& arguments) {
                                const auto snapshot = Fields(arguments).string("snapshot").value_or("");
                                return publish_procedure(std::move(id), i, snapshot, nullptr);
                              }));
  register_snapshot_procedures();
  parts.journal.register_kind("instance-start", with_instance([this](std::string id, Ptr i, const json::object&) {
                                // A later start was acknowledged: whether it still runs is resume()'s to see.
                                return power_of(*i) == "RUNNING" ? Procedure{} : start_procedure(std::move(id), i, false);
                              }));
  parts.journal.register_kind("instance-stop", with_instance([this](std::string id, Ptr i, const json::object&) {
                                auto p = stop_procedure(std::move(id), i, Power::stopped);
                                p.recovered = [this, i] {
                                  Instance changed = *i;
                                  mark_stopped(changed, Power::stopped);
                                  put(std::move(changed));
                                };
                                return p;
                              }));
  parts.journal.register_kind("instance-files", with_instance([this](std::string id, Ptr i, const json::object&) {
                                // Started since: the mount is the guest's.
                                return power_of(*i) == "RUNNING" ? Procedure{} : files_procedure(std::move(id), i, nullptr);
                              }));
  parts.journal.register_kind("instance-delete", with_instance([this](std::string id, Ptr i, const json::object&) {
                                auto p = remove_procedure(std::move(id), i);
                                p.recovered = [this, i] {
                                  ids.release(i->id_base);
                                  parts.networks.forget(i->uuid);
                                  backups.erase(i->uuid);
                                  erase(i->project, i->name);
                                };
                                return p;
                              }));
  parts.journal.register_kind("instance-rename", with_instance([this](std::string id, Ptr i, const json::object& arguments) {
                                auto moved = std::make_shared<const Instance>(moved_again(*i, arguments));
                                auto p = move_procedure(std::move(id), i, moved);
                                p.recovered = [this, i, moved] { (void)moved_to(i, *moved); };
                                return p;
                              }));
}

}  // namespace virga::engine
