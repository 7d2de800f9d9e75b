// /internal/shutdown: lets operations come to their end, ends the guests in order, then the daemon. For `admin shutdown` on this
// machine.
#include "api/routes.h"

#include "api/respond.h"
#include "api/router.h"
#include "base/log.h"
#include "engine/instances/service.h"
#include "engine/operations/operations.h"
#include "engine/server/service.h"

namespace virga::api {
namespace {

/// timeout: seconds that a guest gets for a clean stop, 60 where none are given; force: no clean stop at all.
Task<Result<http::Response>> shut_down(Context& c) {
  if (c.caller().protocol != "unix") co_return fail(ErrorKind::denied, "the daemon is shut down on its own machine only");
  std::int64_t timeout = 60;
  if (const auto text = c.query("timeout"); !text.empty()) {
    auto seconds = parse_integer(text, 0, 86'400);
    if (!seconds) co_return invalid("timeout", "parameter 'timeout' must be a number of seconds, 0 to 86400");
    timeout = *seconds;
  }
  bool force = false;
  if (const auto text = c.query("force"); !text.empty()) {
    auto truth = parse_bool(text);
    if (!truth) co_return invalid("force", "parameter 'force' must be true or false");
    force = *truth;
  }
  if (!c.services.about.end) co_return fail(ErrorKind::unsupported, "this server cannot be shut down from here");
  if (!force) {
    const auto minutes = parse_integer(c.services.server.config()->setting("core.shutdown_timeout"), 0, 10'000).value_or(5);
    const auto left = co_await c.services.operations.drain(std::chrono::minutes(minutes));
    if (left > 0) log::warn("shutting down while {} operations still run", left);
  }
  VIRGA_CO_CHECK(co_await c.services.instances.stop_all(c.caller(), force, timeout));
  c.services.about.end();
  co_return empty();
}

}  // namespace

void add_internal_routes(Router& router) {
  router.add(http::Method::put, "/internal/shutdown", {shut_down, Access::admin});
}

}  // namespace virga::api
