// /1.0/instances and one instance.
#include "api/routes.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "api/body.h"
#include "api/etag.h"
#include "api/images/source.h"
#include "api/instances/backup_routes.h"
#include "api/instances/json.h"
#include "api/instances/request.h"
#include "api/instances/state.h"
#include "api/respond.h"
#include "api/router.h"
#include "engine/instances/service.h"
#include "engine/operations/operations.h"
#include "engine/sampler/sampler.h"
#include "engine/url.h"

namespace virga::api {
namespace {

using engine::Instances;
using http::Response;

constexpr std::size_t most_reserved = 64u << 20;
constexpr Milliseconds first_sample{300};

Result<Instances::Ptr> find(Context& c) {
  if (auto instance = c.services.instances.find(c.project, c.param(0))) return instance;
  return fail(ErrorKind::not_found, fmt::format("instance '{}' does not exist in project '{}'", c.param(0), c.project));
}

/// Null where there are none, as the API has it.
json::value snapshots_of(Context& c, const Instance& instance) {
  json::array out;
  for (const auto& s : c.services.instances.snapshots(instance)) out.emplace_back(snapshot_json(*s));
  return out.empty() ? json::value() : json::value(std::move(out));
}

void append(Context& c, std::string& out, const Instances::Ptr& i) {
  if (c.recursion == 0) {
    // Percent-encoded: nothing in it needs an escape.
    out.append("\"").append(engine::instance_url(i->project, i->name)).append("\"");
    return;
  }
  out += c.shared.instance_cache.rendered(i);
  if (c.recursion == 1) return;
  // The full form: the same object with three fields more.
  out.pop_back();
  out += R"(,"backups":null,"snapshots":)";
  out += json::serialize(snapshots_of(c, *i));
  out += R"(,"state":)";
  append_known_state(out, c, *i);
  out.push_back('}');
}

/// Nothing is asked of guests, QEMU or disks: the cost is that of the text.
Task<Result<Response>> list(Context& c) {
  VIRGA_CO_TRY(auto filter, Filter::parse(c.query("filter")));
  std::optional<InstanceType> type;
  if (const auto text = c.query("instance-type"); !text.empty()) {
    VIRGA_CO_TRY(type, parse_instance_type(text));
  }
  // Only a sampler that slept is waited for, and not long: what it has by then is shown.
  if (c.recursion == 2) co_await c.services.sampler.wait_fresh(first_sample);
  // The plain lists of those who see everything, which monitoring asks for all the time.
  const bool plain = filter.empty() && !type && !c.identity.restricted && c.recursion < 2;
  const auto query = plain ? fmt::format("{}:{}", c.recursion, c.scope().value_or("")) : std::string();
  const auto generation = c.services.instances.generation();
  if (plain) {
    if (auto text = c.shared.instance_cache.shared_list(query, generation)) {
      Response response;
      response.body = std::move(text);
      co_return response;
    }
  }
  const auto instances = c.services.instances.list(c.scope());
  if (instances.size() > 256) c.shared.long_lists.used();
  auto out = begin_sync();
  out.push_back('[');
  bool first = true;
  for (const auto& i : instances) {
    if ((type && i->type != *type) || (c.all_projects && !c.identity.may_use(i->project))) continue;
    if (!filter.empty()) {
      VIRGA_CO_TRY(const bool matches, filter.matches([&](std::string_view field) { return instance_field(*i, field); }));
      if (!matches) continue;
    }
    if (!first) out.push_back(',');
    const auto before = out.size();
    append(c, out, i);
    // The others will be about as long: one allocation instead of many that are copied.
    if (std::exchange(first, false) && filter.empty())
      out.reserve(std::min(most_reserved, (instances.size() + 1) * (out.size() - before + 64)));
  }
  out.push_back(']');
  auto response = end_sync(std::move(out));
  if (plain) {
    auto text = std::make_shared<const std::string>(std::move(std::get<std::string>(response.body)));
    c.shared.instance_cache.share_list(query, generation, text);
    response.body = std::move(text);
  }
  co_return response;
}

/// A project that the caller may not use looks like one that does not exist.
Result<> set_source_project(const Context& c, engine::CopySource& source) {
  if (source.project.empty()) source.project = c.project;
  if (c.identity.may_use(source.project)) return {};
  return fail(Error(ErrorKind::not_found, fmt::format("no project '{}'", source.project)).with_field("source.project"));
}

Task<Result<Response>> create(Context& c) {
  if (c.request.headers.get("content-type") == "application/octet-stream") {
    VIRGA_CO_TRY(auto operation, co_await instance_from_upload(c));
    co_return accepted(*operation);
  }
  VIRGA_CO_TRY(auto body, c.json());
  VIRGA_CO_TRY(auto request, read_create(body));
  if (request.image_server) request.image_server->reach = reach_of(c);
  request.project = c.project;
  if (request.copy) VIRGA_CO_CHECK(set_source_project(c, *request.copy));
  VIRGA_CO_TRY(auto operation, co_await c.services.instances.create(c.caller(), std::move(request)));
  co_return accepted(*operation);
}

Task<Result<Response>> get(Context& c) {
  VIRGA_CO_TRY(auto instance, find(c));
  if (c.recursion == 0)
    co_return with_etag(sync_text(c.shared.instance_cache.rendered(instance)), c.shared.instance_cache.etag(instance));
  VIRGA_CO_TRY(auto state, co_await c.services.instances.state(c.project, c.param(0)));
  auto object = instance_json(*instance);
  object["backups"] = nullptr;
  object["snapshots"] = snapshots_of(c, *instance);
  object["state"] = instance_state_json(state);
  co_return with_etag(sync(object), c.shared.instance_cache.etag(instance));
}

Result<engine::OperationPtr> start_update(Context& c, bool replace) {
  VIRGA_TRY(auto instance, find(c));
  VIRGA_CHECK(check_match(c.request, instance_etag(*instance)));
  VIRGA_TRY(auto body, c.json());
  VIRGA_TRY(auto request, read_update(body, replace));
  return c.services.instances.update(c.caller(), c.project, c.param(0), std::move(request),
                                     expected_revision(c, instance->revision));
}

Task<Result<Response>> put(Context& c) {
  VIRGA_CO_TRY(auto body, c.json());
  VIRGA_CO_TRY(auto snapshot, read_restore(body));
  if (!snapshot.empty()) {
    VIRGA_CO_TRY(auto instance, find(c));
    VIRGA_CO_CHECK(check_match(c.request, instance_etag(*instance)));
    if (snapshot.starts_with(instance->name + "/")) snapshot.erase(0, instance->name.size() + 1);
    VIRGA_CO_TRY(auto restored, c.services.instances.restore(c.caller(), c.project, instance->name, snapshot));
    co_return accepted(*restored);
  }
  VIRGA_CO_TRY(auto operation, start_update(c, true));
  co_return accepted(*operation);
}

/// Unlike PUT it answers when it is done.
Task<Result<Response>> patch(Context& c) {
  VIRGA_CO_TRY(auto operation, start_update(c, false));
  VIRGA_CO_TRY(auto done, co_await c.services.operations.wait(operation->id(), std::nullopt));
  if (done->error()) co_return fail(*done->error());
  co_return empty();
}

/// A new name, another project, or both.
Task<Result<Response>> move(Context& c) {
  VIRGA_CO_TRY(auto instance, find(c));
  VIRGA_CO_TRY(auto body, c.json());
  VIRGA_CO_TRY(auto migrate, read_migrate(body));
  if (migrate) {
    VIRGA_CO_TRY(auto operation, c.services.instances.migrate(c.caller(), c.project, instance->name, std::move(*migrate)));
    co_return accepted(*operation);
  }
  VIRGA_CO_TRY(auto request, read_move(body));
  // A project that the caller may not use looks like one that does not exist.
  if (!request.project.empty() && !c.identity.may_use(request.project))
    co_return fail(Error(ErrorKind::not_found, fmt::format("no project '{}'", request.project)).with_field("project"));
  VIRGA_CO_TRY(auto operation, c.services.instances.move(c.caller(), c.project, instance->name, std::move(request)));
  co_return accepted(*operation);
}

Task<Result<Response>> remove(Context& c) {
  VIRGA_CO_TRY(auto instance, find(c));
  VIRGA_CO_TRY(auto operation, c.services.instances.remove(c.caller(), c.project, instance->name));
  co_return accepted(*operation);
}

Task<Result<Response>> state(Context& c) {
  VIRGA_CO_TRY(auto instance, find(c));
  VIRGA_CO_TRY(auto state, co_await c.services.instances.state(c.project, instance->name));
  co_return sync(instance_state_json(state));
}

Task<Result<Response>> change_state(Context& c) {
  VIRGA_CO_TRY(auto instance, find(c));
  VIRGA_CO_TRY(auto body, c.json());
  VIRGA_CO_TRY(auto change, read_state_change(body));
  VIRGA_CO_TRY(auto operation, c.services.instances.change_state(c.caller(), c.project, instance->name, change));
  co_return accepted(*operation);
}

Task<Result<Response>> exec(Context& c) {
  VIRGA_CO_TRY(auto instance, find(c));
  VIRGA_CO_TRY(auto body, c.json());
  VIRGA_CO_TRY(auto request, read_exec(body));
  VIRGA_CO_TRY(auto operation, c.services.instances.exec(c.caller(), c.project, instance->name, std::move(request)));
  co_return accepted(*operation);
}

}  // namespace

void add_instance_routes(Router& router) {
  using http::Method;
  router.add(Method::get, "/1.0/instances", {.handler = list, .spans = true});
  router.add(Method::post, "/1.0/instances", {.handler = create, .body = BodyKind::json_or_stream});
  router.add(Method::get, "/1.0/instances/{name}", {get});
  router.add(Method::put, "/1.0/instances/{name}", {put});
  router.add(Method::patch, "/1.0/instances/{name}", {patch});
  router.add(Method::post, "/1.0/instances/{name}", {move});
  router.add(Method::del, "/1.0/instances/{name}", {remove});
  router.add(Method::get, "/1.0/instances/{name}/state", {state});
  router.add(Method::put, "/1.0/instances/{name}/state", {change_state});
  router.add(Method::post, "/1.0/instances/{name}/exec", {exec});
}

}  // namespace virga::api
