// A profile as the API shows it.
#pragma once

#include <string>
#include <vector>

#include "base/json.h"
#include "model/profile.h"

namespace virga::api {

json::object profile_json(const Profile& profile, const std::vector<std::string>& used_by);
std::string profile_etag(const Profile& profile);

}  // namespace virga::api
