#include "model/project.h"

#include <array>

#include "base/units.h"
#include "model/name.h"
#include "model/project_keys.h"

namespace virga {
namespace {

constexpr std::array features = {"features.images",   "features.networks",        "features.networks.zones",
                                 "features.profiles", "features.storage.buckets", "features.storage.volumes"};

}  // namespace

bool is_default(const Project& project) noexcept {
  return project.name == "default";
}

bool Project::feature(std::string_view key) const {
  if (is_default(*this)) return true;
  auto it = config.find(std::string(key));
  return it != config.end() && parse_bool(it->second).value_or(false);
}

json::object encode(const Project& p) {
  return {{"name", p.name}, {"description", p.description}, {"config", to_json(p.config)}};
}

Result<Project> decode_project(const json::object& document) {
  const Fields f(document);
  Project p;
  VIRGA_TRY(p.name, f.string("name"));
  VIRGA_TRY(p.description, f.string("description"));
  VIRGA_TRY(p.config, f.string_map("config"));
  set_defaults(p);  // a feature that came with a newer version
  return p;
}

Result<> check(const Project& p) {
  VIRGA_CHECK(check_object_name("project", p.name));
  // Host names and paths of guests join project and name with '_'.
  if (p.name.find('_') != std::string::npos) return invalid("name", "a project's name has no '_'");
  VIRGA_CHECK(check_description(p.description));
  for (const auto& [key, value] : p.config) VIRGA_CHECK(check_project_key(is_default(p), key, value));
  return {};
}

void set_defaults(Project& p) {
  for (const std::string_view key : features)
    p.config.try_emplace(std::string(key), key.starts_with("features.networks") && !is_default(p) ? "false" : "true");
}

}  // namespace virga
