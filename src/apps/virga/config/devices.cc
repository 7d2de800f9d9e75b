#include "apps/virga/config/devices.h"

#include <fmt/format.h>

#include "apps/virga/instances/instances.h"
#include "apps/virga/objects/profile.h"
#include "apps/virga/values.h"

namespace virga::cli {
namespace {

using Owner = const Resource&;

Result<json::object> device_of(const json::object& devices, const std::string& name) {
  const auto* device = devices.if_contains(name);
  if (device == nullptr || !device->is_object()) return fail(ErrorKind::not_found, "Device doesn't exist");
  return device->get_object();
}

Result<json::object> devices_of(App& app, Owner owner, const std::string& argument, std::string_view field_name = "devices") {
  VIRGA_TRY(auto name, local_name(argument));
  VIRGA_TRY(auto* api, app.api());
  VIRGA_TRY(auto object, api->object(owner.url(app, name)));
  return object_of(object, field_name);
}

std::vector<std::string> words_from(const Args& args, std::size_t first) {
  return {args.words.begin() + static_cast<std::ptrdiff_t>(first), args.words.end()};
}

Result<> add(App& app, Owner owner, const Args& args) {
  VIRGA_TRY(auto name, local_name(args[0]));
  VIRGA_TRY(auto settings, parse_key_values(words_from(args, 3)));
  const std::string& device_name = args[1];
  VIRGA_CHECK(update(app, owner, name, [&](json::object& object) -> Result<> {
    auto& devices = map_in(object, "devices");
    if (devices.contains(device_name)) return fail(ErrorKind::exists, "The device already exists");
    json::object device{{"type", args[2]}};
    for (const auto& [key, value] : settings) device[key] = value;
    devices[device_name] = std::move(device);
    return {};
  }));
  app.note(fmt::format("Device {} added to {}", device_name, name));
  return {};
}

Result<> remove(App& app, Owner owner, const Args& args) {
  VIRGA_TRY(auto name, local_name(args[0]));
  auto names = words_from(args, 1);
  VIRGA_CHECK(update(app, owner, name, [&](json::object& object) -> Result<> {
    auto& devices = map_in(object, "devices");
    for (const auto& device : names)
      if (devices.erase(device) == 0)
        return fail(Error(ErrorKind::not_found, "Device doesn't exist")
                        .with_hint("A device that comes from a profile is changed with `virga config device override`, or removed "
                                   "from the profile."));
    return {};
  }));
  app.note(fmt::format("Device {} removed from {}", fmt::join(names, ", "), name));
  return {};
}

Result<> set(App& app, Owner owner, const Args& args) {
  VIRGA_TRY(auto name, local_name(args[0]));
  VIRGA_TRY(auto settings, parse_settings(words_from(args, 2)));
  return update(app, owner, name, [&](json::object& object) -> Result<> {
    auto& devices = map_in(object, "devices");
    VIRGA_TRY(auto device, device_of(devices, args[1]));
    for (const auto& [key, value] : settings) device[key] = value;
    devices[args[1]] = std::move(device);
    return {};
  });
}

Result<> unset(App& app, Owner owner, const Args& args) {
  VIRGA_TRY(auto name, local_name(args[0]));
  return update(app, owner, name, [&](json::object& object) -> Result<> {
    auto& devices = map_in(object, "devices");
    VIRGA_TRY(auto device, device_of(devices, args[1]));
    if (device.erase(args[2]) == 0)
      return fail(ErrorKind::not_found, fmt::format("Can't unset key '{}', it's not currently set", args[2]));
    devices[args[1]] = std::move(device);
    return {};
  });
}

Result<> get(App& app, Owner owner, const Args& args) {
  VIRGA_TRY(auto devices, devices_of(app, owner, args[0]));
  VIRGA_TRY(auto device, device_of(devices, args[1]));
  app.print(text_of(device, args[2]) + "\n");
  return {};
}

Result<> list(App& app, Owner owner, const Args& args) {
  VIRGA_TRY(auto devices, devices_of(app, owner, args[0]));
  std::vector<std::string> names;
  for (const auto& [name, device] : devices) names.emplace_back(name);
  app.print(fmt::format("{}\n", fmt::join(names, "\n")));
  return {};
}

Result<> show(App& app, Owner owner, const Args& args) {
  VIRGA_TRY(auto devices, devices_of(app, owner, args[0]));
  app.print(as_yaml(devices));
  return {};
}

Result<> override_device(App& app, const Args& args) {
  VIRGA_TRY(auto name, local_name(args[0]));
  VIRGA_TRY(auto settings, parse_key_values(words_from(args, 2)));
  VIRGA_TRY(auto expanded, devices_of(app, instance_resource(), args[0], "expanded_devices"));
  VIRGA_CHECK(update(app, instance_resource(), name, [&](json::object& object) -> Result<> {
    auto& devices = map_in(object, "devices");
    if (devices.contains(args[1])) return fail(ErrorKind::exists, "The device already exists");
    auto device = device_of(expanded, args[1]);
    if (!device) return fail(ErrorKind::not_found, "The profile device doesn't exist");
    for (const auto& [key, value] : settings) (*device)[key] = value;
    devices[args[1]] = std::move(*device);
    return {};
  }));
  app.note(fmt::format("Device {} overridden for {}", args[1], name));
  return {};
}

using Verb = Result<> (*)(App&, Owner, const Args&);

/// Binds a verb to the kind of object it works on.
std::function<Result<>(App&, const Args&)> on(const Resource& (*owner)(), Verb verb) {
  return [=](App& app, const Args& args) { return verb(app, owner(), args); };
}

struct Uses {
  std::string_view add, remove, set, unset, get, list, show, example;
};

Command device_command(const Resource& (*owner)(), const Uses& uses) {
  Command group{.use = "device", .summary = "Manage devices"};
  group.children = {
      {.use = uses.add,
       .summary = "Add instance devices",
       .examples = uses.example,
       .least = 3,
       .most = any_number,
       .run = on(owner, add)},
      {.use = uses.remove,
       .summary = "Remove instance devices",
       .aliases = {"rm"},
       .least = 2,
       .most = any_number,
       .run = on(owner, remove)},
      {.use = uses.set, .summary = "Set device configuration keys", .least = 3, .most = any_number, .run = on(owner, set)},
      {.use = uses.unset, .summary = "Unset device configuration keys", .least = 3, .most = 3, .run = on(owner, unset)},
      {.use = uses.get, .summary = "Get values for device configuration keys", .least = 3, .most = 3, .run = on(owner, get)},
      {.use = uses.list, .summary = "List instance devices", .aliases = {"ls"}, .least = 1, .most = 1, .run = on(owner, list)},
      {.use = uses.show, .summary = "Show full device configuration", .least = 1, .most = 1, .run = on(owner, show)},
  };
  return group;
}

}  // namespace

Command instance_device_command() {
  auto group = device_command(instance_resource, {.add = "add [<remote>:]<instance> <device> <type> [key=value...]",
                                                  .remove = "remove [<remote>:]<instance> <name>...",
                                                  .set = "set [<remote>:]<instance> <device> <key>=<value>...",
                                                  .unset = "unset [<remote>:]<instance> <device> <key>",
                                                  .get = "get [<remote>:]<instance> <device> <key>",
                                                  .list = "list [<remote>:]<instance>",
                                                  .show = "show [<remote>:]<instance>",
                                                  .example = "virga config device add c1 share disk source=/share/c1 path=/opt\n"
                                                             "    Will mount the host's /share/c1 onto /opt in the instance.\n\n"
                                                             "virga config device add c1 eth1 nic network=virgabr0\n"
                                                             "    Will attach the instance to a second network."});
  group.children.push_back({.use = "override [<remote>:]<instance> <device> [key=value...]",
                            .summary = "Copy profile inherited devices and override configuration keys",
                            .examples = "virga config device override v1 root size=20GiB",
                            .least = 2,
                            .most = any_number,
                            .run = override_device});
  return group;
}

Command profile_device_command() {
  return device_command(profile_resource, {.add = "add [<remote>:]<profile> <device> <type> [key=value...]",
                                           .remove = "remove [<remote>:]<profile> <name>...",
                                           .set = "set [<remote>:]<profile> <device> <key>=<value>...",
                                           .unset = "unset [<remote>:]<profile> <device> <key>",
                                           .get = "get [<remote>:]<profile> <device> <key>",
                                           .list = "list [<remote>:]<profile>",
                                           .show = "show [<remote>:]<profile>",
                                           .example = "virga profile device add default root disk path=/ pool=default\n"
                                                      "    Will put the root disk of instances onto the pool \"default\"."});
}

}  // namespace virga::cli
