// /1.0/operations
#include "api/routes.h"

#include <fmt/format.h>

#include "api/operations/channel.h"
#include "api/respond.h"
#include "api/router.h"
#include "base/random.h"
#include "engine/operations/operations.h"
#include "wire/http/websocket.h"

namespace virga::api {
namespace {

using engine::OperationPtr;
using http::Response;

Error missing(std::string_view id) {
  return Error(ErrorKind::not_found, fmt::format("operation '{}' does not exist", id));
}

/// What concerns the whole server is for those who are not restricted.
bool may_see(const Identity& identity, const engine::Operation& operation) {
  if (!identity.restricted) return identity.trusted;
  return !operation.spec().project.empty() && identity.may_use(operation.spec().project);
}

Result<OperationPtr> find(Context& c) {
  auto operation = c.services.operations.find(c.param(0));
  if (!operation || !may_see(c.identity, *operation)) return fail(missing(c.param(0)));
  return operation;
}

/// {"running": [...], "success": [...]}: URLs, or whole operations with recursion.
Task<Result<Response>> list(Context& c) {
  json::object out;
  for (const auto& operation : c.services.operations.list()) {
    // What belongs to no project, a token for a new client say, is in every list.
    const auto& project = operation->spec().project;
    if (!c.all_projects && !project.empty() && project != c.project) continue;
    if (!may_see(c.identity, *operation)) continue;
    std::string status(to_string(operation->status()));
    for (auto& letter : status)
      if (letter >= 'A' && letter <= 'Z') letter = static_cast<char>(letter + 32);
    auto& group = out[status];
    if (!group.is_array()) group = json::array();
    if (c.recursion == 0) {
      group.get_array().emplace_back(operation->url());
    } else {
      group.get_array().emplace_back(operation->to_json());
    }
  }
  co_return sync(out);
}

Task<Result<Response>> get(Context& c) {
  VIRGA_CO_TRY(auto operation, find(c));
  co_return sync(operation->to_json());
}

Task<Result<Response>> cancel(Context& c) {
  VIRGA_CO_TRY(auto operation, find(c));
  VIRGA_CO_CHECK(c.services.operations.cancel(operation->id()));
  co_return empty();
}

/// Who was told the operation's secret may wait for its end: a server that brought an image here.
bool knows_secret(const engine::Operation& operation, std::string_view secret) {
  const auto known = Fields(operation.spec().secret_metadata).string("secret").value_or("");
  return !known.empty() && equal_constant_time(known, secret);
}

/// timeout is in seconds; -1 or none: until the end, or until the client goes away.
Task<Result<Response>> wait(Context& c) {
  auto operation = c.services.operations.find(c.param(0));
  if (!operation || !(may_see(c.identity, *operation) || knows_secret(*operation, c.query("secret"))))
    co_return fail(missing(c.param(0)));
  std::optional<Milliseconds> timeout;
  if (const auto text = c.query("timeout"); !text.empty()) {
    VIRGA_CO_TRY(const auto seconds, parse_integer(text, -1, 1'000'000));
    if (seconds >= 0) timeout = Milliseconds(seconds * 1000);
  }
  c.request.cancel_on_hangup = true;
  VIRGA_CO_TRY(auto waited, co_await c.services.operations.wait(operation->id(), timeout));
  co_return sync(waited->to_json());
}

/// The secret decides; it is bound to who made the operation.
Task<Result<Response>> websocket(Context& c) {
  const std::string secret(c.query("secret"));
  if (secret.empty() || !c.services.operations.may_connect(c.param(0), secret, c.caller())) co_return fail(missing(c.param(0)));
  if (!c.request.websocket) co_return fail(ErrorKind::invalid, "this needs a WebSocket");
  Response response;
  auto* operations = &c.services.operations;
  response.body = http::UpgradeBody(
      [operations, id = c.param(0), secret, caller = c.caller()](std::unique_ptr<http::WebSocket> socket) -> Task<> {
        (void)co_await operations->connect(id, secret, std::make_unique<SocketChannel>(std::move(socket)), caller);
      });
  co_return response;
}

}  // namespace

void add_operation_routes(Router& router) {
  using http::Method;
  router.add(Method::get, "/1.0/operations", {.handler = list, .spans = true});
  router.add(Method::get, "/1.0/operations/{id}", {get});
  router.add(Method::del, "/1.0/operations/{id}", {cancel});
  router.add(Method::get, "/1.0/operations/{id}/wait", {wait, Access::anyone});
  router.add(Method::get, "/1.0/operations/{id}/websocket", {websocket, Access::anyone});
}

}  // namespace virga::api
