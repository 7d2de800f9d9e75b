// /, /1.0 and /1.0/resources
#include "api/routes.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <unistd.h>

#include "api/body.h"
#include "api/etag.h"
#include "api/respond.h"
#include "api/router.h"
#include "api/server/extensions.h"
#include "engine/pools/service.h"
#include "engine/server/service.h"

namespace virga::api {
namespace {

using http::Response;

Task<Result<Response>> root(Context&) {
  co_return sync(json::array{"/1.0"});
}

/// "oci | qemu": both words and both versions in one field, as Incus writes it.
std::string joined(const std::vector<std::pair<std::string, std::string>>& drivers, bool version) {
  std::string out;
  for (const auto& [name, number] : drivers) {
    if (!out.empty()) out += " | ";
    out += version ? number : name;
  }
  return out;
}

json::object environment(Context& c) {
  const auto& about = c.services.about;
  const auto& identity = c.services.server.identity();
  json::array addresses, storage;
  if (about.addresses)
    for (auto& a : about.addresses()) addresses.emplace_back(a);
  std::string storage_names, storage_versions;
  for (const auto& d : c.services.pools.drivers()) {
    storage.push_back(json::object{{"Name", d.name}, {"Version", d.version}, {"Remote", false}});
    storage_names += (storage_names.empty() ? "" : " | ") + d.name;
    storage_versions += (storage_versions.empty() ? "" : " | ") + d.version;
  }
  return {{"addresses", std::move(addresses)},
          {"architectures", json::array{about.kernel_architecture}},
          {"certificate", identity.certificate},
          {"certificate_fingerprint", identity.fingerprint},
          {"driver", joined(about.compute_drivers, false)},
          {"driver_version", joined(about.compute_drivers, true)},
          {"firewall", about.firewall},
          {"kernel", about.kernel},
          {"kernel_architecture", about.kernel_architecture},
          {"kernel_features", json::object()},
          {"kernel_version", about.kernel_version},
          {"lxc_features", json::object()},
          {"os_name", about.os_name},
          {"os_version", about.os_version},
          {"project", c.project},
          {"server", "virga"},
          {"server_clustered", false},
          {"server_event_mode", "full-mesh"},
          {"server_name", about.server_name},
          {"server_pid", ::getpid()},
          {"server_version", about.version},
          {"storage", storage_names},
          {"storage_version", storage_versions},
          {"storage_supported_drivers", std::move(storage)}};
}

std::string server_etag(const engine::ServerConfig& config) {
  return etag_of(json::array{to_json(config.config)});
}

/// Everything that the answer depends on and that may differ between two requests.
std::string asked_by(Context& c) {
  const auto addresses = c.services.about.addresses ? c.services.about.addresses() : std::vector<std::string>();
  return fmt::format("{}{}\n{}\n{}\n{}\n{}", c.identity.trusted ? 'T' : 'U', c.identity.restricted ? 'R' : '-', c.caller().username,
                     c.caller().protocol, c.project, fmt::join(addresses, ","));
}

/// Who is not trusted learns what a client needs to come in, and no more.
Task<Result<Response>> get(Context& c) {
  auto& known = c.shared.server_text;
  auto asked = asked_by(c);
  const auto config_now = c.services.server.config();
  if (known.asked == asked && known.config == config_now) co_return with_etag(sync_text(known.text), known.etag);
  json::object out{{"config", json::object()},
                   {"api_extensions", api_extensions()},
                   {"api_status", "stable"},
                   {"api_version", "1.0"},
                   {"auth", c.identity.trusted ? "trusted" : "untrusted"},
                   {"public", false},
                   {"auth_methods", json::array{"tls"}}};
  if (!c.identity.trusted) co_return sync(out);
  out["auth_user_name"] = c.caller().username;
  out["auth_user_method"] = c.caller().protocol;
  const auto config = c.services.server.config();
  if (!c.identity.restricted) out["config"] = to_json(config->config);
  out["environment"] = environment(c);
  known = {std::move(asked), config_now, json::serialize(out), server_etag(*config)};
  co_return with_etag(sync_text(known.text), known.etag);
}

Task<Result<Response>> change(Context& c, bool replace) {
  const auto config = c.services.server.config();
  VIRGA_CO_CHECK(check_match(c.request, server_etag(*config)));
  VIRGA_CO_TRY(auto body, c.json());
  const Fields fields(body);
  VIRGA_CO_CHECK(fields.only({"config", "api_extensions", "api_status", "api_version", "auth", "auth_methods", "auth_user_name",
                              "auth_user_method", "environment", "public"}));
  VIRGA_CO_TRY(auto given, fields.string_map("config"));
  const auto expected = replace ? expected_revision(c, config->revision) : std::optional(config->revision);
  auto next = replace ? std::move(given) : merge(config->config, given);
  auto changed = co_await c.services.server.update(std::move(next), expected, c.caller());
  if (!changed) co_return fail(std::move(changed).error());
  co_return empty();
}

Task<Result<Response>> put(Context& c) {
  return change(c, true);
}
Task<Result<Response>> patch(Context& c) {
  return change(c, false);
}

Task<Result<Response>> resources(Context& c) {
  if (!c.services.about.resources) co_return fail(ErrorKind::unsupported, "/1.0/resources is not implemented here");
  // Hundreds of small files of the kernel's; some wait for hardware.
  co_return sync(co_await c.shared.files().run(c.services.about.resources));
}

}  // namespace

void add_server_routes(Router& router) {
  using http::Method;
  router.add(Method::get, "/", {root, Access::anyone});
  router.add(Method::get, "/1.0", {get, Access::anyone});
  router.add(Method::put, "/1.0", {put, Access::admin});
  router.add(Method::patch, "/1.0", {patch, Access::admin});
  router.add(Method::get, "/1.0/resources", {resources});
}

}  // namespace virga::api
