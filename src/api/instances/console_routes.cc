// /1.0/instances/{name}/console and .../screenshot
#include <fmt/format.h>

#include "api/context.h"
#include "api/respond.h"
#include "api/router.h"
#include "api/routes.h"
#include "engine/instances/service.h"

namespace virga::api {
namespace {

using http::Response;

Result<engine::Instances::Ptr> find(Context& c) {
  if (auto instance = c.services.instances.find(c.project, c.param(0))) return instance;
  return fail(ErrorKind::not_found, fmt::format("instance '{}' does not exist in project '{}'", c.param(0), c.project));
}

Result<engine::ConsoleRequest> read_console(const json::object& body) {
  const Fields fields(body);
  VIRGA_CHECK(fields.only({"type", "width", "height", "force", "protocol"}));
  engine::ConsoleRequest out;
  VIRGA_TRY(const auto type, fields.string("type", "console"));
  if (type != "console" && type != "vga" && !type.empty()) return invalid("type", "field 'type' must be 'console' or 'vga'");
  out.vga = type == "vga";
  VIRGA_TRY(out.protocol, fields.string("protocol", "spice"));
  if (out.protocol != "spice" && out.protocol != "vnc") return invalid("protocol", "field 'protocol' must be 'spice' or 'vnc'");
  VIRGA_TRY(out.force, fields.boolean("force"));
  for (auto [name, into] : {std::pair("width", &out.width), std::pair("height", &out.height)}) {
    VIRGA_TRY(const auto size, fields.integer(name));
    if (size < 0 || size > 10'000) return invalid(name, fmt::format("field '{}' must be 0 to 10000", name));
    *into = static_cast<std::uint16_t>(size);
  }
  return out;
}

Task<Result<Response>> attach(Context& c) {
  VIRGA_CO_TRY(auto instance, find(c));
  VIRGA_CO_TRY(auto body, c.json());
  VIRGA_CO_TRY(auto request, read_console(body));
  VIRGA_CO_TRY(auto operation, c.services.instances.console(c.caller(), c.project, instance->name, std::move(request)));
  co_return accepted(*operation);
}

Task<Result<Response>> clear(Context& c) {
  VIRGA_CO_TRY(auto instance, find(c));
  VIRGA_CO_CHECK(co_await c.services.instances.clear_console_log(c.caller(), c.project, instance->name));
  co_return empty();
}

}  // namespace

Task<Result<Response>> send_screenshot(Context& c) {
  VIRGA_CO_TRY(auto instance, find(c));
  VIRGA_CO_TRY(auto image, co_await c.services.instances.screenshot(c.project, instance->name));
  Response response;
  response.content_type = "image/png";
  response.body = std::move(image);
  co_return response;
}

void add_console_routes(Router& router) {
  using http::Method;
  router.add(Method::post, "/1.0/instances/{name}/console", {attach});
  router.add(Method::del, "/1.0/instances/{name}/console", {clear});
  router.add(Method::get, "/1.0/instances/{name}/screenshot", {send_screenshot});
}

}  // namespace virga::api
