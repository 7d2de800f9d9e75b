#include "engine/projects/service.h"

#include "engine/url.h"

namespace virga::engine {
namespace {

tl::unexpected<Error> denied_for_default(const char* what) {
  return fail(ErrorKind::denied, std::string("the default project cannot be ") + what);
}

/// The feature keys of a configuration, with their values as booleans.
std::map<std::string, bool> features(const Project& project) {
  Project full = project;
  set_defaults(full);
  return {{"features.images", full.has_images()},
          {"features.profiles", full.has_profiles()},
          {"features.networks", full.has_networks()},
          {"features.storage.buckets", full.has_buckets()},
          {"features.storage.volumes", full.has_volumes()}};
}

}  // namespace

Projects::Projects(Store& store, Events& events)
    : store_(store),
      events_(events),
      cache_(store, "/projects/", decode_project),
      policy_([this](std::string_view name) { return find(name); }) {}

std::string Projects::key(std::string_view name) {
  return "/projects/" + std::string(name);
}

Task<Result<>> Projects::start() {
  VIRGA_CO_CHECK(co_await cache_.load());
  if (find("default")) co_return Result<>();
  Project project;
  project.name = "default";
  project.description = "Default virga project";
  auto made = co_await create(std::move(project), internal_caller());
  if (!made) co_return fail(std::move(made).error().wrap("make the default project"));
  co_return Result<>();
}

ProjectPtr Projects::find(std::string_view name) const {
  return cache_.find(key(name));
}

Result<ProjectPtr> Projects::get(std::string_view name) const {
  if (auto project = find(name)) return project;
  return fail(ErrorKind::not_found, "no project '" + std::string(name) + "'");
}

std::vector<ProjectPtr> Projects::list() const {
  return cache_.list();
}

std::vector<std::string> Projects::used_by(std::string_view name) const {
  auto out = usage_ ? usage_(name) : std::vector<std::string>();
  if (auto project = find(name); project && project->has_profiles()) out.push_back(profile_url(name, "default"));
  return out;
}

Result<std::string> Projects::images_of(std::string_view name) const {
  VIRGA_TRY(auto project, get(name));
  return project->has_images() ? project->name : "default";
}
Result<std::string> Projects::profiles_of(std::string_view name) const {
  VIRGA_TRY(auto project, get(name));
  return project->has_profiles() ? project->name : "default";
}
Result<std::string> Projects::networks_of(std::string_view name) const {
  VIRGA_TRY(auto project, get(name));
  return project->has_networks() ? project->name : "default";
}
Result<std::string> Projects::volumes_of(std::string_view name) const {
  VIRGA_TRY(auto project, get(name));
  return project->has_volumes() ? project->name : "default";
}

Result<> Projects::check_unused(const std::string& name, const char* doing) const {
  const auto urls = usage_ ? usage_(name) : std::vector<std::string>();
  if (urls.empty()) return {};
  std::string some;
  for (std::size_t i = 0; i < urls.size() && i < 3; ++i) some += (i > 0 ? ", " : "") + describe_url(urls[i]);
  if (urls.size() > 3) some += " and " + std::to_string(urls.size() - 3) + " more";
  return fail(ErrorKind::busy, std::string("cannot ") + doing + " project '" + name + "': it holds " + some);
}

Task<Result<ProjectPtr>> Projects::create(Project project, Caller caller) {
  set_defaults(project);
  VIRGA_CO_CHECK(check(project));
  if (find(project.name)) co_return fail(ErrorKind::exists, "project '" + project.name + "' exists already");
  Transaction t;
  t.expect(key(project.name), 0).put(key(project.name), json::serialize(encode(project)));
  if (companions_.made) companions_.made(project, t);
  auto revision = co_await store_.commit(std::move(t));
  if (!revision && revision.error().kind() == ErrorKind::conflict)
    co_return fail(ErrorKind::exists, "project '" + project.name + "' exists already");
  if (!revision) co_return fail(std::move(revision).error());
  events_.lifecycle("project-created", project.name, project_url(project.name), caller);
  co_return get(project.name);
}

Task<Result<ProjectPtr>> Projects::update(std::string name, std::string description, Config config,
                                          std::optional<Revision> expected, Caller caller) {
  VIRGA_CO_TRY(const ProjectPtr old, get(name));
  Project next = *old;
  next.description = std::move(description);
  next.config = std::move(config);
  std::erase_if(next.config, [](const auto& entry) { return entry.second.empty(); });
  set_defaults(next);
  VIRGA_CO_CHECK(check(next));
  if (is_default(next)) {
    for (const auto& [feature, on] : features(*old))
      if (!parse_bool(next.config[feature]).value_or(false)) co_return denied_for_default("without any of its features");
  } else if (features(next) != features(*old)) {
    VIRGA_CO_CHECK(check_unused(name, "change the features of"));
  }
  VIRGA_CO_TRY(const Policy::Hold held, policy_.check(*old, next));
  Transaction t;
  t.expect(key(name), expected.value_or(old->revision)).put(key(name), json::serialize(encode(next)));
  if (old->has_profiles() && !next.has_profiles() && companions_.gone) companions_.gone(*old, t);
  if (!old->has_profiles() && next.has_profiles() && companions_.made) companions_.made(next, t);
  auto revision = co_await store_.commit(std::move(t));
  if (!revision) co_return fail(std::move(revision).error());
  events_.lifecycle("project-updated", name, project_url(name), caller);
  co_return get(name);
}

Task<Result<ProjectPtr>> Projects::rename(std::string name, std::string new_name, Caller caller) {
  VIRGA_CO_TRY(const ProjectPtr old, get(name));
  if (is_default(*old)) co_return denied_for_default("renamed");
  Project next = *old;
  next.name = new_name;
  VIRGA_CO_CHECK(check(next));
  if (find(new_name)) co_return fail(ErrorKind::exists, "project '" + new_name + "' exists already");
  VIRGA_CO_CHECK(check_unused(name, "rename"));
  Transaction t;
  t.expect(key(name), old->revision).expect(key(new_name), 0).erase(key(name)).put(key(new_name), json::serialize(encode(next)));
  if (companions_.gone) companions_.gone(*old, t);
  if (companions_.made) companions_.made(next, t);
  if (companions_.moved) companions_.moved(old->name, next.name, t);
  auto revision = co_await store_.commit(std::move(t));
  if (!revision) co_return fail(std::move(revision).error());
  events_.lifecycle("project-renamed", new_name, project_url(new_name), caller, {{"old_name", name}});
  co_return get(new_name);
}

Task<Result<>> Projects::remove(std::string name, std::optional<Revision> expected, Caller caller) {
  VIRGA_CO_TRY(const ProjectPtr old, get(name));
  if (is_default(*old)) co_return denied_for_default("deleted");
  VIRGA_CO_CHECK(check_unused(name, "delete"));
  Transaction t;
  t.expect(key(name), expected.value_or(old->revision)).erase(key(name));
  if (companions_.gone) companions_.gone(*old, t);
  if (companions_.moved) companions_.moved(old->name, "", t);
  auto revision = co_await store_.commit(std::move(t));
  if (!revision) co_return fail(std::move(revision).error());
  events_.lifecycle("project-deleted", name, project_url(name), caller);
  co_return Result<>();
}

}  // namespace virga::engine
