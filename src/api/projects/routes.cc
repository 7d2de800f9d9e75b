// /1.0/projects
#include "api/routes.h"

#include <fmt/format.h>

#include "api/body.h"
#include "api/etag.h"
#include "api/projects/json.h"
#include "api/respond.h"
#include "api/router.h"
#include "engine/operations/operations.h"
#include "engine/projects/service.h"
#include "engine/url.h"

namespace virga::api {
namespace {

using http::Response;

json::object show(Context& c, const Project& p) {
  return project_json(p, c.services.projects.used_by(p.name));
}

/// A project that the caller may not use looks like one that does not exist.
Result<engine::ProjectPtr> find(Context& c) {
  if (!c.identity.may_use(c.param(0))) return fail(ErrorKind::not_found, fmt::format("no project '{}'", c.param(0)));
  return c.services.projects.get(c.param(0));
}

Task<Result<Response>> list(Context& c) {
  std::vector<engine::ProjectPtr> projects;
  for (auto& p : c.services.projects.list())
    if (c.identity.may_use(p->name)) projects.push_back(std::move(p));
  VIRGA_CO_TRY(auto out, list_objects(
                             c, projects, [](const Project& p) { return engine::project_url(p.name); },
                             [&](const Project& p) { return show(c, p); }));
  co_return sync(out);
}

Task<Result<Response>> create(Context& c) {
  VIRGA_CO_TRY(auto body, c.json());
  const Fields fields(body);
  VIRGA_CO_CHECK(fields.only({"name", "description", "config"}));
  Project project;
  VIRGA_CO_TRY(project.name, fields.string("name"));
  VIRGA_CO_TRY(project.description, fields.string("description"));
  VIRGA_CO_TRY(project.config, fields.string_map("config"));
  auto made = co_await c.services.projects.create(std::move(project), c.caller());
  if (!made) co_return fail(std::move(made).error());
  co_return created(engine::project_url((*made)->name));
}

Task<Result<Response>> get(Context& c) {
  VIRGA_CO_TRY(auto project, find(c));
  co_return with_etag(sync(show(c, *project)), project_etag(*project));
}

Task<Result<Response>> change(Context& c, bool replace) {
  VIRGA_CO_TRY(auto project, find(c));
  VIRGA_CO_CHECK(check_match(c.request, project_etag(*project)));
  VIRGA_CO_TRY(auto body, c.json());
  const Fields fields(body);
  VIRGA_CO_CHECK(fields.only({"description", "config", "name", "used_by"}));
  VIRGA_CO_TRY(auto description, read_text(fields, "description"));
  VIRGA_CO_TRY(auto config, read_config(fields));
  const auto expected = replace ? expected_revision(c, project->revision) : std::optional(project->revision);
  auto changed = co_await c.services.projects.update(
      project->name, description.value_or(replace ? "" : project->description),
      replace ? config.value_or(Config()) : merge(project->config, config.value_or(Config())), expected, c.caller());
  if (!changed) co_return fail(std::move(changed).error());
  co_return empty();
}

Task<Result<Response>> put(Context& c) {
  return change(c, true);
}
Task<Result<Response>> patch(Context& c) {
  return change(c, false);
}

/// Incus makes an operation of it; the stock client waits for one.
Task<Result<Response>> rename(Context& c) {
  VIRGA_CO_TRY(auto project, find(c));
  VIRGA_CO_TRY(auto body, c.json());
  const Fields fields(body);
  VIRGA_CO_CHECK(fields.only({"name"}));
  VIRGA_CO_TRY(auto name, fields.string("name"));
  engine::OperationSpec spec;
  spec.description = "Renaming project";
  spec.resources["projects"] = {engine::project_url(project->name)};
  spec.caller = c.caller();
  auto* projects = &c.services.projects;
  engine::Operations::Body run = [projects, old = project->name, name, caller = c.caller()](engine::Operation&) -> Task<Result<>> {
    auto renamed = co_await projects->rename(old, name, caller);
    if (!renamed) co_return fail(std::move(renamed).error());
    co_return Result<>{};
  };
  VIRGA_CO_TRY(auto operation, c.services.operations.start(std::move(spec), std::move(run)));
  co_return accepted(*operation);
}

Task<Result<Response>> remove(Context& c) {
  VIRGA_CO_TRY(auto project, find(c));
  VIRGA_CO_CHECK(co_await c.services.projects.remove(project->name, expected_revision(c, project->revision), c.caller()));
  co_return empty();
}

/// Limit and use of each resource, in numbers and bytes; a limit of -1 is none.
Task<Result<Response>> state(Context& c) {
  VIRGA_CO_TRY(auto project, find(c));
  co_return sync(project_state_json(*project, c.services.projects.policy().used(project->name)));
}

}  // namespace

void add_project_routes(Router& router) {
  using http::Method;
  router.add(Method::get, "/1.0/projects", {.handler = list, .spans = true});
  router.add(Method::post, "/1.0/projects", {create, Access::admin});
  router.add(Method::get, "/1.0/projects/{name}", {get});
  router.add(Method::put, "/1.0/projects/{name}", {put, Access::admin});
  router.add(Method::patch, "/1.0/projects/{name}", {patch, Access::admin});
  router.add(Method::post, "/1.0/projects/{name}", {rename, Access::admin});
  router.add(Method::del, "/1.0/projects/{name}", {remove, Access::admin});
  router.add(Method::get, "/1.0/projects/{name}/state", {state});
}

}  // namespace virga::api
