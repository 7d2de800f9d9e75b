// A project as the API shows it.
#pragma once

#include <string>
#include <vector>

#include "base/json.h"
#include "model/project.h"

namespace virga::api {

json::object project_json(const Project& project, const std::vector<std::string>& used_by);
std::string project_etag(const Project& project);

}  // namespace virga::api
