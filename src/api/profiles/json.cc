#include "api/profiles/json.h"

#include "api/etag.h"

namespace virga::api {

json::object profile_json(const Profile& profile, const std::vector<std::string>& used_by) {
  return {{"name", profile.name},
          {"description", profile.description},
          {"config", to_json(profile.config)},
          {"devices", to_json(profile.devices)},
          {"used_by", to_json(used_by)},
          {"project", profile.project}};
}

std::string profile_etag(const Profile& profile) {
  return etag_of(json::array{to_json(profile.config), profile.description, to_json(profile.devices)});
}

}  // namespace virga::api
