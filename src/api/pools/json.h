// A storage pool and its volumes as the API shows them.
#pragma once

#include <string>
#include <vector>

#include "base/json.h"
#include "model/pool.h"

namespace virga::api {

json::object pool_json(const Pool& pool, const std::vector<std::string>& used_by);
std::string pool_etag(const Pool& pool);

/// What a list of volumes shows: roots of instances, and images.
struct VolumeView {
  std::string type;  ///< "container", "virtual-machine", "image"
  std::string name;
  std::string project;
  std::string content;  ///< "filesystem", "block"
  std::string user;     ///< URL
  std::string created_at;
};
std::string volume_url(const std::string& pool, const VolumeView& volume);
json::object volume_json(const VolumeView& volume);

}  // namespace virga::api
