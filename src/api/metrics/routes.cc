// /1.0/metrics: numbers for Prometheus and its like. Nothing is measured here: the text is made of the sampler's last pass.
#include "api/routes.h"

#include <chrono>

#include "api/respond.h"
#include "api/router.h"
#include "engine/instances/service.h"
#include "engine/metrics/metrics.h"
#include "engine/operations/operations.h"
#include "engine/sampler/sampler.h"
#include "engine/server/service.h"
#include "engine/warnings/service.h"

namespace virga::api {
namespace {

using http::Response;

/// Who scrapes holds any trusted certificate, one of type "metrics", or none where the administrator said so.
Result<> check_reader(Context& c) {
  if (c.identity.trusted || c.identity.metrics) return {};
  const auto config = c.services.server.config();
  const auto key = config->config.find("core.metrics_authentication");
  if (key != config->config.end() && !parse_bool(key->second).value_or(true)) return {};
  return fail(ErrorKind::denied, "not authorized");
}

std::vector<engine::GuestRow> rows_of(Context& c, const std::vector<engine::Instances::Ptr>& instances) {
  std::vector<engine::GuestRow> rows;
  for (const auto& i : instances) {
    if (i->status != InstanceStatus::running && i->status != InstanceStatus::frozen) continue;
    if (c.identity.restricted && !c.identity.may_use(i->project)) continue;
    if (auto sample = c.services.sampler.find(i->uuid))
      rows.push_back({i->name, i->project, to_string(i->type), std::move(sample)});
  }
  return rows;
}

engine::ServerCounts server_counts(Context& c) {
  const auto up = std::chrono::steady_clock::now() - c.shared.started;
  return {.operations = c.services.operations.running(),
          .warnings = c.services.warnings.unseen(),
          .uptime_seconds = static_cast<std::uint64_t>(std::chrono::duration_cast<std::chrono::seconds>(up).count())};
}

Task<Result<Response>> get(Context& c) {
  VIRGA_CO_CHECK(check_reader(c));
  co_await c.services.sampler.wait_fresh();
  // Unlike elsewhere no project means all: a scraper asks once.
  const bool one = !c.query("project").empty();
  const auto instances = c.services.instances.list(one ? std::optional(c.project) : std::nullopt);
  const auto counts = server_counts(c);
  Response response;
  response.content_type = "application/openmetrics-text; version=1.0.0; charset=utf-8";
  response.body = engine::render_metrics(rows_of(c, instances), one || c.identity.restricted ? nullptr : &counts);
  co_return response;
}

}  // namespace

void add_metrics_routes(Router& router) {
  router.add(http::Method::get, "/1.0/metrics", {.handler = get, .access = Access::anyone, .spans = true});
}

}  // namespace virga::api
