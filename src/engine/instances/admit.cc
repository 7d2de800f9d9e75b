// What all ways to a new instance share, whether it is created from an image, copied, or made of a backup: its name and what it
// refers to are held, it is made, and takes its place.
#include <fmt/format.h>

#include <filesystem>

#include "engine/instances/impl.h"
#include "engine/networks/service.h"
#include "engine/pools/service.h"
#include "engine/profiles/service.h"
#include "engine/projects/service.h"

namespace virga::engine {

Error Instances::Impl::name_taken(const std::string& name) {
  return Error(ErrorKind::exists, fmt::format("instance '{}' already exists", name)).with_field("name");
}

std::string Instances::Impl::free_name(const std::string& project) const {
  for (int tries = 0; tries < 20; ++tries)
    if (auto name = made_up_name(); all.count({project, name}) == 0) return name;
  return {};
}

Result<> Instances::Impl::check_networks(const Instance& instance) const {
  for (const auto& nic : nics_of(instance))
    if (!parts.networks.find(nic.network))
      return fail(Error(ErrorKind::not_found, fmt::format("network '{}' not found", nic.network))
                      .with_field(fmt::format("devices.{}.network", nic.device)));
  return {};
}

Task<Result<>> Instances::Impl::admit(Instance instance, Caller caller, std::string purpose, MakeInstance make) {
  if (all.count({instance.project, instance.name}) != 0) co_return fail(name_taken(instance.name));
  // Once more, now that the names are about to be held: any of them may have gone since the request was checked.
  VIRGA_CO_TRY(auto project, parts.projects.get(instance.project));
  VIRGA_CO_TRY(auto profiles, profiles_of(instance));
  expand(instance, profiles);
  VIRGA_CO_CHECK(check(instance));
  if (!parts.pools.find(instance.pool))
    co_return fail(ErrorKind::not_found, fmt::format("storage pool '{}' not found", instance.pool));
  // The names are held from here on, with what is in them: it counts as soon as it is pending.
  VIRGA_CO_CHECK(parts.projects.policy().check(instance));
  VIRGA_CO_TRY(instance.id_base, ids.take());
  // From here on it counts as a user of its profiles, pool and networks, none of which may go meanwhile.
  const Key key{instance.project, instance.name};
  pending[key] = std::make_shared<const Instance>(instance);
  Result<> done = reserve_addresses(instance);
  if (done) {
    Transaction held;
    held.expect(Projects::key(project->name), project->revision);
    for (const auto& profile : profiles) held.expect(Profiles::key(profile->project, profile->name), profile->revision);
    held.expect(document_key(instance.project, instance.name), 0);
    done = co_await make(std::make_shared<const Instance>(instance), std::move(held));
  }
  pending.erase(key);
  if (!done) {
    ids.release(instance.id_base);
    parts.networks.forget(instance.uuid);
    co_return fail(std::move(done).error().wrap(purpose));
  }
  // A profile may have changed meanwhile.
  if (auto now = profiles_of(instance)) expand(instance, *now);
  auto snapshot = put(std::move(instance));
  if (has_schedule(*snapshot) || !snapshots_of(snapshot->uuid).empty()) due.notify();
  lifecycle("instance-created", *snapshot, caller, {{"type", to_string(snapshot->type)}});
  co_return Result<>{};
}

void Instances::Impl::add_last_steps(Procedure& p, Ptr instance, std::shared_ptr<const Transaction> documents) {
  p.steps.push_back({"directories",
                     [this, instance]() -> Task<Result<>> {
                       std::error_code ec;
                       // A log of an earlier instance of this name is not this one's.
                       std::filesystem::remove_all(paths_of(parts.state_dir, *instance).logs, ec);
                       co_return Result<>{};
                     },
                     {}});
  p.outcome = [this, instance, documents]() -> Result<Transaction> {
    Transaction t = *documents;
    t.expect(document_key(instance->project, instance->name), 0);
    t.put(document_key(instance->project, instance->name), json::serialize(encode(*instance)));
    put_addresses(*instance, t);
    return t;
  };
}

}  // namespace virga::engine
