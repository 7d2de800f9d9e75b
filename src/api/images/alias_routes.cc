// /1.0/images/aliases
#include <fmt/format.h>

#include "api/body.h"
#include "api/etag.h"
#include "api/images/json.h"
#include "api/respond.h"
#include "api/router.h"
#include "api/routes.h"
#include "engine/images/service.h"
#include "engine/url.h"

namespace virga::api {
namespace {

using engine::Images;
using http::Response;

std::string alias_url(const ImageAlias& a) {
  return engine::url({"images", "aliases", a.name}, a.project);
}

/// One name may stand for a container's image and for a VM's: `?type=` says which is meant.
Result<std::optional<InstanceType>> read_type(Context& c) {
  const auto text = c.query("type");
  if (text.empty()) return std::optional<InstanceType>();
  VIRGA_TRY(auto type, parse_instance_type(text));
  return std::optional(type);
}

/// Strangers see the names of public images.
bool may_see(Context& c, const ImageAlias& alias) {
  if (c.identity.trusted) return c.identity.may_use(alias.project);
  const auto image = c.services.images.find(alias.project, alias.target);
  return image && (*image)->is_public;
}

Task<Result<Response>> list(Context& c) {
  auto aliases = c.services.images.aliases(c.scope());
  std::erase_if(aliases, [&](const Images::AliasPtr& a) {
    return c.all_projects ? !may_see(c, *a) : !c.identity.trusted && !may_see(c, *a);
  });
  VIRGA_CO_TRY(auto out, list_objects(c, aliases, alias_url, alias_json));
  co_return sync(out);
}

Task<Result<Response>> create(Context& c) {
  VIRGA_CO_TRY(auto body, c.json());
  const Fields fields(body);
  VIRGA_CO_CHECK(fields.only({"name", "target", "description", "type"}));
  VIRGA_CO_TRY(auto name, fields.string("name"));
  VIRGA_CO_TRY(auto target, fields.string("target"));
  VIRGA_CO_TRY(auto description, fields.string("description"));
  if (target.empty()) co_return invalid("target", "field 'target' must be given: the fingerprint of an image");
  VIRGA_CO_TRY(auto type, fields.string("type"));
  if (type != "" && type != "container" && type != "virtual-machine")
    co_return invalid("type", fmt::format("field 'type' must be container or virtual-machine, not '{}'", type.substr(0, 64)));
  VIRGA_CO_CHECK(co_await c.services.images.create_alias(c.caller(), c.project, name, target, description));
  co_return created(engine::url({"images", "aliases", name}, c.project));
}

Task<Result<Response>> get(Context& c) {
  VIRGA_CO_TRY(auto type, read_type(c));
  auto found = c.services.images.find_alias(c.project, c.param(0), type);
  if (!c.identity.trusted && !(found && may_see(c, **found))) co_return fail(ErrorKind::not_found, "no such image alias");
  VIRGA_CO_TRY(auto alias, std::move(found));
  co_return with_etag(sync(alias_json(*alias)), alias_etag(*alias));
}

Task<Result<Response>> change(Context& c) {
  VIRGA_CO_TRY(auto type, read_type(c));
  VIRGA_CO_TRY(auto alias, c.services.images.find_alias(c.project, c.param(0), type));
  VIRGA_CO_CHECK(check_match(c.request, alias_etag(*alias)));
  VIRGA_CO_TRY(auto body, c.json());
  const Fields fields(body);
  VIRGA_CO_CHECK(fields.only({"target", "description", "name", "type"}));
  VIRGA_CO_TRY(auto target, read_text(fields, "target"));
  VIRGA_CO_TRY(auto description, read_text(fields, "description"));
  VIRGA_CO_CHECK(co_await c.services.images.update_alias(c.caller(), c.project, c.param(0), target, description, alias->type,
                                                         expected_revision(c, alias->revision)));
  co_return empty();
}

Task<Result<Response>> rename(Context& c) {
  VIRGA_CO_TRY(auto type, read_type(c));
  VIRGA_CO_TRY(auto body, c.json());
  const Fields fields(body);
  VIRGA_CO_CHECK(fields.only({"name"}));
  VIRGA_CO_TRY(auto name, fields.string("name"));
  VIRGA_CO_CHECK(co_await c.services.images.rename_alias(c.caller(), c.project, c.param(0), name, type));
  co_return created(engine::url({"images", "aliases", name}, c.project));
}

Task<Result<Response>> remove(Context& c) {
  VIRGA_CO_TRY(auto type, read_type(c));
  VIRGA_CO_CHECK(co_await c.services.images.remove_alias(c.caller(), c.project, c.param(0), type));
  co_return empty();
}

}  // namespace

void add_image_alias_routes(Router& router) {
  using http::Method;
  router.add(Method::get, "/1.0/images/aliases", {.handler = list, .access = Access::anyone, .spans = true});
  router.add(Method::post, "/1.0/images/aliases", {create});
  router.add(Method::get, "/1.0/images/aliases/{name}", {.handler = get, .access = Access::anyone, .slashes = true});
  router.add(Method::put, "/1.0/images/aliases/{name}", {.handler = change, .slashes = true});
  router.add(Method::patch, "/1.0/images/aliases/{name}", {.handler = change, .slashes = true});
  router.add(Method::post, "/1.0/images/aliases/{name}", {.handler = rename, .slashes = true});
  router.add(Method::del, "/1.0/images/aliases/{name}", {.handler = remove, .slashes = true});
}

}  // namespace virga::api
