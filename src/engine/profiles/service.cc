#include "engine/profiles/service.h"

#include "engine/url.h"

namespace virga::engine {
namespace {

tl::unexpected<Error> denied_for_default(const char* what) {
  return fail(ErrorKind::denied, std::string("the 'default' profile cannot be ") + what);
}

Profile default_profile(const std::string& project) {
  Profile p;
  p.project = project;
  p.name = "default";
  p.description = project == "default" ? "Default virga profile" : "Default virga profile for project " + project;
  return p;
}

}  // namespace

Profiles::Profiles(Store& store, Events& events) : store_(store), events_(events), cache_(store, "/profiles/", decode_profile) {
  cache_.on_change([this](const std::string&, const ProfilePtr&, const ProfilePtr& after) {
    if (after && on_change_) on_change_(after->project, after->name);
  });
}

std::string Profiles::key(std::string_view project, std::string_view name) {
  return "/profiles/" + std::string(project) + "/" + std::string(name);
}

Task<Result<>> Profiles::start() {
  VIRGA_CO_CHECK(co_await cache_.load());
  if (find("default", "default")) co_return Result<>();
  auto made = co_await create(default_profile("default"), internal_caller());
  if (!made) co_return fail(std::move(made).error().wrap("make the default profile"));
  co_return Result<>();
}

void Profiles::project_made(const Project& project, Transaction& transaction) const {
  // The default project's is made at start, which comes after the projects'.
  if (is_default(project) || !project.has_profiles()) return;
  transaction.put(key(project.name, "default"), json::serialize(encode(default_profile(project.name))));
}

void Profiles::project_gone(const Project& project, Transaction& transaction) const {
  for (const auto& profile : list(project.name)) transaction.erase(key(profile->project, profile->name));
}

ProfilePtr Profiles::find(std::string_view project, std::string_view name) const {
  return cache_.find(key(project, name));
}

Result<ProfilePtr> Profiles::get(std::string_view project, std::string_view name) const {
  if (auto profile = find(project, name)) return profile;
  return fail(ErrorKind::not_found, "no profile '" + std::string(name) + "'");
}

Result<std::vector<ProfilePtr>> Profiles::get_all(std::string_view project, const std::vector<std::string>& names) const {
  std::vector<ProfilePtr> out;
  for (const auto& name : names) {
    auto profile = get(project, name);
    if (!profile) return fail(std::move(profile).error().with_field("profiles"));
    out.push_back(std::move(*profile));
  }
  return out;
}

std::vector<ProfilePtr> Profiles::list(std::string_view project) const {
  return project.empty() ? cache_.list() : cache_.list(key(project, ""));
}

std::vector<std::string> Profiles::used_by(std::string_view project, std::string_view name) const {
  return usage_ ? usage_(project, name) : std::vector<std::string>();
}

Task<Result<ProfilePtr>> Profiles::create(Profile profile, Caller caller) {
  VIRGA_CO_CHECK(check(profile));
  const std::string k = key(profile.project, profile.name);
  if (find(profile.project, profile.name)) co_return fail(ErrorKind::exists, "profile '" + profile.name + "' exists already");
  std::shared_ptr<void> held;
  if (policy_) {
    VIRGA_CO_TRY(held, policy_(profile));
  }
  Transaction t;
  t.expect(k, 0).put(k, json::serialize(encode(profile)));
  auto revision = co_await store_.commit(std::move(t));
  if (!revision && revision.error().kind() == ErrorKind::conflict)
    co_return fail(ErrorKind::exists, "profile '" + profile.name + "' exists already");
  if (!revision) co_return fail(std::move(revision).error());
  events_.lifecycle("profile-created", profile.project, profile_url(profile.project, profile.name), caller);
  co_return get(profile.project, profile.name);
}

Task<Result<ProfilePtr>> Profiles::update(std::string project, std::string name, Update update, std::optional<Revision> expected,
                                          Caller caller) {
  VIRGA_CO_TRY(const ProfilePtr old, get(project, name));
  Profile next = *old;
  next.description = std::move(update.description);
  next.config = std::move(update.config);
  next.devices = std::move(update.devices);
  VIRGA_CO_CHECK(check(next));
  std::shared_ptr<void> held;
  if (policy_) {
    VIRGA_CO_TRY(held, policy_(next));
  }
  const std::string k = key(project, name);
  Transaction t;
  t.expect(k, expected.value_or(old->revision)).put(k, json::serialize(encode(next)));
  auto revision = co_await store_.commit(std::move(t));
  if (!revision) co_return fail(std::move(revision).error());
  events_.lifecycle("profile-updated", project, profile_url(project, name), caller);
  co_return get(project, name);
}

Task<Result<ProfilePtr>> Profiles::rename(std::string project, std::string name, std::string new_name, Caller caller) {
  VIRGA_CO_TRY(const ProfilePtr old, get(project, name));
  if (name == "default") co_return denied_for_default("renamed");
  Profile next = *old;
  next.name = new_name;
  VIRGA_CO_CHECK(check(next));
  if (find(project, new_name)) co_return fail(ErrorKind::exists, "profile '" + new_name + "' exists already");
  Transaction t;
  t.expect(key(project, name), old->revision).expect(key(project, new_name), 0);
  t.erase(key(project, name)).put(key(project, new_name), json::serialize(encode(next)));
  if (const auto urls = used_by(project, name); !urls.empty()) {
    if (!on_rename_)
      co_return fail(ErrorKind::busy, "profile '" + name + "' cannot be renamed: " + describe_url(urls.front()) + " uses it");
    VIRGA_CO_CHECK(on_rename_(*old, new_name, t));
  }
  auto revision = co_await store_.commit(std::move(t));
  if (!revision) co_return fail(std::move(revision).error());
  events_.lifecycle("profile-renamed", project, profile_url(project, new_name), caller, {{"old_name", name}});
  co_return get(project, new_name);
}

Task<Result<>> Profiles::remove(std::string project, std::string name, Caller caller) {
  VIRGA_CO_TRY(const ProfilePtr old, get(project, name));
  if (name == "default") co_return denied_for_default("deleted");
  if (const auto urls = used_by(project, name); !urls.empty())
    co_return fail(ErrorKind::busy, "profile '" + name + "' cannot be deleted: " + describe_url(urls.front()) +
                                        (urls.size() > 1 ? " and others use it" : " uses it"));
  Transaction t;
  t.expect(key(project, name), old->revision).erase(key(project, name));
  auto revision = co_await store_.commit(std::move(t));
  if (!revision) co_return fail(std::move(revision).error());
  events_.lifecycle("profile-deleted", project, profile_url(project, name), caller);
  co_return Result<>();
}

}  // namespace virga::engine
