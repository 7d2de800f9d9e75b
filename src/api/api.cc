#include "api/api.h"

#include <fmt/format.h>
#include <malloc.h>

#include <algorithm>
#include <array>

#include "api/context.h"
#include "api/respond.h"
#include "api/router.h"
#include "api/routes.h"
#include "base/units.h"
#include "engine/projects/service.h"
#include "engine/server/service.h"

namespace virga::api {
namespace {

constexpr std::size_t max_body = 1u << 20;
constexpr std::size_t max_name = 256;

http::Response closing(http::Response response) {
  response.close = true;
  return response;
}

bool is_of_the_server(const std::vector<std::string>& path) {
  static constexpr std::array<std::string_view, 9> nouns = {"certificates", "metadata",  "metrics",       "networks", "operations",
                                                            "projects",     "resources", "storage-pools", "warnings"};
  return path.size() < 2 || std::find(nouns.begin(), nouns.end(), path[1]) != nouns.end();
}

Error not_found(std::string message) {
  return Error(ErrorKind::not_found, std::move(message));
}

}  // namespace

struct Api::Impl {
  Impl(Services s, Executor executor) : services(s), shared(std::move(executor)) {
    add_served_routes(router);
    add_missing_routes(router);
  }

  static void add_served_routes(Router& router) {
    add_server_routes(router);
    add_certificate_routes(router);
    add_operation_routes(router);
    add_event_routes(router);
    add_instance_routes(router);
    add_snapshot_routes(router);
    add_instance_log_routes(router);
    add_console_routes(router);
    add_file_routes(router);
    add_instance_metadata_routes(router);
    add_backup_routes(router);
    add_image_routes(router);
    add_image_alias_routes(router);
    add_profile_routes(router);
    add_pool_routes(router);
    add_network_routes(router);
    add_project_routes(router);
    add_internal_routes(router);
    add_metadata_routes(router);
    add_metrics_routes(router);
    add_warning_routes(router);
  }

  /// Access is decided before a byte of the body is read, so that it cannot depend on the body (S42).
  static Result<> check_access(const Route& route, const Identity& identity) {
    if (route.access == Access::anyone || (identity.trusted && !identity.restricted)) return {};
    if (!identity.trusted) return fail(ErrorKind::denied, "not authorized");
    if (route.access == Access::admin)
      return fail(ErrorKind::denied, "this certificate is restricted to projects and may not do that");
    return {};
  }

  /// A project that the caller may not use looks like one that does not exist (S30).
  Result<> choose_project(const Route& route, Context& context) const {
    const auto& query = context.request.query;
    const auto all = query.get("all-projects");
    context.all_projects = all == "true" || all == "1";
    const auto given = query.get("project");
    // Anywhere else it would choose the default project without a look at whether the caller may use it.
    if (context.all_projects && !route.spans) return invalid("all-projects", "only lists can be asked for all projects");
    if (context.all_projects && !given.empty()) return invalid("project", "cannot specify a project when requesting all projects");
    if (!given.empty()) {
      if (given.size() > max_name) return invalid("project", "the project's name is too long");
      context.project = given;
    }
    if (!context.identity.trusted || context.all_projects) return {};
    // What concerns the whole server is asked for without a project, by those too who may not use the default one.
    if (given.empty() && context.identity.restricted && is_of_the_server(context.request.path)) return {};
    if (!context.identity.may_use(context.project)) return fail(not_found(fmt::format("no project '{}'", context.project)));
    VIRGA_TRY(auto project, services.projects.get(context.project));
    return check_shared(context);
  }

  /// What a project takes from another one may be looked at by whoever may use the first, and changed by whoever may use both.
  Result<> check_shared(const Context& context) const {
    const auto& request = context.request;
    const bool reads = request.method == http::Method::get || request.method == http::Method::head;
    if (!context.identity.restricted || reads || request.path.size() < 2) return {};
    const auto& noun = request.path[1];
    // Copying an image elsewhere changes nothing here.
    if (noun == "images" && request.path.size() == 4 && (request.path[3] == "export" || request.path[3] == "secret")) return {};
    const auto& projects = services.projects;
    Result<std::string> owner = context.project;
    if (noun == "images") owner = projects.images_of(context.project);
    if (noun == "profiles") owner = projects.profiles_of(context.project);
    if (noun == "networks") owner = projects.networks_of(context.project);
    if (noun == "storage-pools") owner = projects.volumes_of(context.project);
    VIRGA_CHECK(owner);
    if (context.identity.may_use(*owner)) return {};
    return fail(ErrorKind::denied,
                fmt::format("project '{}' takes its {} from project '{}', where this certificate may not change anything",
                            context.project, noun == "storage-pools" ? "volumes" : noun, *owner));
  }

  Result<> read_query(const Route& route, Context& context) const {
    VIRGA_CHECK(choose_project(route, context));
    const auto recursion = context.request.query.get("recursion");
    // Incus takes anything that is not a number for 0.
    context.recursion = recursion == "1" ? 1 : recursion == "2" ? 2 : 0;
    return {};
  }

  static bool may_open_websockets(const engine::ServerConfig& config, std::string_view origin) {
    const auto origins = engine::listed(config.setting("core.https_allowed_websocket_origin"));
    return std::find(origins.begin(), origins.end(), origin) != origins.end();
  }

  /// Pages of the one other origin that the administrator allowed.
  Task<http::Response> handle(http::Request& request) {
    const auto origin = request.headers.get("origin");
    const auto config = services.server.config();
    if (origin.empty() || origin != config->setting("core.https_allowed_origin"))
      co_return co_await answer(request, request.websocket && may_open_websockets(*config, origin));
    http::Response response;
    if (request.method != http::Method::options) response = co_await answer(request, true);
    response.headers.emplace_back("Access-Control-Allow-Origin", origin);
    response.headers.emplace_back("Vary", "Origin");
    if (auto methods = config->setting("core.https_allowed_methods"); !methods.empty())
      response.headers.emplace_back("Access-Control-Allow-Methods", std::move(methods));
    if (auto names = config->setting("core.https_allowed_headers"); !names.empty())
      response.headers.emplace_back("Access-Control-Allow-Headers", std::move(names));
    if (parse_bool(config->setting("core.https_allowed_credentials")).value_or(false))
      response.headers.emplace_back("Access-Control-Allow-Credentials", "true");
    co_return response;
  }

  Task<http::Response> answer(http::Request& request, bool allowed_origin) {
    if (auto ok = check_same_site(request); !ok && !allowed_origin) co_return closing(refusal(ok.error()));
    auto identity = identify(request, services.certificates, services.about.socket_is_shared);
    if (!identity) co_return closing(refusal(identity.error()));
    request.vouched_by = identity->caller.fingerprint;

    Context context{
        .request = request, .services = services, .shared = shared, .identity = std::move(*identity), .params = {}, .body = {}};
    if (request.trailing_slash) co_return refusal(404, "not found");
    const auto match = router.find(request.method, request.path, context.params);
    if (request.slash_in_segment && (match.route == nullptr || !match.route->slashes))
      co_return closing(refusal(400, "forbidden character in the path"));
    if (match.route == nullptr) co_return no_route(request, match, context.identity);
    if (auto ok = check_access(*match.route, context.identity); !ok) co_return closing(refusal(ok.error()));
    if (wants_json(*match.route, request) && (!request.body->length() || *request.body->length() != 0)) {
      if (auto ok = check_json_type(request); !ok) co_return closing(refusal(415, ok.error().text()));
      auto body = co_await request.body->read_all(max_body);
      if (!body)
        co_return closing(refusal(request.body->too_large() ? 413 : http_status(body.error().kind()), body.error().text()));
      context.body = std::move(*body);
    }
    if (auto ok = read_query(*match.route, context); !ok) co_return refusal(ok.error());
    auto result = co_await match.route->handler(context);
    if (!result) co_return refusal(result.error());
    co_return std::move(*result);
  }

  static bool wants_json(const Route& route, const http::Request& request) {
    if (route.body != BodyKind::json_or_stream) return route.body == BodyKind::json;
    return request.headers.get("content-type") != "application/octet-stream";
  }

  static http::Response no_route(const http::Request& request, const Router::Match& match, const Identity& identity) {
    if (!identity.trusted) return closing(refusal(match.known ? 403 : 404, match.known ? "not authorized" : "not found"));
    if (match.known && !match.allowed.empty()) {
      auto response = refusal(405, fmt::format("{} is not possible here", http::to_string(request.method)));
      response.headers.emplace_back("Allow", match.allowed);
      return response;
    }
    if (match.missing)
      return refusal(501, fmt::format("{} is not implemented yet", request.target.substr(0, request.target.find('?'))));
    return refusal(404, "not found");
  }

  Services services;
  Router router;
  Shared shared;
};

Shared::Shared(Executor executor)
    : long_lists(std::move(executor), std::chrono::minutes(1), [this] {
        instance_cache.clear();
        sample_cache.clear();
        ::malloc_trim(0);  // ten thousand texts lie between what stays: the allocator gives such pages back only when asked
      }) {}

Api::Api(Services services, Executor executor) : impl_(std::make_unique<Impl>(std::move(services), std::move(executor))) {}
Api::~Api() = default;

std::vector<std::string> Api::served_routes() {
  Router router;
  Impl::add_served_routes(router);
  return router.added();
}

Task<> Api::stop() {
  return impl_->shared.long_lists.stop();
}

Task<http::Response> Api::handle(http::Request& request) {
  return impl_->handle(request);
}

http::Handler Api::handler() {
  return [impl = impl_.get()](http::Request& request) { return impl->handle(request); };
}

http::Handler Api::metrics_handler() {
  return [impl = impl_.get()](http::Request& request) -> Task<http::Response> {
    if (request.path == std::vector<std::string>{"1.0", "metrics"}) co_return co_await impl->handle(request);
    co_return refusal(404, "not found");
  };
}

http::ServerOptions Api::server_options(http::Limits limits) {
  http::ServerOptions options;
  options.limits = limits;
  // What a browser shows of an answer must stay text (S44).
  options.common_headers =
      "X-Content-Type-Options: nosniff\r\n"
      "Content-Security-Policy: default-src 'none'; frame-ancestors 'none'\r\n"
      "Cache-Control: no-store\r\n";
  options.error_body = refusal_body;
  return options;
}

}  // namespace virga::api
