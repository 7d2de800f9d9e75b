#include "api/images/json.h"

#include "api/etag.h"
#include "base/units.h"

namespace virga::api {

json::object image_json(const Image& i, const std::vector<engine::Images::AliasPtr>& aliases) {
  json::array names;
  for (const auto& a : aliases) names.push_back(json::object{{"name", a->name}, {"description", a->description}});
  json::object out = {{"fingerprint", i.fingerprint},
                      {"project", i.project},
                      {"type", to_string(i.type)},
                      {"architecture", i.architecture},
                      {"filename", i.filename},
                      {"size", i.size},
                      {"public", i.is_public},
                      {"auto_update", i.auto_update},
                      {"cached", i.cached},
                      {"properties", to_json(i.properties)},
                      {"profiles", to_json(i.profiles)},
                      {"aliases", std::move(names)},
                      {"created_at", format_time(i.created_at)},
                      {"expires_at", format_time(i.expires_at)},
                      {"last_used_at", format_time(i.last_used_at)},
                      {"uploaded_at", format_time(i.uploaded_at)}};
  if (const auto& from = i.update_source)
    out["update_source"] = json::object{{"alias", from->alias},
                                        {"certificate", from->certificate},
                                        {"image_type", from->image_type},
                                        {"protocol", from->protocol},
                                        {"server", from->server}};
  return out;
}

std::string image_etag(const Image& i) {
  return etag_of(json::array{i.is_public, i.auto_update, to_json(i.properties), to_json(i.profiles), format_time(i.expires_at)});
}

json::object alias_json(const ImageAlias& a) {
  return {{"name", a.name}, {"description", a.description}, {"target", a.target}, {"type", to_string(a.type)}};
}

std::string alias_etag(const ImageAlias& a) {
  return etag_of(json::array{a.name, a.target, a.description, to_string(a.type)});
}

}  // namespace virga::api
