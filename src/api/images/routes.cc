// /1.0/images
#include "api/routes.h"

#include <fmt/format.h>

#include "api/body.h"
#include "api/etag.h"
#include "api/images/export.h"
#include "api/images/json.h"
#include "api/images/source.h"
#include "api/images/transfer.h"
#include "api/images/upload.h"
#include "api/respond.h"
#include "api/router.h"
#include "base/units.h"
#include "engine/images/service.h"
#include "engine/images/transfers.h"
#include "engine/operations/operations.h"
#include "engine/url.h"

namespace virga::api {
namespace {

using engine::Images;
using http::Response;

json::object show(Context& c, const Image& i) {
  return image_json(i, c.services.images.aliases_of(i));
}

Result<Images::Ptr> find(Context& c) {
  return c.services.images.find(c.project, c.param(0));
}

Task<Result<Response>> list(Context& c) {
  auto images = c.services.images.list(c.scope());
  std::erase_if(images, [&](const Images::Ptr& i) {
    return c.identity.trusted ? c.all_projects && !c.identity.may_use(i->project) : !i->is_public;
  });
  VIRGA_CO_TRY(auto out, list_objects(
                             c, images, [](const Image& i) { return engine::image_url(i.project, i.fingerprint); },
                             [&](const Image& i) { return show(c, i); }));
  co_return sync(out);
}

Task<Result<Response>> import(Context& c) {
  if (!c.identity.trusted && !is_brought(c)) co_return fail(ErrorKind::denied, "not authorized");
  if (is_brought(c)) {
    VIRGA_CO_TRY(auto operation, co_await image_that_is_brought(c));
    co_return accepted(*operation);
  }
  if (c.request.headers.get("content-type").starts_with("application/json")) {
    VIRGA_CO_TRY(auto operation, co_await image_from_source(c));
    co_return accepted(*operation);
  }
  VIRGA_CO_TRY(auto request, co_await receive_image(c));
  VIRGA_CO_TRY(auto operation, c.services.images.import(c.caller(), std::move(request)));
  co_return accepted(*operation);
}

Task<Result<Response>> get(Context& c) {
  VIRGA_CO_TRY(auto image, readable_image(c));
  co_return with_etag(sync(show(c, *image)), image_etag(*image));
}

Task<Result<Response>> change(Context& c, bool replace) {
  VIRGA_CO_TRY(auto image, find(c));
  VIRGA_CO_CHECK(check_match(c.request, image_etag(*image)));
  VIRGA_CO_TRY(auto body, c.json());
  const Fields fields(body);
  VIRGA_CO_CHECK(fields.only({"public", "auto_update", "properties", "profiles", "expires_at", "fingerprint", "project", "type",
                              "architecture", "filename", "size", "cached", "aliases", "created_at", "last_used_at", "uploaded_at",
                              "update_source", "locations"}));
  engine::UpdateImage request;
  request.replace = replace;
  if (fields.has("public")) {
    VIRGA_CO_TRY(request.is_public, fields.boolean("public"));
  }
  if (fields.has("auto_update")) {
    VIRGA_CO_TRY(request.auto_update, fields.boolean("auto_update"));
  }
  VIRGA_CO_TRY(request.properties, read_config(fields, "properties"));
  if (fields.has("profiles")) {
    VIRGA_CO_TRY(request.profiles, fields.strings("profiles"));
  }
  VIRGA_CO_TRY(auto expires, fields.string("expires_at"));
  if (!expires.empty()) {
    VIRGA_CO_TRY(request.expires_at, parse_time(expires));
  }
  VIRGA_CO_CHECK(co_await c.services.images.update(c.caller(), c.project, image->fingerprint, std::move(request),
                                                   expected_revision(c, image->revision)));
  co_return empty();
}

Task<Result<Response>> put(Context& c) {
  return change(c, true);
}
Task<Result<Response>> patch(Context& c) {
  return change(c, false);
}

Task<Result<Response>> refresh(Context& c) {
  VIRGA_CO_TRY(auto image, find(c));
  VIRGA_CO_TRY(auto operation, c.services.images.refresh(c.caller(), c.project, image->fingerprint));
  co_return accepted(*operation);
}

Task<Result<Response>> remove(Context& c) {
  VIRGA_CO_TRY(auto image, find(c));
  VIRGA_CO_TRY(auto operation, c.services.images.remove(c.caller(), c.project, image->fingerprint));
  co_return accepted(*operation);
}

Task<Result<Response>> download(Context& c) {
  VIRGA_CO_TRY(auto image, readable_image(c));
  auto response = export_image(c.services.images, *image);
  if (response && !c.identity.trusted && !image->is_public) c.services.transfers.reading(c.query("secret"));
  co_return response;
}

}  // namespace

void add_image_routes(Router& router) {
  using http::Method;
  router.add(Method::get, "/1.0/images", {.handler = list, .access = Access::anyone, .spans = true});
  router.add(Method::post, "/1.0/images", {import, Access::anyone, BodyKind::stream});
  router.add(Method::get, "/1.0/images/{fingerprint}",
             {.handler = get, .access = Access::anyone, .slashes = true});  // clients ask here for what is no alias
  router.add(Method::put, "/1.0/images/{fingerprint}", {put});
  router.add(Method::patch, "/1.0/images/{fingerprint}", {patch});
  router.add(Method::del, "/1.0/images/{fingerprint}", {remove});
  router.add(Method::get, "/1.0/images/{fingerprint}/export", {download, Access::anyone});
  router.add(Method::post, "/1.0/images/{fingerprint}/export", {send_image});
  router.add(Method::post, "/1.0/images/{fingerprint}/secret", {make_image_secret});
  router.add(Method::post, "/1.0/images/{fingerprint}/refresh", {refresh});
}

}  // namespace virga::api
