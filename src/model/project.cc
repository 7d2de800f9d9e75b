#include "model/project.h"

#include <array>

#include "base/units.h"
#include "model/name.h"

namespace virga {
namespace {

constexpr std::array features = {"features.images", "features.networks", "features.profiles", "features.storage.volumes"};

Result<> check_key(const Project& project, const std::string& key, const std::string& value) {
  const std::string field = "config." + key;
  if (key.starts_with("user.")) {
    if (key.size() <= 5 || key.size() > 128) return invalid(field, "a user key has 1 to 123 characters behind 'user.'");
    for (const char c : key + value)
      if (static_cast<unsigned char>(c) < 0x20 && c != '\n' && c != '\t')
        return invalid(field, "control characters are not allowed here");
    return {};
  }
  for (const std::string_view known : features) {
    if (key != known) continue;
    auto on = parse_bool(value);
    if (!on) return invalid(field, "'" + key + "' is true or false");
    if (key == "features.networks" && *on && !is_default(project))
      return tl::unexpected<Error>(
          Error(ErrorKind::unsupported,
                "'features.networks' is not supported yet: projects use the networks of the default project")
              .with_field(field));
    return {};
  }
  for (const std::string_view later :
       {"features.", "limits.", "restricted", "backups.compression_algorithm", "images.", "network.hwaddr_pattern"})
    if (std::string_view(key).starts_with(later))
      return tl::unexpected<Error>(Error(ErrorKind::unsupported, "'" + key + "' is not supported yet").with_field(field));
  const std::string near = nearest(key, {"features.images", "features.networks", "features.profiles", "features.storage.volumes"});
  return invalid(field, "unknown project configuration key '" + key + "'" + (near.empty() ? "" : "; did you mean '" + near + "'?"));
}

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
  return p;
}

Result<> check(const Project& p) {
  VIRGA_CHECK(check_object_name("project", p.name));
  // Host names and paths of guests join project and name with '_'.
  if (p.name.find('_') != std::string::npos) return invalid("name", "a project's name has no '_'");
  VIRGA_CHECK(check_description(p.description));
  for (const auto& [key, value] : p.config) VIRGA_CHECK(check_key(p, key, value));
  return {};
}

void set_defaults(Project& p) {
  for (const std::string key : features) p.config.try_emplace(key, key == "features.networks" && !is_default(p) ? "false" : "true");
}

}  // namespace virga
