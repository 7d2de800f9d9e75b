// Changing configuration, devices, profiles and description.
#include <fmt/format.h>

#include "engine/events/events.h"
#include "engine/instances/impl.h"
#include "engine/networks/service.h"
#include "engine/pools/service.h"
#include "engine/projects/service.h"

namespace virga::engine {
namespace {

/// What the daemon keeps may be sent back, unchanged, and may be left out; it may not be altered.
Result<> keep_ours(const Instance& before, Config& after) {
  for (const auto& [key, value] : after) {
    if (!key.starts_with("volatile.")) continue;
    auto it = before.config.find(key);
    const std::string old = it == before.config.end() ? "" : it->second;
    // What changed while somebody edited (a guest that was started) is not his doing; a new value of his own is.
    if (it == before.config.end() && !value.empty() && !key.ends_with(".host_name") && !key.starts_with("volatile.last_state."))
      return invalid("config." + key, fmt::format("configuration key '{}' is kept by the daemon", key));
    if (it != before.config.end() && value != old && !key.ends_with(".host_name") && !key.starts_with("volatile.last_state."))
      return invalid("config." + key, fmt::format("configuration key '{}' is kept by the daemon", key));
  }
  std::erase_if(after, [](const auto& e) { return e.first.starts_with("volatile."); });
  for (const auto& [key, value] : before.config)
    if (key.starts_with("volatile.")) after[key] = value;
  std::erase_if(after, [](const auto& e) { return e.second.empty(); });
  return {};
}

/// What a running guest cannot take: it is refused rather than kept for later, so that what is shown is what is.
Result<> check_live(const Instance& before, const Instance& after) {
  if (before.status == InstanceStatus::stopped || before.status == InstanceStatus::error) return {};
  auto keys = [](const Config& a, const Config& b, auto visit) -> Result<> {
    for (const auto& [k, v] : a) {
      auto it = b.find(k);
      if (it == b.end() || it->second != v) VIRGA_CHECK(visit(k));
    }
    return {};
  };
  auto needs_stop = [&](const std::string& key) -> Result<> {
    const auto* rule = find_instance_key(key);
    if (rule == nullptr || rule->live || key.starts_with("limits.")) return {};
    return fail(Error(ErrorKind::invalid, fmt::format("configuration key '{}' cannot change while the guest runs", key))
                    .with_field("config." + key)
                    .with_hint("stop the instance first"));
  };
  VIRGA_CHECK(keys(before.expanded_config, after.expanded_config, needs_stop));
  VIRGA_CHECK(keys(after.expanded_config, before.expanded_config, needs_stop));
  if (before.expanded_devices != after.expanded_devices)
    return fail(Error(ErrorKind::invalid, "devices cannot change while the guest runs yet")
                    .with_field("devices")
                    .with_hint("stop the instance first"));
  return {};
}

}  // namespace

bool limits_differ(const Instance& a, const Instance& b) {
  auto limit = [](const Instance& i, const char* key) {
    auto it = i.expanded_config.find(key);
    return it == i.expanded_config.end() ? std::string() : it->second;
  };
  for (auto key : {"limits.cpu", "limits.memory", "limits.processes"})
    if (limit(a, key) != limit(b, key)) return true;
  return false;
}

Result<OperationPtr> Instances::update(const Caller& caller, const std::string& project, const std::string& name,
                                       UpdateInstance request, std::optional<std::int64_t> expected) {
  auto* self = impl_.get();
  VIRGA_TRY(auto before, self->get(project, name));
  if (expected && *expected != before->revision)
    return fail(ErrorKind::conflict, fmt::format("instance '{}' has changed meanwhile", name));
  // Once here, so that a wrong field is the answer to the request; once more with the instance held.
  VIRGA_TRY(auto trial, self->updated(*before, request));
  VIRGA_CHECK(self->parts.projects.policy().check(trial));
  return self->operate(caller, project, name, "Updating instance",
                       [self, project, name, caller, request](Operation&) -> Task<Result<>> {
                         VIRGA_CO_TRY(auto current, self->get(project, name));
                         VIRGA_CO_TRY(auto changed, self->updated(*current, request));
                         VIRGA_CO_CHECK(co_await self->commit_update(current, std::move(changed)));
                         self->lifecycle("instance-updated", *current, caller);
                         co_return Result<>{};
                       });
}

Result<Instance> Instances::Impl::updated(const Instance& before, const UpdateInstance& request, const std::string& project,
                                          const std::string& name) const {
  Instance after = before;
  if (!project.empty()) after.project = project;
  if (!name.empty()) after.name = name;
  if (request.description) after.description = *request.description;
  if (request.architecture && !request.architecture->empty()) after.architecture = *request.architecture;
  if (request.ephemeral) after.ephemeral = *request.ephemeral;
  if (request.profiles) after.profiles = *request.profiles;
  if (request.config && request.replace) {
    after.config = *request.config;
    // An image's properties are history: a client that leaves them out does not mean to erase them.
    for (const auto& [key, value] : before.config)
      if (key.starts_with("image.")) after.config.emplace(key, value);
  } else if (request.config) {
    for (const auto& [key, value] : *request.config) after.config[key] = value;
  }
  if (request.devices && request.replace) {
    after.devices = *request.devices;
  } else if (request.devices) {
    for (const auto& [key, value] : *request.devices) after.devices[key] = value;
  }
  VIRGA_CHECK(keep_ours(before, after.config.edit()));
  VIRGA_TRY(auto profiles, profiles_of(after));
  expand(after, profiles);
  VIRGA_CHECK(check_change(before, after));
  return after;
}

Result<> Instances::Impl::check_change(const Instance& before, const Instance& after) const {
  VIRGA_CHECK(check(after));
  VIRGA_TRY(auto old_root, root_disk(before.expanded_devices));
  VIRGA_TRY(auto root, root_disk(after.expanded_devices));
  if (root.second.at("pool") != before.pool)
    return fail(Error(ErrorKind::unsupported,
                      fmt::format("the root volume is in pool '{}': moving it to another pool is not supported yet", before.pool))
                    .with_field("devices." + root.first + ".pool"));
  auto size = [](const Config& d) { return d.count("size") != 0 ? d.at("size") : std::string(); };
  if (size(root.second) != size(old_root.second))
    return fail(
        Error(ErrorKind::unsupported, "the size of a root disk cannot change yet").with_field("devices." + root.first + ".size"));
  VIRGA_CHECK(check_networks(after));
  return check_live(before, after);
}

Transaction Instances::Impl::update_transaction(const Instance& before, Instance& after, std::vector<std::string>& gone) const {
  Transaction t;
  if (before.expanded_devices != after.expanded_devices) {
    // NICs that went give their addresses back with this commit; those that came get theirs when the guest starts.
    for (const auto& old : nics_of(before)) {
      const auto now = nics_of(after);
      if (std::any_of(now.begin(), now.end(), [&](const auto& n) { return n.device == old.device && n.network == old.network; }))
        continue;
      parts.networks.erase(t, before.uuid, old.device);
      after.config.erase("volatile." + old.device + ".hwaddr");
      gone.push_back(old.device);
    }
  }
  t.put(document_key(after.project, after.name), json::serialize(encode(after)));
  return t;
}

Task<Result<>> Instances::Impl::commit_update(Ptr before, Instance after) {
  VIRGA_CO_TRY(const Policy::Hold held, parts.projects.policy().check(after));
  const bool running = before->status == InstanceStatus::running || before->status == InstanceStatus::frozen;
  if (running) {
    if (limits_differ(*before, after)) {
      VIRGA_CO_TRY(auto spec, guest_spec(after, paths_of(parts.state_dir, after)));
      auto applied = co_await driver(after.type).set_limits(after.uuid, compute::Limits{spec.cpus, spec.memory, spec.processes});
      if (!applied) co_return fail(std::move(applied).error().wrap(fmt::format("change the limits of instance '{}'", after.name)));
    }
  }
  std::vector<std::string> gone;
  auto t = update_transaction(*before, after, gone);
  auto committed = co_await parts.store.commit(std::move(t));
  if (!committed) {
    if (running && limits_differ(*before, after)) co_await apply_limits(before);
    co_return fail(std::move(committed).error());
  }
  VIRGA_CO_TRY(auto current, get(after.project, after.name));
  after.status = current->status;
  for (const auto& device : gone) parts.networks.forget(before->uuid, device);
  const bool scheduled = has_schedule(*before) || has_schedule(after);
  put(std::move(after));
  if (scheduled) due.notify();
  co_return Result<>{};
}

}  // namespace virga::engine
