#include "apps/virga/instances/request.h"

#include <fmt/format.h>

#include <fstream>
#include <sstream>

#include "apps/virga/document.h"
#include "apps/virga/text.h"
#include "apps/virga/values.h"

namespace virga::cli {
namespace {

struct DeviceFlag {
  std::string device, key, value;
};

/// "root,size=2GiB".
Result<DeviceFlag> parse_device_flag(const std::string& text) {
  auto comma = text.find(',');
  auto equals = text.find('=', comma == std::string::npos ? 0 : comma);
  if (comma == std::string::npos || comma == 0 || equals == std::string::npos || equals == comma + 1)
    return fail(ErrorKind::invalid, fmt::format("Bad device override syntax, expecting <device>,<key>=<value>: {}", text));
  return DeviceFlag{text.substr(0, comma), text.substr(comma + 1, equals - comma - 1), text.substr(equals + 1)};
}

/// The device of the request, or a copy of the one the profiles give, or a new one.
json::object& device_to_change(json::object& request, const json::object& inherited, const std::string& name) {
  auto& devices = map_in(request, "devices");
  if (!devices.contains(name)) {
    const auto* from_profile = inherited.if_contains(name);
    devices[name] = from_profile != nullptr && from_profile->is_object() ? *from_profile : json::value(json::object());
  }
  return map_in(devices, name);
}

/// The name of the root disk in a map of devices; empty where there is none.
std::string root_disk(const json::object& devices) {
  for (const auto& [name, device] : devices)
    if (device.is_object() && text_of(device.get_object(), "type") == "disk" && text_of(device.get_object(), "path") == "/")
      return std::string(name);
  return {};
}

Result<std::string> file_text(const std::string& path) {
  std::ifstream file(path);
  if (!file) return fail(ErrorKind::not_found, fmt::format("Can't read environment file '{}'", path));
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

}  // namespace

Result<json::object> parse_environment_file(std::string_view text) {
  json::object out;
  for (const auto& line : split(text, '\n')) {
    if (line.empty() || line[0] == '#') continue;
    auto equals = line.find('=');
    if (equals == std::string::npos || equals == 0)
      return fail(ErrorKind::invalid, fmt::format("'{}' in the environment file is not NAME=value", line));
    out["environment." + line.substr(0, equals)] = line.substr(equals + 1);
  }
  return out;
}

Result<json::object> instance_request(const Args& args, json::object document, const std::string& name) {
  json::object request = std::move(document);
  if (!name.empty()) request["name"] = name;
  map_in(request, "devices");
  auto& config = map_in(request, "config");  // last: adding a field moves the others
  if (auto path = args.text("environment-file"); !path.empty()) {
    VIRGA_TRY(auto text, file_text(path));
    VIRGA_TRY(auto environment, parse_environment_file(text));
    for (auto& [key, value] : environment) config[key] = value;
  }
  VIRGA_TRY(auto settings, parse_key_values(args.list("config")));
  for (const auto& [key, value] : settings) config[key] = value;
  if (args.has("no-profiles")) {
    request["profiles"] = json::array();
  } else if (!args.list("profile").empty()) {
    request["profiles"] = to_json(args.list("profile"));
  }
  if (args.has("ephemeral")) request["ephemeral"] = true;
  if (auto text = args.text("description"); !text.empty()) request["description"] = text;
  if (args.has("vm")) {
    request["type"] = "virtual-machine";
  } else if (!request.contains("type")) {
    request["type"] = "container";
  }
  if (auto text = args.text("type"); !text.empty()) request["instance_type"] = text;
  return request;
}

bool needs_profile_devices(const Args& args) {
  return !args.list("device").empty() || !args.text("storage").empty();
}

Result<> apply_device_flags(json::object& request, const Args& args, const json::object& inherited) {
  if (auto network = args.text("network"); !network.empty()) {
    map_in(request, "devices")["eth0"] = json::object{{"name", "eth0"}, {"network", network}, {"type", "nic"}};
  }
  if (auto pool = args.text("storage"); !pool.empty()) {
    auto name = root_disk(map_in(request, "devices"));
    if (name.empty()) name = root_disk(inherited);
    auto& root = device_to_change(request, inherited, name.empty() ? "root" : name);
    root["type"] = "disk";
    root["path"] = "/";
    root["pool"] = pool;
  }
  for (const auto& text : args.list("device")) {
    VIRGA_TRY(auto flag, parse_device_flag(text));
    device_to_change(request, inherited, flag.device)[flag.key] = flag.value;
  }
  return {};
}

}  // namespace virga::cli
