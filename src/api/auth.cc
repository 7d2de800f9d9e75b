#include "api/auth.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>

#include "engine/certificates/service.h"
#include "wire/http/parse.h"

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

Result<Identity> identify(const http::Peer& peer, const engine::Certificates& certificates, bool socket_is_shared) {
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
  if (!peer.certificate) return identity;
  identity.caller.username = peer.certificate->fingerprint;
  identity.caller.fingerprint = peer.certificate->fingerprint;
  // Asked for each request: a certificate that was removed is a stranger's with the next one.
  const auto certificate = certificates.trusted(peer.certificate->fingerprint);
  if (!certificate) return identity;
  if (certificate->type == "metrics") {
    identity.metrics = true;
    identity.restricted = certificate->restricted;
    identity.projects = certificate->projects;
    return identity;
  }
  identity.trusted = true;
  identity.restricted = certificate->restricted;
  identity.projects = certificate->projects;
  identity.caller.admin = !certificate->restricted;
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
