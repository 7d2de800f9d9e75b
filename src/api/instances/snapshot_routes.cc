// /1.0/instances/{name}/snapshots
#include <fmt/format.h>

#include "api/body.h"
#include "api/context.h"
#include "api/etag.h"
#include "api/instances/json.h"
#include "api/respond.h"
#include "api/router.h"
#include "api/routes.h"
#include "engine/instances/service.h"
#include "engine/operations/operations.h"
#include "engine/url.h"

namespace virga::api {
namespace {

using engine::Instances;
using http::Response;

Result<Instances::Ptr> find(Context& c) {
  if (auto instance = c.services.instances.find(c.project, c.param(0))) return instance;
  return fail(ErrorKind::not_found, fmt::format("instance '{}' does not exist in project '{}'", c.param(0), c.project));
}

std::string etag(const InstanceSnapshot& snapshot) {
  return etag_of(json::array{snapshot.name, format_time(snapshot.expires_at)});
}

/// Absent where the body has none; null is as an empty text, never.
Result<std::optional<WallTime>> read_expiry(const json::object& body) {
  const auto* value = body.if_contains("expires_at");
  if (value == nullptr) return std::optional<WallTime>();
  if (value->is_null()) return std::optional(WallTime{});
  VIRGA_TRY(const auto text, Fields(body).string("expires_at"));
  if (text.empty()) return std::optional(WallTime{});
  auto time = parse_time(text);
  if (!time) return fail(std::move(time).error().wrap("expires_at").with_field("expires_at"));
  return std::optional(*time);
}

Task<Result<Response>> list(Context& c) {
  VIRGA_CO_TRY(auto instance, find(c));
  VIRGA_CO_TRY(auto out, list_objects(
                             c, c.services.instances.snapshots(*instance),
                             [&](const InstanceSnapshot& s) { return engine::snapshot_url(c.project, instance->name, s.name); },
                             [](const InstanceSnapshot& s) { return snapshot_json(s); }));
  co_return sync(out);
}

Task<Result<Response>> create(Context& c) {
  VIRGA_CO_TRY(auto instance, find(c));
  VIRGA_CO_TRY(auto body, c.json());
  const Fields fields(body);
  VIRGA_CO_CHECK(fields.only({"name", "stateful", "expires_at"}));
  engine::CreateSnapshot request;
  VIRGA_CO_TRY(request.name, fields.string("name"));
  VIRGA_CO_TRY(request.stateful, fields.boolean("stateful"));
  // Null says nothing here: the instance's own rule holds then.
  if (const auto* expiry = body.if_contains("expires_at"); expiry != nullptr && !expiry->is_null()) {
    VIRGA_CO_TRY(request.expires_at, read_expiry(body));
  }
  VIRGA_CO_TRY(auto operation, c.services.instances.create_snapshot(c.caller(), c.project, instance->name, std::move(request)));
  co_return accepted(*operation);
}

Task<Result<Response>> get(Context& c) {
  VIRGA_CO_TRY(auto instance, find(c));
  VIRGA_CO_TRY(auto snapshot, c.services.instances.snapshot(*instance, c.param(1)));
  co_return with_etag(sync(snapshot_json(*snapshot)), etag(*snapshot));
}

Result<engine::OperationPtr> start_update(Context& c) {
  VIRGA_TRY(auto instance, find(c));
  VIRGA_TRY(auto snapshot, c.services.instances.snapshot(*instance, c.param(1)));
  VIRGA_CHECK(check_match(c.request, etag(*snapshot)));
  VIRGA_TRY(auto body, c.json());
  // Besides what may change, what a client got from GET may stay in.
  VIRGA_CHECK(
      Fields(body).only({"expires_at", "name", "architecture", "config", "created_at", "devices", "ephemeral", "expanded_config",
                         "expanded_devices", "last_used_at", "profiles", "size", "stateful", "description"}));
  VIRGA_TRY(auto expiry, read_expiry(body));
  return c.services.instances.update_snapshot(c.caller(), c.project, instance->name, snapshot->name,
                                              expiry.value_or(snapshot->expires_at), expected_revision(c, snapshot->revision));
}

Task<Result<Response>> put(Context& c) {
  VIRGA_CO_TRY(auto operation, start_update(c));
  co_return accepted(*operation);
}

Task<Result<Response>> patch(Context& c) {
  VIRGA_CO_TRY(auto operation, start_update(c));
  VIRGA_CO_TRY(auto done, co_await c.services.operations.wait(operation->id(), std::nullopt));
  if (done->error()) co_return fail(*done->error());
  co_return empty();
}

Task<Result<Response>> rename(Context& c) {
  VIRGA_CO_TRY(auto instance, find(c));
  VIRGA_CO_TRY(auto body, c.json());
  const Fields fields(body);
  VIRGA_CO_CHECK(fields.only({"name", "migration", "live", "target"}));
  VIRGA_CO_TRY(const bool migration, fields.boolean("migration"));
  VIRGA_CO_TRY(const bool live, fields.boolean("live"));
  if (migration || live)
    co_return fail(
        Error(ErrorKind::unsupported, "moving a snapshot to another server is not implemented yet").with_field("migration"));
  VIRGA_CO_TRY(auto name, fields.string("name"));
  if (name.starts_with(instance->name + "/")) name.erase(0, instance->name.size() + 1);
  VIRGA_CO_TRY(auto operation, c.services.instances.rename_snapshot(c.caller(), c.project, instance->name, c.param(1), name));
  co_return accepted(*operation);
}

Task<Result<Response>> remove(Context& c) {
  VIRGA_CO_TRY(auto instance, find(c));
  VIRGA_CO_TRY(auto operation, c.services.instances.remove_snapshot(c.caller(), c.project, instance->name, c.param(1)));
  co_return accepted(*operation);
}

}  // namespace

void add_snapshot_routes(Router& router) {
  using http::Method;
  router.add(Method::get, "/1.0/instances/{name}/snapshots", {list});
  router.add(Method::post, "/1.0/instances/{name}/snapshots", {create});
  router.add(Method::get, "/1.0/instances/{name}/snapshots/{snapshot}", {get});
  router.add(Method::put, "/1.0/instances/{name}/snapshots/{snapshot}", {put});
  router.add(Method::patch, "/1.0/instances/{name}/snapshots/{snapshot}", {patch});
  router.add(Method::post, "/1.0/instances/{name}/snapshots/{snapshot}", {rename});
  router.add(Method::del, "/1.0/instances/{name}/snapshots/{snapshot}", {remove});
}

}  // namespace virga::api
