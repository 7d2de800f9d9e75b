// /1.0/networks: they belong to the whole server; every project may use them.
#include "api/routes.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>
#include <string>

#include "api/body.h"
#include "api/etag.h"
#include "api/networks/json.h"
#include "api/respond.h"
#include "api/router.h"
#include "engine/instances/service.h"
#include "engine/networks/service.h"
#include "engine/projects/service.h"
#include "engine/url.h"
#include "model/project_restrictions.h"

namespace virga::api {
namespace {

using http::Response;

/// Who is restricted to projects does not learn what others have.
json::object show(Context& c, const Network& n) {
  return network_json(n, c.identity.visible(c.services.networks.used_by(n.name)));
}

/// What a project may not use looks like what does not exist (restricted.networks.access).
bool may_see(Context& c, const Network& n) {
  auto allows = [&](const std::string& name) {
    const auto project = c.services.projects.find(name);
    return project && may_use_network(*project, n.name);
  };
  // Who named none, or asked for all, is in each of his own.
  const bool in_one = !c.identity.restricted || (!c.all_projects && c.identity.may_use(c.project));
  return in_one ? allows(c.project) : std::any_of(c.identity.projects.begin(), c.identity.projects.end(), allows);
}

Result<engine::Networks::Ptr> find(Context& c) {
  if (auto network = c.services.networks.find(c.param(0)); network && may_see(c, *network)) return network;
  return fail(ErrorKind::not_found, fmt::format("network '{}' does not exist", c.param(0)));
}

Task<Result<Response>> list(Context& c) {
  auto networks = c.services.networks.list();
  std::erase_if(networks, [&](const auto& n) { return !may_see(c, *n); });
  VIRGA_CO_TRY(auto out, list_objects(
                             c, networks, [](const Network& n) { return engine::network_url("", n.name); },
                             [&](const Network& n) { return show(c, n); }));
  co_return sync(out);
}

Task<Result<Response>> create(Context& c) {
  VIRGA_CO_TRY(auto body, c.json());
  const Fields fields(body);
  VIRGA_CO_CHECK(fields.only({"name", "type", "description", "config"}));
  engine::CreateNetwork request;
  VIRGA_CO_TRY(request.name, fields.string("name"));
  VIRGA_CO_TRY(request.type, fields.string("type", "bridge"));
  if (request.type.empty()) request.type = "bridge";
  VIRGA_CO_TRY(request.description, fields.string("description"));
  VIRGA_CO_TRY(request.config, fields.string_map("config"));
  auto made = co_await c.services.networks.create(c.caller(), std::move(request));
  if (!made) co_return fail(std::move(made).error());
  co_return created(engine::network_url("", (*made)->name));
}

Task<Result<Response>> get(Context& c) {
  VIRGA_CO_TRY(auto network, find(c));
  co_return with_etag(sync(show(c, *network)), network_etag(*network));
}

Task<Result<Response>> change(Context& c, bool replace) {
  VIRGA_CO_TRY(auto network, find(c));
  VIRGA_CO_CHECK(check_match(c.request, network_etag(*network)));
  VIRGA_CO_TRY(auto body, c.json());
  const Fields fields(body);
  VIRGA_CO_CHECK(fields.only({"description", "config", "name", "type", "managed", "status", "locations", "project", "used_by"}));
  engine::UpdateNetwork request;
  request.replace = replace;
  VIRGA_CO_TRY(request.description, read_text(fields, "description"));
  VIRGA_CO_TRY(request.config, read_config(fields));
  VIRGA_CO_CHECK(
      co_await c.services.networks.update(c.caller(), network->name, std::move(request), expected_revision(c, network->revision)));
  co_return empty();
}

Task<Result<Response>> put(Context& c) {
  return change(c, true);
}
Task<Result<Response>> patch(Context& c) {
  return change(c, false);
}

Task<Result<Response>> rename(Context&) {
  co_return fail(ErrorKind::unsupported, "networks cannot be renamed yet");
}

Task<Result<Response>> remove(Context& c) {
  VIRGA_CO_CHECK(co_await c.services.networks.remove(c.caller(), c.param(0)));
  co_return empty();
}

/// The host's names of the NICs of instances that this client may see.
std::set<std::string> own_ports(Context& c) {
  std::set<std::string> out;
  for (const auto& instance : c.services.instances.list(std::nullopt)) {
    if (!c.identity.may_use(instance->project)) continue;
    for (const auto& [key, value] : instance->config)
      if (key.starts_with("volatile.") && key.ends_with(".host_name")) out.insert(value);
  }
  return out;
}

Task<Result<Response>> state(Context& c) {
  VIRGA_CO_TRY(auto network, find(c));
  VIRGA_CO_TRY(auto state, co_await c.services.networks.state(network->name));
  if (c.identity.restricted) {
    const auto own = own_ports(c);
    std::erase_if(state.ports, [&](const auto& port) { return !own.contains(port); });
  }
  co_return sync(network_state_json(state));
}

Task<Result<Response>> leases(Context& c) {
  VIRGA_CO_TRY(auto network, find(c));
  VIRGA_CO_TRY(auto leases, c.services.networks.leases(network->name));
  json::array out;
  for (const auto& l : leases)
    if (l.project.empty() || c.identity.may_use(l.project)) out.push_back(lease_json(l));
  co_return sync(out);
}

}  // namespace

void add_network_routes(Router& router) {
  using http::Method;
  router.add(Method::get, "/1.0/networks", {.handler = list, .spans = true});
  router.add(Method::post, "/1.0/networks", {create, Access::admin});
  router.add(Method::get, "/1.0/networks/{name}", {get});
  router.add(Method::put, "/1.0/networks/{name}", {put, Access::admin});
  router.add(Method::patch, "/1.0/networks/{name}", {patch, Access::admin});
  router.add(Method::post, "/1.0/networks/{name}", {rename, Access::admin});
  router.add(Method::del, "/1.0/networks/{name}", {remove, Access::admin});
  router.add(Method::get, "/1.0/networks/{name}/state", {state});
  router.add(Method::get, "/1.0/networks/{name}/leases", {leases});
}

}  // namespace virga::api
