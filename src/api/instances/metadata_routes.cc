// /1.0/instances/{name}/metadata and .../metadata/templates
#include <fmt/format.h>

#include "api/context.h"
#include "api/etag.h"
#include "api/respond.h"
#include "api/router.h"
#include "api/routes.h"
#include "engine/instances/service.h"

namespace virga::api {
namespace {

using http::Response;

constexpr std::size_t max_template = 1u << 20;

Result<engine::Instances::Ptr> find(Context& c) {
  if (auto instance = c.services.instances.find(c.project, c.param(0))) return instance;
  return fail(ErrorKind::not_found, fmt::format("instance '{}' does not exist in project '{}'", c.param(0), c.project));
}

Task<Result<Response>> get(Context& c) {
  VIRGA_CO_TRY(auto instance, find(c));
  VIRGA_CO_TRY(auto metadata, co_await c.services.instances.metadata(c.project, instance->name));
  const auto tag = etag_of(metadata);
  co_return with_etag(sync(metadata), tag);
}

Task<Result<Response>> change(Context& c, bool replace) {
  VIRGA_CO_TRY(auto instance, find(c));
  VIRGA_CO_TRY(auto body, c.json());
  VIRGA_CO_TRY(auto metadata, co_await c.services.instances.metadata(c.project, instance->name));
  VIRGA_CO_CHECK(check_match(c.request, etag_of(metadata)));
  if (!replace)
    for (auto& [key, value] : metadata)
      if (!body.contains(key)) body[key] = value;
  VIRGA_CO_CHECK(co_await c.services.instances.set_metadata(c.caller(), c.project, instance->name, std::move(body)));
  co_return empty();
}
Task<Result<Response>> put(Context& c) {
  return change(c, true);
}
Task<Result<Response>> patch(Context& c) {
  return change(c, false);
}

Task<Result<Response>> get_templates(Context& c) {
  VIRGA_CO_TRY(auto instance, find(c));
  const std::string file(c.query("path"));
  if (file.empty()) {
    VIRGA_CO_TRY(auto names, co_await c.services.instances.templates(c.project, instance->name));
    co_return sync(virga::to_json(names));
  }
  VIRGA_CO_TRY(auto text, co_await c.services.instances.read_template(c.project, instance->name, file));
  Response response;
  response.content_type = "application/octet-stream";
  response.headers.emplace_back("Content-Disposition", "inline");
  response.body = std::move(text);
  co_return response;
}

Task<Result<Response>> post_template(Context& c) {
  VIRGA_CO_TRY(auto instance, find(c));
  const std::string file(c.query("path"));
  if (file.empty()) co_return invalid("path", "the name of a template is needed");
  VIRGA_CO_TRY(auto text, co_await c.request.body->read_all(max_template));
  VIRGA_CO_CHECK(co_await c.services.instances.write_template(c.caller(), c.project, instance->name, file, std::move(text)));
  co_return empty();
}

Task<Result<Response>> remove_template(Context& c) {
  VIRGA_CO_TRY(auto instance, find(c));
  const std::string file(c.query("path"));
  if (file.empty()) co_return invalid("path", "the name of a template is needed");
  VIRGA_CO_CHECK(co_await c.services.instances.remove_template(c.caller(), c.project, instance->name, file));
  co_return empty();
}

}  // namespace

void add_instance_metadata_routes(Router& router) {
  using http::Method;
  const auto metadata = "/1.0/instances/{name}/metadata", templates = "/1.0/instances/{name}/metadata/templates";
  router.add(Method::get, metadata, {get});
  router.add(Method::put, metadata, {put});
  router.add(Method::patch, metadata, {patch});
  router.add(Method::get, templates, {get_templates});
  router.add(Method::post, templates, {post_template, Access::member, BodyKind::stream});
  router.add(Method::del, templates, {remove_template});
}

}  // namespace virga::api
