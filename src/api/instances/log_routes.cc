// /1.0/instances/{name}/logs, and the log of its console. Bytes of a guest: never shown as anything but plain data (S18, S44).
#include <fmt/format.h>

#include <algorithm>

#include "api/context.h"
#include "api/respond.h"
#include "api/router.h"
#include "api/routes.h"
#include "engine/instances/service.h"
#include "engine/url.h"
#include "wire/http/files.h"

namespace virga::api {

Task<Result<http::Response>> send_screenshot(Context& c);  // console_routes.cc

namespace {

using http::Response;

Result<engine::Instances::Ptr> find(Context& c) {
  if (auto instance = c.services.instances.find(c.project, c.param(0))) return instance;
  return fail(ErrorKind::not_found, fmt::format("instance '{}' does not exist in project '{}'", c.param(0), c.project));
}

Task<Result<Response>> send_log(Context& c, std::string path) {
  auto read = [&] { return http::read_small_file(path); };
  VIRGA_CO_TRY(auto text, co_await c.shared.files().run(read));
  Response response;
  response.content_type = "application/octet-stream";
  response.headers.emplace_back("Content-Disposition", "inline");
  response.body = std::move(text);
  co_return response;
}

Task<Result<Response>> list(Context& c) {
  VIRGA_CO_TRY(auto instance, find(c));
  json::array out;
  for (const auto& name : http::list_files(c.services.instances.log_directory(*instance)))
    out.emplace_back(engine::url({"instances", instance->name, "logs", name}, instance->project));
  co_return sync(out);
}

/// Only a name that is in the list is opened, so that a name cannot be a path.
Task<Result<Response>> get(Context& c) {
  VIRGA_CO_TRY(auto instance, find(c));
  const auto directory = c.services.instances.log_directory(*instance);
  // What the stock client asks for; the log of a container's first process is the nearest.
  const auto name = c.param(1) == "lxc.log" ? std::string("init.log") : c.param(1);
  const auto files = http::list_files(directory);
  if (std::find(files.begin(), files.end(), name) == files.end())
    co_return fail(ErrorKind::not_found, fmt::format("instance '{}' has no log '{}'", instance->name, c.param(1)));
  co_return co_await send_log(c, directory + "/" + name);
}

Task<Result<Response>> console(Context& c) {
  VIRGA_CO_TRY(auto instance, find(c));
  if (c.query("type") == "vga") co_return co_await send_screenshot(c);
  auto response = co_await send_log(c, c.services.instances.log_directory(*instance) + "/console.log");
  if (!response && response.error().kind() == ErrorKind::not_found)
    co_return fail(ErrorKind::not_found, fmt::format("the console of instance '{}' has said nothing yet", instance->name));
  co_return response;
}

}  // namespace

void add_instance_log_routes(Router& router) {
  using http::Method;
  router.add(Method::get, "/1.0/instances/{name}/logs", {list});
  router.add(Method::get, "/1.0/instances/{name}/logs/{file}", {get});
  router.add(Method::get, "/1.0/instances/{name}/console", {console});
}

}  // namespace virga::api
