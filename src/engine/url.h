// The URLs of objects, as "resources", "used_by" and lifecycle events show them.
#pragma once

#include <initializer_list>
#include <string>
#include <string_view>

namespace virga::engine {

/// Percent-encodes all but letters, digits and "-._~".
std::string url_encode(std::string_view text);

/// url({"instances", "db1"}, "web") is "/1.0/instances/db1?project=web"; the default project and an empty one are left out.
std::string url(std::initializer_list<std::string_view> parts, std::string_view project = {});

/// What people call it: "/1.0/instances/db1?project=web" is "instance 'db1'".
std::string describe_url(std::string_view url);

inline std::string instance_url(std::string_view project, std::string_view name) {
  return url({"instances", name}, project);
}
inline std::string snapshot_url(std::string_view project, std::string_view instance, std::string_view name) {
  return url({"instances", instance, "snapshots", name}, project);
}
inline std::string profile_url(std::string_view project, std::string_view name) {
  return url({"profiles", name}, project);
}
inline std::string image_url(std::string_view project, std::string_view fingerprint) {
  return url({"images", fingerprint}, project);
}
inline std::string network_url(std::string_view project, std::string_view name) {
  return url({"networks", name}, project);
}
inline std::string pool_url(std::string_view name) {
  return url({"storage-pools", name});
}
inline std::string project_url(std::string_view name) {
  return url({"projects", name});
}
inline std::string certificate_url(std::string_view fingerprint) {
  return url({"certificates", fingerprint});
}
inline std::string operation_url(std::string_view id) {
  return url({"operations", id});
}

}  // namespace virga::engine
