#include "api/instances/json.h"

#include "api/etag.h"
#include "api/filter.h"
#include "base/units.h"

namespace virga::api {
json::object instance_json(const Instance& i) {
  return {{"name", i.name},
          {"project", i.project},
          {"type", to_string(i.type)},
          {"architecture", i.architecture},
          {"description", i.description},
          {"status", to_string(i.status)},
          {"status_code", status_code(i.status)},
          {"created_at", format_time(i.created_at)},
          {"last_used_at", format_time(i.last_used_at)},
          {"location", "none"},
          {"ephemeral", i.ephemeral},
          {"stateful", false},
          {"profiles", to_json(i.profiles)},
          {"config", to_json(i.config)},
          {"devices", to_json(i.devices)},
          {"expanded_config", to_json(i.expanded_config)},
          {"expanded_devices", to_json(i.expanded_devices)}};
}

json::object snapshot_json(const InstanceSnapshot& s) {
  const auto& i = s.instance;
  return {{"name", s.name},
          {"architecture", i.architecture},
          {"description", i.description},
          {"created_at", format_time(s.created_at)},
          {"expires_at", format_time(s.expires_at)},
          {"last_used_at", format_time(i.last_used_at)},
          {"ephemeral", i.ephemeral},
          {"stateful", s.stateful},
          {"size", s.size},
          {"profiles", to_json(i.profiles)},
          {"config", to_json(i.config)},
          {"devices", to_json(i.devices)},
          {"expanded_config", to_json(i.expanded_config)},
          {"expanded_devices", to_json(i.expanded_devices)}};
}

std::string instance_etag(const Instance& i) {
  return etag_of(
      json::array{i.architecture, to_json(i.config), to_json(i.devices), i.ephemeral, to_json(i.profiles), i.description});
}

Result<json::value> instance_field(const Instance& i, std::string_view field) {
  auto in_map = [&](const Config& map, std::string_view key) {
    const auto it = map.find(std::string(key));
    return json::value(it == map.end() ? std::string_view() : std::string_view(it->second));
  };
  if (field == "name") return json::value(i.name);
  if (field == "status") return json::value(to_string(i.status));
  if (field == "status_code") return json::value(status_code(i.status));
  if (field == "type") return json::value(to_string(i.type));
  if (field == "project") return json::value(i.project);
  if (field == "description") return json::value(i.description);
  if (field == "architecture") return json::value(i.architecture);
  if (field == "ephemeral") return json::value(i.ephemeral);
  if (field.starts_with("config.")) return in_map(i.config, field.substr(7));
  if (field.starts_with("expanded_config.")) return in_map(i.expanded_config, field.substr(16));
  return find_field(instance_json(i), field);
}

}  // namespace virga::api
