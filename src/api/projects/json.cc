#include "api/projects/json.h"

#include "api/etag.h"

namespace virga::api {

json::object project_json(const Project& project, const std::vector<std::string>& used_by) {
  return {{"name", project.name},
          {"description", project.description},
          {"config", to_json(project.config)},
          {"used_by", to_json(used_by)}};
}

json::object project_state_json(const Project& project, const Amounts& used) {
  Amounts limits = limits_of(project);
  for (const std::string_view always :
       {"containers", "cpu", "disk", "instances", "memory", "networks", "processes", "virtual-machines"})
    limits.try_emplace(std::string(always), -1);
  json::object resources;
  for (const auto& [name, limit] : limits) {
    // The API leaves the "pool" of a pool's limit out: "disk.fast".
    const auto shown = name.starts_with("disk.pool.") ? "disk." + name.substr(10) : name;
    const auto have = used.find(name);
    resources[shown] = json::object{{"Limit", limit}, {"Usage", have == used.end() ? 0 : have->second}};
  }
  return {{"resources", std::move(resources)}};
}

std::string project_etag(const Project& project) {
  return etag_of(json::array{project.description, to_json(project.config)});
}

}  // namespace virga::api
