// /1.0/profiles
#include "api/routes.h"

#include <fmt/format.h>

#include "api/body.h"
#include "api/etag.h"
#include "api/profiles/json.h"
#include "api/respond.h"
#include "api/router.h"
#include "engine/profiles/service.h"
#include "engine/projects/service.h"
#include "engine/url.h"

namespace virga::api {
namespace {

using http::Response;

json::object show(Context& c, const Profile& p) {
  return profile_json(p, c.identity.visible(c.services.profiles.used_by(p.project, p.name)));
}

/// Whose profiles a change is about. A project without profiles of its own uses those of "default", which who is restricted to it
/// may read but not change: they are others' too. Errors: not_found, denied.
Result<std::string> changeable(Context& c) {
  VIRGA_TRY(auto owner, c.services.projects.profiles_of(c.project));
  if (!c.identity.may_use(owner))
    return fail(ErrorKind::denied,
                fmt::format("project '{}' uses the profiles of project '{}', which you may not change", c.project, owner));
  return owner;
}

Task<Result<Response>> list(Context& c) {
  std::vector<engine::ProfilePtr> profiles;
  if (c.all_projects) {
    for (auto& p : c.services.profiles.list())
      if (c.identity.may_use(p->project)) profiles.push_back(std::move(p));
  } else {
    VIRGA_CO_TRY(auto owner, c.services.projects.profiles_of(c.project));
    profiles = c.services.profiles.list(owner);
  }
  VIRGA_CO_TRY(auto out, list_objects(
                             c, profiles, [](const Profile& p) { return engine::profile_url(p.project, p.name); },
                             [&](const Profile& p) { return show(c, p); }));
  co_return sync(out);
}

Task<Result<Response>> create(Context& c) {
  VIRGA_CO_TRY(auto body, c.json());
  const Fields fields(body);
  VIRGA_CO_CHECK(fields.only({"name", "description", "config", "devices"}));
  Profile profile;
  VIRGA_CO_TRY(profile.project, changeable(c));
  VIRGA_CO_TRY(profile.name, fields.string("name"));
  VIRGA_CO_TRY(profile.description, fields.string("description"));
  VIRGA_CO_TRY(profile.config, fields.string_map("config"));
  VIRGA_CO_TRY(profile.devices, fields.string_maps("devices"));
  auto made = co_await c.services.profiles.create(std::move(profile), c.caller());
  if (!made) co_return fail(std::move(made).error());
  co_return created(engine::profile_url((*made)->project, (*made)->name));
}

Task<Result<Response>> get(Context& c) {
  VIRGA_CO_TRY(auto owner, c.services.projects.profiles_of(c.project));
  VIRGA_CO_TRY(auto profile, c.services.profiles.get(owner, c.param(0)));
  co_return with_etag(sync(show(c, *profile)), profile_etag(*profile));
}

Task<Result<Response>> change(Context& c, bool replace) {
  VIRGA_CO_TRY(auto owner, changeable(c));
  VIRGA_CO_TRY(auto profile, c.services.profiles.get(owner, c.param(0)));
  VIRGA_CO_CHECK(check_match(c.request, profile_etag(*profile)));
  VIRGA_CO_TRY(auto body, c.json());
  const Fields fields(body);
  VIRGA_CO_CHECK(fields.only({"description", "config", "devices", "name", "used_by", "project"}));
  VIRGA_CO_TRY(auto description, read_text(fields, "description"));
  VIRGA_CO_TRY(auto config, read_config(fields));
  VIRGA_CO_TRY(auto devices, read_devices(fields));
  engine::Profiles::Update update;
  if (replace) {
    update = {description.value_or(""), config.value_or(Config()), devices.value_or(Devices())};
  } else {
    update = {description.value_or(profile->description), merge(profile->config, config.value_or(Config())), profile->devices};
    for (auto& [name, options] : devices.value_or(Devices())) update.devices[name] = options;
  }
  // A merge was made from what was read: it must still be that.
  const auto expected = replace ? expected_revision(c, profile->revision) : std::optional(profile->revision);
  auto changed = co_await c.services.profiles.update(owner, c.param(0), std::move(update), expected, c.caller());
  if (!changed) co_return fail(std::move(changed).error());
  co_return empty();
}

Task<Result<Response>> put(Context& c) {
  return change(c, true);
}
Task<Result<Response>> patch(Context& c) {
  return change(c, false);
}

Task<Result<Response>> rename(Context& c) {
  VIRGA_CO_TRY(auto owner, changeable(c));
  VIRGA_CO_TRY(auto body, c.json());
  const Fields fields(body);
  VIRGA_CO_CHECK(fields.only({"name"}));
  VIRGA_CO_TRY(auto name, fields.string("name"));
  auto renamed = co_await c.services.profiles.rename(owner, c.param(0), name, c.caller());
  if (!renamed) co_return fail(std::move(renamed).error());
  co_return created(engine::profile_url(owner, name));
}

Task<Result<Response>> remove(Context& c) {
  VIRGA_CO_TRY(auto owner, changeable(c));
  VIRGA_CO_CHECK(co_await c.services.profiles.remove(owner, c.param(0), c.caller()));
  co_return empty();
}

}  // namespace

void add_profile_routes(Router& router) {
  router.add(http::Method::get, "/1.0/profiles", {.handler = list, .spans = true});
  router.add(http::Method::post, "/1.0/profiles", {create});
  router.add(http::Method::get, "/1.0/profiles/{name}", {get});
  router.add(http::Method::put, "/1.0/profiles/{name}", {put});
  router.add(http::Method::patch, "/1.0/profiles/{name}", {patch});
  router.add(http::Method::post, "/1.0/profiles/{name}", {rename});
  router.add(http::Method::del, "/1.0/profiles/{name}", {remove});
}

}  // namespace virga::api
