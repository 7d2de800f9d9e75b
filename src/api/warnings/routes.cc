// /1.0/warnings
#include "api/routes.h"

#include "api/body.h"
#include "api/respond.h"
#include "api/router.h"
#include "engine/url.h"
#include "engine/warnings/service.h"

namespace virga::api {
namespace {

using http::Response;

json::object show(const Warning& w) {
  return {{"uuid", w.uuid},
          {"location", "none"},
          {"project", w.project},
          {"type", to_string(w.type)},
          {"status", to_string(w.status)},
          {"severity", severity_of(w.type)},
          {"count", w.count},
          {"first_seen_at", format_time(w.first_seen_at)},
          {"last_seen_at", format_time(w.last_seen_at)},
          {"last_message", w.message},
          {"entity_url", w.entity_url}};
}

/// What concerns the whole server is for those who are not restricted.
bool may_see(const Identity& identity, const Warning& w) {
  return !identity.restricted || (!w.project.empty() && identity.may_use(w.project));
}

Result<engine::WarningPtr> find(Context& c) {
  VIRGA_TRY(auto warning, c.services.warnings.get(c.param(0)));
  if (!may_see(c.identity, *warning)) return fail(ErrorKind::not_found, "Warning not found");
  return warning;
}

Task<Result<Response>> list(Context& c) {
  // Unlike elsewhere no project means all.
  const bool one = !c.query("project").empty();
  auto warnings = c.services.warnings.list();
  std::erase_if(warnings, [&](const auto& w) { return !may_see(c.identity, *w) || (one && w->project != c.project); });
  VIRGA_CO_TRY(auto out, list_objects(c, warnings, [](const Warning& w) { return engine::url({"warnings", w.uuid}); }, show));
  co_return sync(out);
}

Task<Result<Response>> get(Context& c) {
  VIRGA_CO_TRY(auto warning, find(c));
  co_return sync(show(*warning));
}

/// People acknowledge a warning or take that back; "resolved" is the daemon's word.
Task<Result<Response>> change(Context& c) {
  VIRGA_CO_TRY(auto warning, find(c));
  VIRGA_CO_TRY(auto body, c.json());
  const Fields fields(body);
  VIRGA_CO_CHECK(fields.only({"status", "uuid", "location", "project", "type", "severity", "count", "first_seen_at", "last_seen_at",
                              "last_message", "entity_url"}));
  VIRGA_CO_TRY(const auto status, fields.string("status"));
  if (status != "new" && status != "acknowledged") {
    if (status == "resolved") co_return fail(ErrorKind::denied, "status may only be set to 'acknowledged' or 'new'");
    co_return invalid("status", "'" + status + "' is not a status of warnings: acknowledged or new");
  }
  const auto next = status == "new" ? WarningStatus::fresh : WarningStatus::acknowledged;
  auto changed = co_await c.services.warnings.set_status(warning->uuid, next, c.caller());
  if (!changed) co_return fail(std::move(changed).error());
  co_return empty();
}

Task<Result<Response>> remove(Context& c) {
  VIRGA_CO_TRY(auto warning, find(c));
  auto removed = co_await c.services.warnings.remove(warning->uuid, c.caller());
  if (!removed) co_return fail(std::move(removed).error());
  co_return empty();
}

}  // namespace

void add_warning_routes(Router& router) {
  using http::Method;
  router.add(Method::get, "/1.0/warnings", {.handler = list, .spans = true});
  router.add(Method::get, "/1.0/warnings/{uuid}", {get});
  router.add(Method::put, "/1.0/warnings/{uuid}", {change, Access::admin});
  router.add(Method::patch, "/1.0/warnings/{uuid}", {change, Access::admin});
  router.add(Method::del, "/1.0/warnings/{uuid}", {remove, Access::admin});
}

}  // namespace virga::api
