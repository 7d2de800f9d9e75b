#include "api/auth.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>

#include "engine/certificates/service.h"
#include "wire/http/parse.h"
#include "wire/jwt/jwt.h"

namespace virga::api {
namespace {

/// "web" of ".../1.0/instances/db1?project=web"; "default" where nothing is said.
std::string project_of(std::string_view url) {
  auto query = url.substr(std::min(url.size(), url.find('?')));
  while (!query.empty()) {
    query.remove_prefix(1);
    const auto item = query.substr(0, query.find('&'));
    query.remove_prefix(item.size());
    if (item.starts_with("project=")) return http::percent_decode(item.substr(8), true).value_or("");
  }
  return "default";
}

bool changes_something(const http::Request& request) {
  return request.websocket || (request.method != http::Method::get && request.method != http::Method::head);
}

}  // namespace

bool Identity::may_use(std::string_view project) const {
  return (trusted || metrics) && (!restricted || std::find(projects.begin(), projects.end(), project) != projects.end());
}

std::vector<std::string> Identity::visible(std::vector<std::string> urls) const {
  if (restricted) std::erase_if(urls, [&](const std::string& url) { return !may_use(project_of(url)); });
  return urls;
}

namespace {

/// The fingerprint of the certificate that this request proves to hold; empty: none. Errors: denied (a token that is not good).
Result<std::string> proven_fingerprint(const http::Request& request, const engine::Certificates& certificates) {
  if (const auto& shown = request.peer->certificate; shown && certificates.trusted(shown->fingerprint)) return shown->fingerprint;
  const auto header = request.headers.get("authorization");
  constexpr std::string_view scheme = "Bearer ";
  if (!header.starts_with(scheme)) return request.peer->certificate ? request.peer->certificate->fingerprint : std::string();
  const auto token = header.substr(scheme.size());
  const auto refused = [] { return fail(ErrorKind::denied, "the bearer token is not valid"); };
  const auto subject = jwt::unverified_subject(token);
  const auto certificate = subject ? certificates.trusted(*subject) : nullptr;
  if (!certificate) return refused();
  const auto claims = jwt::verify(token, certificate->certificate, certificates.now());
  if (!claims || claims->subject != certificate->fingerprint) return refused();
  return certificate->fingerprint;
}

/// Asked for each request: a certificate that was removed is a stranger's with the next one.
void apply_certificate(Identity& identity, const engine::Certificates& certificates) {
  const auto certificate = certificates.trusted(identity.caller.fingerprint);
  if (!certificate) return;
  identity.restricted = certificate->restricted;
  identity.projects = certificate->projects;
  identity.metrics = certificate->type == "metrics";
  identity.trusted = !identity.metrics;
  identity.caller.admin = identity.trusted && !certificate->restricted;
}

}  // namespace

Result<Identity> identify(const http::Request& request, const engine::Certificates& certificates, bool socket_is_shared) {
  const auto& peer = *request.peer;
  Identity identity;
  identity.caller.address = peer.address;
  if (peer.local) {
    if (peer.uid != 0 && peer.uid != ::geteuid() && !socket_is_shared)
      return fail(
          Error(ErrorKind::denied, fmt::format("user {} may not use virga", peer.uid)).with_hint("only root may; try sudo"));
    identity.caller.protocol = "unix";
    identity.caller.username = peer.uid == 0 ? "root" : fmt::format("{}", peer.uid);
    identity.caller.admin = true;
    identity.trusted = true;
    return identity;
  }
  identity.caller.protocol = "tls";
  VIRGA_TRY(identity.caller.fingerprint, proven_fingerprint(request, certificates));
  identity.caller.username = identity.caller.fingerprint;
  apply_certificate(identity, certificates);
  return identity;
}

Result<> check_same_site(const http::Request& request) {
  if (!changes_something(request)) return {};
  const auto site = request.headers.get("sec-fetch-site");
  if (!site.empty() && site != "same-origin" && site != "none")
    return fail(ErrorKind::denied, "a page of another site may not do this");
  if (!request.headers.has("origin")) return {};
  const auto origin = request.headers.get("origin");
  if (origin != fmt::format("https://{}", request.headers.get("host")))
    return fail(ErrorKind::denied, "a page of another origin may not do this");
  return {};
}

Result<> check_json_type(const http::Request& request) {
  auto type = request.headers.get("content-type");
  type = type.substr(0, type.find(';'));
  while (!type.empty() && type.back() == ' ') type.remove_suffix(1);
  if (http::equals_ignoring_case(type, "application/json")) return {};
  if (type.empty() && request.peer->local) return {};
  return invalid("Content-Type", "the body must be application/json");
}

}  // namespace virga::api
