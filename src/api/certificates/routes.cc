// /1.0/certificates: the trust store. Who is not trusted may come here with a token, once.
#include "api/routes.h"

#include "api/body.h"
#include "api/etag.h"
#include "api/respond.h"
#include "api/router.h"
#include "engine/certificates/service.h"
#include "engine/operations/operations.h"
#include "engine/projects/service.h"
#include "engine/url.h"

namespace virga::api {
namespace {

using engine::CertificatePtr;
using http::Response;

json::object certificate_json(const Certificate& c) {
  return {{"name", c.name},
          {"type", c.type},
          {"restricted", c.restricted},
          {"projects", to_json(c.projects)},
          {"certificate", c.certificate},
          {"fingerprint", c.fingerprint},
          {"description", c.description}};
}

std::string certificate_etag(const Certificate& c) {
  return etag_of(json::array{c.fingerprint, c.name, c.type, c.restricted, to_json(c.projects), c.description});
}

/// A restricted certificate sees itself only.
bool may_see(const Context& c, const Certificate& certificate) {
  return !c.identity.restricted || certificate.fingerprint == c.caller().fingerprint;
}

Result<CertificatePtr> find(Context& c) {
  // A restricted certificate must not learn from the answer how the fingerprints of others begin.
  if (!c.identity.restricted) return c.services.certificates.get(c.param(0));
  const auto& own = c.caller().fingerprint;
  if (c.param(0).empty() || !own.starts_with(c.param(0)))
    return fail(ErrorKind::not_found, "no certificate '" + c.param(0).substr(0, 64) + "'");
  return c.services.certificates.get(own);
}

/// Errors: invalid, naming the first that does not exist.
Result<> check_projects(Context& c, const std::vector<std::string>& names) {
  for (const auto& name : names)
    if (!c.services.projects.find(name)) return invalid("projects", "project '" + name.substr(0, 64) + "' does not exist");
  return {};
}

Task<Result<Response>> list(Context& c) {
  auto certificates = c.services.certificates.list();
  std::erase_if(certificates, [&](const CertificatePtr& p) { return !may_see(c, *p); });
  VIRGA_CO_TRY(auto out, list_objects(
                             c, certificates, [](const Certificate& p) { return engine::certificate_url(p.fingerprint); },
                             [](const Certificate& p) { return certificate_json(p); }));
  co_return sync(out);
}

/// What an unknown client may say: here is my token, this connection's certificate is mine.
Task<Result<Response>> join(Context& c, const Fields& fields) {
  VIRGA_CO_TRY(auto token, fields.string("trust_token"));
  const auto& shown = c.request.peer->certificate;
  if (token.empty() || !shown) co_return fail(ErrorKind::denied, "not authorized");
  // Only the key that is in use on this connection can be added: a certificate in the body would prove nothing.
  VIRGA_CO_TRY(auto certificate, co_await c.services.certificates.add_by_token(token, shown->pem, c.caller()));
  co_return created(engine::certificate_url(certificate->fingerprint));
}

Task<Result<Response>> add(Context& c) {
  VIRGA_CO_TRY(auto body, c.json());
  const Fields fields(body);
  VIRGA_CO_CHECK(fields.only({"name", "type", "certificate", "token", "trust_token", "restricted", "projects", "description"}));
  VIRGA_CO_CHECK(fields.string("trust_token"));
  if (!c.identity.trusted) co_return co_await join(c, fields);
  if (c.identity.restricted) co_return fail(ErrorKind::denied, "this certificate is restricted to projects and may not do that");
  engine::Certificates::Request request;
  VIRGA_CO_TRY(request.name, fields.string("name"));
  VIRGA_CO_TRY(request.description, fields.string("description"));
  VIRGA_CO_TRY(request.type, fields.string("type", "client"));
  VIRGA_CO_TRY(request.restricted, fields.boolean("restricted"));
  VIRGA_CO_TRY(request.projects, fields.strings("projects"));
  VIRGA_CO_CHECK(check_projects(c, request.projects));
  VIRGA_CO_TRY(request.certificate, fields.string("certificate"));
  VIRGA_CO_TRY(const bool token, fields.boolean("token"));
  if (token) {
    VIRGA_CO_TRY(auto operation, co_await c.services.certificates.create_token(std::move(request), c.caller()));
    co_return accepted(*operation);
  }
  VIRGA_CO_TRY(auto certificate, co_await c.services.certificates.add(std::move(request), c.caller()));
  co_return created(engine::certificate_url(certificate->fingerprint));
}

Task<Result<Response>> get(Context& c) {
  VIRGA_CO_TRY(auto certificate, find(c));
  co_return with_etag(sync(certificate_json(*certificate)), certificate_etag(*certificate));
}

/// A restricted certificate may give itself a successor, and change nothing else about itself (S32).
Result<> check_own(const Context& c, const Certificate& now, const engine::Certificates::Update& next) {
  if (!c.identity.restricted) return {};
  const bool same = next.name == now.name && next.description == now.description && next.type == now.type &&
                    next.restricted == now.restricted && next.projects == now.projects;
  if (same) return {};
  return fail(ErrorKind::denied, "a restricted certificate may replace itself by a new one, and change nothing else");
}

Task<Result<Response>> change(Context& c, bool replace) {
  VIRGA_CO_TRY(auto certificate, find(c));
  VIRGA_CO_CHECK(check_match(c.request, certificate_etag(*certificate)));
  VIRGA_CO_TRY(auto body, c.json());
  const Fields fields(body);
  VIRGA_CO_CHECK(fields.only({"name", "type", "certificate", "restricted", "projects", "description", "fingerprint"}));
  engine::Certificates::Update update;
  const Certificate base = replace ? Certificate{} : *certificate;
  VIRGA_CO_TRY(update.name, fields.string("name", base.name));
  VIRGA_CO_TRY(update.description, fields.string("description", base.description));
  VIRGA_CO_TRY(update.type, fields.string("type", certificate->type));
  VIRGA_CO_TRY(update.restricted, fields.boolean("restricted", base.restricted));
  if (fields.has("projects") || replace) {
    VIRGA_CO_TRY(update.projects, fields.strings("projects"));
  } else {
    update.projects = base.projects;
  }
  VIRGA_CO_TRY(auto pem, fields.string("certificate"));
  if (pem != certificate->certificate) update.certificate = std::move(pem);
  VIRGA_CO_CHECK(check_own(c, *certificate, update));
  VIRGA_CO_CHECK(check_projects(c, update.projects));
  const auto expected = replace ? expected_revision(c, certificate->revision) : std::optional(certificate->revision);
  auto changed = co_await c.services.certificates.update(certificate->fingerprint, std::move(update), expected, c.caller());
  if (!changed) co_return fail(std::move(changed).error());
  co_return empty();
}

Task<Result<Response>> put(Context& c) {
  return change(c, true);
}
Task<Result<Response>> patch(Context& c) {
  return change(c, false);
}

Task<Result<Response>> remove(Context& c) {
  VIRGA_CO_TRY(auto certificate, find(c));
  VIRGA_CO_CHECK(co_await c.services.certificates.remove(certificate->fingerprint, c.caller()));
  co_return empty();
}

}  // namespace

void add_certificate_routes(Router& router) {
  using http::Method;
  router.add(Method::get, "/1.0/certificates", {list});
  router.add(Method::post, "/1.0/certificates", {add, Access::anyone});
  router.add(Method::get, "/1.0/certificates/{fingerprint}", {get});
  router.add(Method::put, "/1.0/certificates/{fingerprint}", {put});
  router.add(Method::patch, "/1.0/certificates/{fingerprint}", {patch});
  router.add(Method::del, "/1.0/certificates/{fingerprint}", {remove, Access::admin});
}

}  // namespace virga::api
