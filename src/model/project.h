// A project: a name space for instances, and, where its features say so, for images, profiles and volumes of its own.
#pragma once

#include <cstdint>
#include <string>

#include "base/json.h"
#include "model/config.h"

namespace virga {

struct Project {
  std::string name;
  std::string description;
  Config config;
  std::int64_t revision = 0;  ///< of the document; not part of its text

  /// Whether the project has images (profiles, networks, volumes) of its own or uses those of the default project.
  bool has_images() const { return feature("features.images"); }
  bool has_profiles() const { return feature("features.profiles"); }
  bool has_networks() const { return feature("features.networks"); }
  bool has_volumes() const { return feature("features.storage.volumes"); }
  bool has_buckets() const { return feature("features.storage.buckets"); }

 private:
  bool feature(std::string_view key) const;
};

json::object encode(const Project& project);
Result<Project> decode_project(const json::object& document);
/// Errors: invalid (field "name", "config.<key>"), unsupported (a key that is not implemented, named).
Result<> check(const Project& project);
/// Fills in the features that a new project has when nothing is said.
void set_defaults(Project& project);
bool is_default(const Project& project) noexcept;

}  // namespace virga
