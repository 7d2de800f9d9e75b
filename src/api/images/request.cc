#include "api/images/request.h"

#include "base/units.h"

namespace virga::api {

Result<ImageAliases> read_image_aliases(const json::object& body) {
  ImageAliases out;
  const auto* list = body.if_contains("aliases");
  if (list == nullptr || list->is_null()) return out;
  if (!list->is_array()) return invalid("aliases", "field 'aliases' must be a list");
  for (const auto& alias : list->get_array()) {
    if (!alias.is_object()) return invalid("aliases", "each entry of field 'aliases' must be an object");
    const Fields fields(alias.get_object(), "aliases");
    VIRGA_CHECK(fields.only({"name", "description", "type", "target"}));
    VIRGA_TRY(auto name, fields.string("name"));
    VIRGA_TRY(auto description, fields.string("description"));
    out.emplace_back(std::move(name), std::move(description));
  }
  return out;
}

Result<engine::ImportImage> read_image_request(const Context& c, const json::object& body) {
  const Fields fields(body);
  engine::ImportImage out;
  out.project = c.project;
  VIRGA_TRY(out.filename, fields.string("filename"));
  VIRGA_TRY(out.is_public, fields.boolean("public"));
  VIRGA_TRY(out.auto_update, fields.boolean("auto_update"));
  VIRGA_TRY(out.profiles, fields.strings("profiles"));
  VIRGA_TRY(out.aliases, read_image_aliases(body));
  VIRGA_TRY(const auto expires, fields.string("expires_at"));
  if (expires.empty()) return out;
  auto at = parse_time(expires);
  if (!at) return fail(std::move(at).error().wrap("expires_at").with_field("expires_at"));
  // Clients that say nothing send the zero time: what the image itself says holds then.
  if (*at != WallTime{}) out.expires_at = *at;
  return out;
}

}  // namespace virga::api
