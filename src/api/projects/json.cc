#include "api/projects/json.h"

#include "api/etag.h"

namespace virga::api {

json::object project_json(const Project& project, const std::vector<std::string>& used_by) {
  return {{"name", project.name},
          {"description", project.description},
          {"config", to_json(project.config)},
          {"used_by", to_json(used_by)}};
}

std::string project_etag(const Project& project) {
  return etag_of(json::array{project.description, to_json(project.config)});
}

}  // namespace virga::api
