// /1.0/instances/{name}/backups, and instances made of backups that are uploaded.
#include "api/instances/backup_routes.h"

#include <fmt/format.h>

#include "api/body.h"
#include "api/images/upload.h"
#include "api/respond.h"
#include "api/router.h"
#include "api/routes.h"
#include "engine/images/service.h"
#include "engine/instances/backups.h"
#include "engine/instances/service.h"
#include "engine/operations/operations.h"
#include "engine/url.h"
#include "wire/http/files.h"

namespace virga::api {
namespace {

using http::Response;

Result<engine::Instances::Ptr> find(Context& c) {
  if (auto instance = c.services.instances.find(c.project, c.param(0))) return instance;
  return fail(ErrorKind::not_found, fmt::format("instance '{}' does not exist in project '{}'", c.param(0), c.project));
}

json::object backup_json(const engine::Backup& b) {
  return {{"name", b.name},
          {"created_at", format_time(b.created_at)},
          {"expires_at", b.expires_at == WallTime{} ? "0001-01-01T00:00:00Z" : format_time(b.expires_at)},
          {"instance_only", b.instance_only},
          {"container_only", b.instance_only},
          {"optimized_storage", false}};
}

Result<engine::CreateBackup> read_backup(const json::object& body) {
  const Fields fields(body);
  VIRGA_CHECK(fields.only({"name", "expires_at", "instance_only", "container_only", "optimized_storage", "compression_algorithm",
                           "root_only", "target"}));
  engine::CreateBackup out;
  VIRGA_TRY(out.name, fields.string("name"));
  VIRGA_TRY(out.compression, fields.string("compression_algorithm"));
  VIRGA_TRY(const bool instance_only, fields.boolean("instance_only"));
  VIRGA_TRY(const bool container_only, fields.boolean("container_only"));
  out.instance_only = instance_only || container_only;
  VIRGA_CHECK(fields.boolean("root_only"));  // an instance has no other volumes yet
  VIRGA_TRY(const bool optimized, fields.boolean("optimized_storage"));
  if (optimized)
    return fail(Error(ErrorKind::unsupported,
                      "backups are plain tarballs, which every pool can take in: there is no form of "
                      "their own for pools of driver 'dir'")
                    .with_field("optimized_storage"));
  VIRGA_TRY(const auto target, fields.object("target"));
  if (!target.empty())
    return fail(Error(ErrorKind::unsupported, "backups are kept by the server: sending one elsewhere is not implemented yet")
                    .with_field("target"));
  VIRGA_TRY(const auto expires, fields.string("expires_at"));
  if (!expires.empty()) {
    auto at = parse_time(expires);
    if (!at) return fail(std::move(at).error().wrap("expires_at").with_field("expires_at"));
    // The year 1, as clients say "never".
    if (*at > WallTime{}) out.expires_at = *at;
  }
  return out;
}

Task<Result<Response>> list(Context& c) {
  VIRGA_CO_TRY(auto instance, find(c));
  VIRGA_CO_TRY(const auto backups, c.services.instances.backups(c.project, instance->name));
  json::array out;
  for (const auto& b : backups) {
    if (c.recursion > 0) {
      out.emplace_back(backup_json(b));
    } else {
      out.emplace_back(engine::url({"instances", instance->name, "backups", b.name}, instance->project));
    }
  }
  co_return sync(out);
}

Task<Result<Response>> create(Context& c) {
  VIRGA_CO_TRY(auto instance, find(c));
  VIRGA_CO_TRY(const auto body, c.json());
  VIRGA_CO_TRY(auto request, read_backup(body));
  VIRGA_CO_TRY(auto operation, c.services.instances.create_backup(c.caller(), c.project, instance->name, std::move(request)));
  co_return accepted(*operation);
}

Task<Result<Response>> get(Context& c) {
  VIRGA_CO_TRY(auto instance, find(c));
  VIRGA_CO_TRY(const auto backup, c.services.instances.backup(c.project, instance->name, c.param(1)));
  co_return sync(backup_json(backup));
}

Task<Result<Response>> rename(Context& c) {
  VIRGA_CO_TRY(auto instance, find(c));
  VIRGA_CO_TRY(const auto body, c.json());
  const Fields fields(body);
  VIRGA_CO_CHECK(fields.only({"name"}));
  VIRGA_CO_TRY(const auto name, fields.string("name"));
  VIRGA_CO_TRY(auto operation, c.services.instances.rename_backup(c.caller(), c.project, instance->name, c.param(1), name));
  co_return accepted(*operation);
}

Task<Result<Response>> remove(Context& c) {
  VIRGA_CO_TRY(auto instance, find(c));
  VIRGA_CO_TRY(auto operation, c.services.instances.remove_backup(c.caller(), c.project, instance->name, c.param(1)));
  co_return accepted(*operation);
}

Task<Result<Response>> download(Context& c) {
  VIRGA_CO_TRY(auto instance, find(c));
  VIRGA_CO_TRY(const auto path, c.services.instances.backup_file(c.project, instance->name, c.param(1)));
  VIRGA_CO_TRY(auto file, http::open_file(path));
  Response response;
  response.content_type = "application/octet-stream";
  response.body = std::move(file);
  co_return response;
}

}  // namespace

Task<Result<engine::OperationPtr>> instance_from_upload(Context& c) {
  const auto& headers = c.request.headers;
  for (const auto* header : {"x-incus-config", "x-incus-devices", "x-incus-profiles"})
    if (headers.has(header))
      co_return fail(Error(ErrorKind::unsupported, fmt::format("header '{}' is not implemented yet", header)).with_field(header));
  engine::ImportBackup request;
  request.project = c.project;
  request.name = headers.get("x-incus-name");
  request.pool = headers.get("x-incus-pool");
  VIRGA_CO_TRY(request.file, co_await receive_file(c));
  co_return co_await c.services.instances.import_backup(c.caller(), std::move(request));
}

void add_backup_routes(Router& router) {
  using http::Method;
  router.add(Method::get, "/1.0/instances/{name}/backups", {list});
  router.add(Method::post, "/1.0/instances/{name}/backups", {create});
  router.add(Method::get, "/1.0/instances/{name}/backups/{backup}", {get});
  router.add(Method::post, "/1.0/instances/{name}/backups/{backup}", {rename});
  router.add(Method::del, "/1.0/instances/{name}/backups/{backup}", {remove});
  router.add(Method::get, "/1.0/instances/{name}/backups/{backup}/export", {download});
}

}  // namespace virga::api
