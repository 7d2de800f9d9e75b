// A project as the API shows it.
#pragma once

#include <string>
#include <vector>

#include "base/json.h"
#include "model/project.h"
#include "model/project_limits.h"

namespace virga::api {

json::object project_json(const Project& project, const std::vector<std::string>& used_by);
/// What GET /1.0/projects/<name>/state shows.
json::object project_state_json(const Project& project, const Amounts& used);
std::string project_etag(const Project& project);

}  // namespace virga::api
