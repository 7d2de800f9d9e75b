#include "model/profile.h"

#include "model/name.h"

namespace virga {

json::object encode(const Profile& p) {
  return {{"project", p.project},
          {"name", p.name},
          {"description", p.description},
          {"config", to_json(p.config)},
          {"devices", to_json(p.devices)}};
}

Result<Profile> decode_profile(const json::object& document) {
  Fields f(document);
  Profile p;
  VIRGA_TRY(p.project, f.string("project"));
  VIRGA_TRY(p.name, f.string("name"));
  VIRGA_TRY(p.description, f.string("description"));
  VIRGA_TRY(p.config, f.string_map("config"));
  VIRGA_TRY(p.devices, f.string_maps("devices"));
  return p;
}

Result<> check(const Profile& p) {
  VIRGA_CHECK(check_object_name("profile", p.name));
  VIRGA_CHECK(check_description(p.description));
  VIRGA_CHECK(check_config(p.config, std::nullopt, false));
  return check_devices(p.devices, std::nullopt);
}

Config expand_config(const std::vector<std::shared_ptr<const Profile>>& profiles, const Config& own) {
  Config out;
  for (const auto& p : profiles)
    for (const auto& [k, v] : p->config) out[k] = v;
  for (const auto& [k, v] : own) out[k] = v;
  return out;
}

Devices expand_devices(const std::vector<std::shared_ptr<const Profile>>& profiles, const Devices& own) {
  Devices out;
  auto add = [&out](const Devices& devices) {
    for (const auto& [name, device] : devices) out[name] = device;
  };
  for (const auto& p : profiles) add(p->devices);
  add(own);
  std::erase_if(out, [](const auto& entry) { return entry.second.count("type") != 0 && entry.second.at("type") == "none"; });
  return out;
}

}  // namespace virga
