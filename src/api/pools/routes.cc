// /1.0/storage-pools: they belong to the whole server; every project may use them.
#include "api/routes.h"

#include <fmt/format.h>

#include <algorithm>

#include "api/body.h"
#include "api/etag.h"
#include "api/pools/json.h"
#include "api/respond.h"
#include "api/router.h"
#include "base/units.h"
#include "engine/images/service.h"
#include "engine/instances/service.h"
#include "engine/pools/service.h"
#include "engine/projects/service.h"
#include "engine/url.h"
#include "model/project_restrictions.h"

namespace virga::api {
namespace {

using http::Response;

json::object show(Context& c, const Pool& p) {
  return pool_json(p, c.identity.visible(c.services.pools.used_by(p.name)));
}

/// What a project may not use looks like what does not exist (restricted.storage-pools.access).
bool may_see(Context& c, const Pool& p) {
  auto allows = [&](const std::string& name) {
    const auto project = c.services.projects.find(name);
    return project && may_use_pool(*project, p.name);
  };
  // Who named none, or asked for all, is in each of his own.
  const bool in_one = !c.identity.restricted || (!c.all_projects && c.identity.may_use(c.project));
  return in_one ? allows(c.project) : std::any_of(c.identity.projects.begin(), c.identity.projects.end(), allows);
}

Result<engine::Pools::Ptr> find(Context& c) {
  if (auto pool = c.services.pools.find(c.param(0)); pool && may_see(c, *pool)) return pool;
  return fail(ErrorKind::not_found, fmt::format("storage pool '{}' does not exist", c.param(0)));
}

Task<Result<Response>> list(Context& c) {
  auto pools = c.services.pools.list();
  std::erase_if(pools, [&](const auto& p) { return !may_see(c, *p); });
  VIRGA_CO_TRY(
      auto out,
      list_objects(c, pools, [](const Pool& p) { return engine::pool_url(p.name); }, [&](const Pool& p) { return show(c, p); }));
  co_return sync(out);
}

Task<Result<Response>> create(Context& c) {
  VIRGA_CO_TRY(auto body, c.json());
  const Fields fields(body);
  VIRGA_CO_CHECK(fields.only({"name", "driver", "description", "config"}));
  engine::CreatePool request;
  VIRGA_CO_TRY(request.name, fields.string("name"));
  VIRGA_CO_TRY(request.driver, fields.string("driver"));
  VIRGA_CO_TRY(request.description, fields.string("description"));
  VIRGA_CO_TRY(request.config, fields.string_map("config"));
  auto made = co_await c.services.pools.create(c.caller(), std::move(request));
  if (!made) co_return fail(std::move(made).error());
  co_return created(engine::pool_url((*made)->name));
}

Task<Result<Response>> get(Context& c) {
  VIRGA_CO_TRY(auto pool, find(c));
  co_return with_etag(sync(show(c, *pool)), pool_etag(*pool));
}

Task<Result<Response>> change(Context& c, bool replace) {
  VIRGA_CO_TRY(auto pool, find(c));
  VIRGA_CO_CHECK(check_match(c.request, pool_etag(*pool)));
  VIRGA_CO_TRY(auto body, c.json());
  const Fields fields(body);
  VIRGA_CO_CHECK(fields.only({"description", "config", "name", "driver", "status", "locations", "used_by"}));
  engine::UpdatePool request;
  request.replace = replace;
  VIRGA_CO_TRY(request.description, read_text(fields, "description"));
  VIRGA_CO_TRY(request.config, read_config(fields));
  VIRGA_CO_CHECK(
      co_await c.services.pools.update(c.caller(), pool->name, std::move(request), expected_revision(c, pool->revision)));
  co_return empty();
}

Task<Result<Response>> put(Context& c) {
  return change(c, true);
}
Task<Result<Response>> patch(Context& c) {
  return change(c, false);
}

Task<Result<Response>> remove(Context& c) {
  VIRGA_CO_CHECK(co_await c.services.pools.remove(c.caller(), c.param(0)));
  co_return empty();
}

Task<Result<Response>> resources(Context& c) {
  VIRGA_CO_TRY(auto pool, find(c));
  VIRGA_CO_TRY(auto usage, co_await c.services.pools.resources(pool->name));
  json::object space{{"used", usage.used}};
  if (usage.total) space["total"] = *usage.total;
  co_return sync(json::object{{"space", std::move(space)}, {"inodes", json::object{{"used", 0}, {"total", 0}}}});
}

/// From memory: the roots of instances. Images live in pools as caches that come and go; they are not shown.
std::vector<VolumeView> volumes_of(Context& c, const std::string& pool) {
  std::vector<VolumeView> out;
  for (const auto& i : c.services.instances.list(c.scope())) {
    if (i->pool != pool || !c.identity.may_use(i->project)) continue;
    const bool vm = i->type == InstanceType::virtual_machine;
    out.push_back({std::string(to_string(i->type)), i->name, i->project, vm ? "block" : "filesystem",
                   engine::instance_url(i->project, i->name), format_time(i->created_at)});
  }
  return out;
}

Task<Result<Response>> list_volumes(Context& c) {
  VIRGA_CO_TRY(auto pool, find(c));
  auto volumes = volumes_of(c, pool->name);
  if (c.params.size() > 1) std::erase_if(volumes, [&](const VolumeView& v) { return v.type != c.param(1); });
  std::vector<const VolumeView*> pointers;
  pointers.reserve(volumes.size());
  for (const auto& v : volumes) pointers.push_back(&v);
  VIRGA_CO_TRY(auto out, list_objects(
                             c, pointers, [&](const VolumeView& v) { return volume_url(pool->name, v); },
                             [](const VolumeView& v) { return volume_json(v); }));
  co_return sync(out);
}

Task<Result<Response>> get_volume(Context& c) {
  VIRGA_CO_TRY(auto pool, find(c));
  for (const auto& v : volumes_of(c, pool->name))
    if (v.type == c.param(1) && v.name == c.param(2)) co_return sync(volume_json(v));
  co_return fail(ErrorKind::not_found, fmt::format("volume '{}' of type '{}' does not exist", c.param(2), c.param(1)));
}

}  // namespace

void add_pool_routes(Router& router) {
  using http::Method;
  router.add(Method::get, "/1.0/storage-pools", {.handler = list, .spans = true});
  router.add(Method::post, "/1.0/storage-pools", {create, Access::admin});
  router.add(Method::get, "/1.0/storage-pools/{name}", {get});
  router.add(Method::put, "/1.0/storage-pools/{name}", {put, Access::admin});
  router.add(Method::patch, "/1.0/storage-pools/{name}", {patch, Access::admin});
  router.add(Method::del, "/1.0/storage-pools/{name}", {remove, Access::admin});
  router.add(Method::get, "/1.0/storage-pools/{name}/resources", {resources});
  router.add(Method::get, "/1.0/storage-pools/{name}/volumes", {.handler = list_volumes, .spans = true});
  router.add(Method::get, "/1.0/storage-pools/{name}/volumes/{type}", {.handler = list_volumes, .spans = true});
  router.add(Method::get, "/1.0/storage-pools/{name}/volumes/{type}/{volume}", {get_volume});
}

}  // namespace virga::api
