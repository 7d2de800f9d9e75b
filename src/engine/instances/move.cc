// Renaming, and moving to another project: the same steps, as an instance's project is part of all its names.
#include <fmt/format.h>

#include <filesystem>

#include "engine/events/events.h"
#include "engine/instances/impl.h"
#include "engine/networks/service.h"
#include "engine/profiles/service.h"
#include "engine/projects/service.h"
#include "model/name.h"

namespace virga::engine {

namespace fs = std::filesystem;

namespace {

/// One that was just made is still to get the templates of its creation.
void mark_renamed(const Instance& before, Instance& after) {
  if (after.name == before.name) return;
  after.config.try_emplace("volatile.apply_template", "rename");
  after.expanded_config.insert(*after.config.find("volatile.apply_template"));
}

}  // namespace

Procedure Instances::Impl::move_procedure(std::string id, Ptr instance, Ptr moved) {
  Procedure p;
  p.kind = "instance-rename";
  p.id = std::move(id);
  p.arguments = {{"uuid", instance->uuid}, {"before", encode(*instance)}, {"moved", encode(*moved)}};
  p.on_recovery = OnRecovery::finish;
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
  p.steps.push_back({"volume", [=] { return move_volume(instance, moved); }, [=] { return move_volume(moved, instance); }});
  p.steps.push_back({"logs", [=] { return move_logs(instance, moved); }, [=] { return move_logs(moved, instance); }});
  p.outcome = [this, instance, moved]() -> Result<Transaction> {
    Transaction t;
    t.expect(document_key(moved->project, moved->name), 0);
    t.erase(document_key(instance->project, instance->name));
    t.put(document_key(moved->project, moved->name), json::serialize(encode(*moved)));
    // NICs that are not on the same network any more give their addresses back; new ones get theirs at the next start.
    const auto now = nics_of(*moved);
    for (const auto& old : parts.networks.addresses_of(instance->uuid)) {
      const bool kept =
          std::any_of(now.begin(), now.end(), [&](const auto& n) { return n.device == old.device && n.network == old.network; });
      if (!kept) parts.networks.erase(t, instance->uuid, old.device);
    }
    parts.networks.put_renamed(t, moved->uuid, moved->project, moved->name);
    return t;
  };
  return p;
}

/// What follows the commit, in memory; after a restart, too.
Instances::Ptr Instances::Impl::moved_to(Ptr before, Instance moved) {
  const auto now = nics_of(moved);
  for (const auto& old : parts.networks.addresses_of(before->uuid)) {
    const bool kept =
        std::any_of(now.begin(), now.end(), [&](const auto& n) { return n.device == old.device && n.network == old.network; });
    if (!kept) parts.networks.forget(before->uuid, old.device);
  }
  erase(before->project, before->name);
  // A profile may have changed meanwhile.
  if (auto profiles = profiles_of(moved)) expand(moved, *profiles);
  auto snapshot = put(std::move(moved));
  parts.networks.renamed(snapshot->uuid, snapshot->project, snapshot->name);
  return snapshot;
}

Instance Instances::Impl::moved_again(const Instance& now, const json::object& arguments) const {
  Instance out = now;
  const Fields fields(arguments);
  const auto before = fields.object("before").value_or(json::object());
  auto document = fields.object("moved").value_or(json::object());
  auto decoded = decode_instance(document);
  if (document.empty() || !decoded) {  // a row of an earlier version
    out.name = fields.string("new_name").value_or("");
    mark_renamed(now, out);
    return out;
  }
  if (encode(now) == before) {
    out = std::move(*decoded);
  } else {  // it was changed since: only its place is the row's
    out.project = decoded->project;
    out.name = decoded->name;
    out.profiles = decoded->profiles;
    mark_renamed(now, out);
  }
  if (auto profiles = profiles_of(out)) expand(out, *profiles);
  return out;
}

Result<Instance> Instances::Impl::moved(const Instance& before, const MoveInstance& request) const {
  VIRGA_TRY(auto after, updated(before, request.changes, request.project, request.name));
  VIRGA_CHECK(check_instance_name(after.name));
  mark_renamed(before, after);
  if (all.contains({after.project, after.name}))
    return fail(Error(ErrorKind::exists, fmt::format("instance '{}' already exists{}", after.name,
                                                     after.project == before.project ? "" : " in project '" + after.project + "'"))
                    .with_field("name"));
  return after;
}

Result<OperationPtr> Instances::move(const Caller& caller, const std::string& project, const std::string& name,
                                     MoveInstance request) {
  VIRGA_TRY(auto instance, impl_->get(project, name));
  if (request.project.empty()) request.project = project;
  if (request.name.empty()) request.name = name;
  const bool renames = request.project == project;
  VIRGA_CHECK(impl_->parts.projects.get(request.project));
  if (instance->status != InstanceStatus::stopped)
    return fail(Error(ErrorKind::invalid,
                      fmt::format("instance '{}' is running: only a stopped one can be {}", name, renames ? "renamed" : "moved"))
                    .with_hint("stop the instance first"));
  // Once here, so that a wrong field is the answer to the request; once more with both names held.
  VIRGA_TRY(auto trial, impl_->moved(*instance, request));
  VIRGA_CHECK(impl_->parts.projects.policy().check(trial));
  auto* self = impl_.get();
  return self->operate(caller, project, name, renames ? "Renaming instance" : "Moving instance",
                       [self, project, name, request, caller](Operation& o) -> Task<Result<>> {
                         // The new name is held too: nobody creates it meanwhile.
                         auto target = self->parts.operations.claim(instance_url(request.project, request.name), o);
                         if (!target) co_return fail(std::move(target).error());
                         VIRGA_CO_TRY(auto current, self->get(project, name));
                         co_return co_await self->move(o.id(), current, request, caller);
                       });
}

Task<Result<>> Instances::Impl::move(std::string operation_id, Ptr before, MoveInstance request, Caller caller) {
  VIRGA_CO_TRY(auto after, moved(*before, request));
  VIRGA_CO_TRY(auto project, parts.projects.get(after.project));
  VIRGA_CO_TRY(auto profiles, profiles_of(after));
  VIRGA_CO_CHECK(parts.projects.policy().check(after));
  // From here on it counts as a user of the new project and its profiles, none of which may go meanwhile.
  const Key key{after.project, after.name};
  auto target = std::make_shared<const Instance>(std::move(after));
  pending[key] = target;
  auto procedure = move_procedure(std::move(operation_id), before, target);
  procedure.intent.expect(Projects::key(project->name), project->revision);
  for (const auto& profile : profiles) procedure.intent.expect(Profiles::key(profile->project, profile->name), profile->revision);
  auto done = co_await parts.journal.execute(std::move(procedure));
  pending.erase(key);
  const bool renames = before->project == target->project;
  if (!done)
    co_return fail(std::move(done).error().wrap(fmt::format("{} instance '{}'", renames ? "rename" : "move", before->name)));
  auto snapshot = moved_to(before, *target);
  json::object context{{"old_name", before->name}};
  if (!renames) context["old_project"] = before->project;
  lifecycle("instance-renamed", *snapshot, caller, std::move(context));
  co_return Result<>{};
}

}  // namespace virga::engine
