#include "engine/projects/policy.h"

#include <fmt/format.h>

#include <map>
#include <set>

#include "model/project_restrictions.h"

namespace virga::engine {
namespace {

Result<> check_one(const Project& project, const Instance& i) {
  VIRGA_CHECK(check_restrictions(project, i.type, i.expanded_config, i.expanded_devices));
  return check_counted(project, i);
}

}  // namespace

Policy::Hold Policy::hold(Proposal proposal) {
  under_way_->push_back(std::move(proposal));
  auto list = under_way_;
  auto at = std::prev(list->end());
  return {nullptr, [list, at](void*) { list->erase(at); }};
}

std::vector<Policy::ProjectPtr> Policy::versions(const std::string& name) const {
  std::vector<ProjectPtr> out;
  if (auto project = find_(name)) out.push_back(std::move(project));
  for (const auto& p : *under_way_)
    if (p.edited && p.edited->name == name) out.push_back(p.edited);
  return out;
}

Amounts Policy::count(const std::string& project, const std::vector<InstancePtr>& except) const {
  std::set<std::string_view> replaced;
  for (const auto& i : except) replaced.insert(i->uuid);
  // Of an instance that somebody changes right now the larger amounts count: the commit may succeed or fail.
  std::map<std::string_view, Amounts> changing;
  Amounts sum;
  for (const auto& p : *under_way_) {
    for (const auto& i : p.instances)
      if (i->project == project && !replaced.contains(i->uuid)) raise(changing[i->uuid], amounts_of(*i));
    if (p.project == project) add(sum, p.more);
  }
  if (instances_) {
    for (const auto& i : instances_(project)) {
      if (replaced.contains(i->uuid)) continue;
      const auto found = changing.find(i->uuid);
      if (found == changing.end()) {
        add(sum, amounts_of(*i));
      } else {
        raise(found->second, amounts_of(*i));
      }
    }
  }
  for (const auto& [uuid, amounts] : changing) add(sum, amounts);
  for (const auto& contents : contents_) contents(project, sum);
  return sum;
}

Result<Policy::Hold> Policy::check(std::vector<InstancePtr> proposed) {
  std::map<std::string, std::vector<InstancePtr>> by_project;
  for (const auto& i : proposed) by_project[i->project].push_back(i);
  for (const auto& [name, instances] : by_project) {
    const auto all = versions(name);
    if (all.empty()) return fail(ErrorKind::not_found, "no project '" + name + "'");
    for (const auto& project : all) {
      for (const auto& i : instances) VIRGA_CHECK(check_one(*project, *i));
      if (!is_limited(*project)) continue;
      Amounts after = count(name, instances);
      for (const auto& i : instances) add(after, amounts_of(*i));
      VIRGA_CHECK(check_limits(*project, count(name, {}), after));
    }
  }
  return hold({.instances = std::move(proposed), .project = {}, .more = {}, .edited = nullptr});
}

Result<Policy::Hold> Policy::check(const std::string& project, const Amounts& more) {
  for (const auto& version : versions(project)) {
    if (!is_limited(*version)) continue;
    const auto before = count(project, {});
    auto after = before;
    add(after, more);
    VIRGA_CHECK(check_limits(*version, before, after));
  }
  return hold({.instances = {}, .project = project, .more = more, .edited = nullptr});
}

Result<> Policy::check_snapshot(const std::string& project) const {
  return allowed(project, "snapshots", "restricted.snapshots");
}

Result<> Policy::check_backup(const std::string& project) const {
  return allowed(project, "backups", "restricted.backups");
}

Result<> Policy::allowed(const std::string& project, std::string_view what, const char* key) const {
  const auto all = versions(project);
  if (all.empty()) return fail(ErrorKind::not_found, "no project '" + project + "'");
  for (const auto& version : all)
    if (is_restricted(*version) && restriction(*version, key) != "allow")
      return fail(Error(ErrorKind::denied, fmt::format("{} are not allowed in project '{}' ({})", what, project, key)));
  return {};
}

Result<> Policy::check(const Profile& profile) const {
  for (const auto& project : versions(profile.project))
    VIRGA_CHECK(check_restrictions(*project, std::nullopt, profile.config, profile.devices));
  return {};
}

Result<Policy::Hold> Policy::check(const Project& old, const Project& next) {
  std::vector<InstancePtr> instances;
  if (instances_) instances = instances_(next.name);
  for (const auto& p : *under_way_)
    for (const auto& i : p.instances)
      if (i->project == next.name) instances.push_back(i);
  for (const auto& i : instances)
    if (auto fits = check_one(next, *i); !fits)
      return fail(std::move(fits).error().wrap(fmt::format("instance '{}' stands against it", i->name)));
  if (is_limited(next)) VIRGA_CHECK(check_room(old, next, count(next.name, {})));
  return hold({.instances = {}, .project = {}, .more = {}, .edited = std::make_shared<const Project>(next)});
}

Amounts Policy::used(const std::string& project) const {
  return count(project, {});
}

}  // namespace virga::engine
