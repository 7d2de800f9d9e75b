#include "api/pools/json.h"

#include "api/etag.h"
#include "engine/url.h"

namespace virga::api {

json::object pool_json(const Pool& pool, const std::vector<std::string>& used_by) {
  return {{"name", pool.name},
          {"driver", pool.driver},
          {"description", pool.description},
          {"config", to_json(pool.config)},
          {"status", to_string(pool.status)},
          {"locations", json::array{"none"}},
          {"used_by", to_json(used_by)}};
}

std::string pool_etag(const Pool& pool) {
  return etag_of(json::array{pool.name, pool.driver, pool.description, to_json(pool.config)});
}

std::string volume_url(const std::string& pool, const VolumeView& volume) {
  return engine::url({"storage-pools", pool, "volumes", volume.type, volume.name}, volume.project);
}

json::object volume_json(const VolumeView& volume) {
  return {{"name", volume.name},
          {"type", volume.type},
          {"project", volume.project},
          {"content_type", volume.content},
          {"description", ""},
          {"config", json::object()},
          {"location", "none"},
          {"created_at", volume.created_at},
          {"used_by", json::array{volume.user}}};
}

}  // namespace virga::api
