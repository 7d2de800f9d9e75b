// config: instances and the server, key by key.
#include <fmt/format.h>

#include "apps/virga/commands.h"
#include "apps/virga/config/devices.h"
#include "apps/virga/config/metadata.h"
#include "apps/virga/config/trust.h"
#include "apps/virga/instances/instances.h"
#include "apps/virga/values.h"

namespace virga::cli {
namespace {

/// `config set` and its sisters mean the server where no instance stands in front of the keys.
bool names_instance(const Args& args, std::size_t words_without) {
  return args.size() > words_without && !args[0].empty() && args[0].find('=') == std::string::npos;
}

/// An instance, or a snapshot as "web/snap0".
Url object_url(App& app, const std::string& name) {
  const auto slash = name.find('/');
  if (slash == std::string::npos) return instance_url(app, name);
  return Url(instance_url(app, name.substr(0, slash))).segment("snapshots").segment(name.substr(slash + 1));
}

Result<json::object> instance(App& app, const std::string& argument) {
  VIRGA_TRY(auto name, local_name(argument));
  VIRGA_TRY(auto* api, app.api());
  return api->object(object_url(app, name));
}

/// What can be changed of a snapshot is one property.
Result<> update_snapshot(App& app, const std::string& name, const std::function<Result<>(json::object&)>& change, bool property) {
  if (!property)
    return fail(
        Error(ErrorKind::invalid, "The configuration of a snapshot cannot be changed")
            .with_hint("--property changes when it expires: virga config set web/snap0 -p expires_at=2030-01-31T12:00:00Z"));
  VIRGA_TRY(auto* api, app.api());
  std::string etag;
  VIRGA_TRY(auto snapshot, api->object(object_url(app, name), &etag));
  auto editable = only_fields(snapshot, {"expires_at"});
  VIRGA_CHECK(change(editable));
  VIRGA_CHECK(api->send("PUT", object_url(app, name), std::move(editable), etag));
  return {};
}

Result<> update_server(App& app, const std::function<Result<>(json::object&)>& change) {
  VIRGA_TRY(auto* api, app.api());
  std::string etag;
  VIRGA_TRY(auto server, api->object(Url("/1.0"), &etag));
  json::object editable = only_fields(server, {"config"});
  VIRGA_CHECK(change(editable));
  VIRGA_CHECK(api->send("PUT", Url("/1.0"), std::move(editable), etag));
  return {};
}

Result<> show(App& app, const Args& args) {
  if (args.word(0).empty()) {
    VIRGA_TRY(auto* api, app.api());
    VIRGA_TRY(auto server, api->object(Url("/1.0")));
    app.print(as_yaml(only_fields(server, {"config"})));
    return {};
  }
  VIRGA_TRY(auto object, instance(app, args[0]));
  auto shown = only_fields(object, {"architecture", "config", "devices", "ephemeral", "profiles", "stateful", "description"});
  if (args.has("expanded")) {
    shown["config"] = object_of(object, "expanded_config");
    shown["devices"] = object_of(object, "expanded_devices");
  }
  app.print(as_yaml(shown));
  return {};
}

Result<> get(App& app, const Args& args) {
  json::object object;
  if (args.size() == 2 && !args[0].empty()) {
    VIRGA_TRY(object, instance(app, args[0]));
  } else {
    VIRGA_TRY(auto* api, app.api());
    VIRGA_TRY(object, api->object(Url("/1.0")));
  }
  const std::string& key = args[args.size() - 1];
  std::string text;
  if (args.has("property")) {
    VIRGA_TRY(text, property_text(object, key));
  } else {
    text = text_of(object_of(object, args.has("expanded") ? "expanded_config" : "config"), key);
  }
  app.print(text + "\n");
  return {};
}

Result<> set(App& app, const Args& args) {
  // "config set c1 key=value", "config set c1 key value", "config set key=value", "config set key value".
  const bool for_instance = names_instance(args, 1) && (args.size() > 2 || args[1].find('=') != std::string::npos);
  VIRGA_TRY(auto settings, parse_settings({args.words.begin() + (for_instance || args[0].empty() ? 1 : 0), args.words.end()}));
  auto change = [&](json::object& object) { return apply_settings(object, settings, args.has("property")); };
  if (!for_instance) return update_server(app, change);
  VIRGA_TRY(auto name, local_name(args[0]));
  if (name.find('/') != std::string::npos) return update_snapshot(app, name, change, args.has("property"));
  return update(app, instance_resource(), name, change);
}

Result<> unset(App& app, const Args& args) {
  const std::string& key = args[args.size() - 1];
  auto change = [&](json::object& object) { return remove_setting(object, key, args.has("property")); };
  if (args.size() == 1 || args[0].empty()) return update_server(app, change);
  VIRGA_TRY(auto name, local_name(args[0]));
  if (name.find('/') != std::string::npos) return update_snapshot(app, name, change, args.has("property"));
  return update(app, instance_resource(), name, change);
}

Result<> edit(App& app, const Args& args) {
  VIRGA_TRY(auto* api, app.api());
  VIRGA_TRY(auto name, optional_local_name(args, 0));
  std::string etag;
  const auto url = name.empty() ? Url("/1.0") : object_url(app, name);
  const bool snapshot = name.find('/') != std::string::npos;
  auto part = [&](const json::object& whole) {
    if (name.empty()) return only_fields(whole, {"config"});
    return snapshot ? only_fields(whole, {"expires_at"}) : editable_part(instance_resource(), whole);
  };
  VIRGA_TRY(auto object, api->object(url, &etag));
  auto shown = part(object);
  const std::string help =
      name.empty() ? "This is a YAML representation of the configuration of the server.\nLines that begin with '#' are ignored."
                   : fmt::format(
                         "This is a YAML representation of the configuration of '{}'.\nLines that begin with '#' are ignored.\n"
                         "The name is shown by `virga list` and changed by `virga rename`.",
                         name);
  return edit_document(app, shown, help, [&](json::object document) -> Result<> {
    auto body = part(document);
    VIRGA_CHECK(api->send("PUT", url, std::move(body), stdin_is_terminal() ? etag : std::string()));
    return {};
  });
}

Flag expanded_flag(std::string_view help) {
  return {"expanded", 'e', Flag::boolean, help};
}
Flag property_flag(std::string_view help) {
  return {"property", 'p', Flag::boolean, help};
}

}  // namespace

Command config_command() {
  Command group{
      .use = "config",
      .summary = "Manage instance and server configuration options",
      .examples =
          "virga config set c1 limits.cpu=2 limits.memory=512MiB\nvirga config get c1 limits.cpu\nvirga config show c1 --expanded\n"
          "virga config device add c1 data disk source=/srv/data path=/data"};
  group.children = {
      {.use = "show [<remote>:][<instance>[/<snapshot>]]",
       .summary = "Show instance or server configurations",
       .flags = {expanded_flag("Show the expanded configuration")},
       .most = 1,
       .run = show},
      {.use = "get [<remote>:][<instance>[/<snapshot>]] <key>",
       .summary = "Get values for instance or server configuration keys",
       .flags = {expanded_flag("Access the expanded configuration"), property_flag("Get the key as an instance property")},
       .least = 1,
       .most = 2,
       .run = get},
      {.use = "set [<remote>:][<instance>[/<snapshot>]] <key>=<value>...",
       .summary = "Set instance or server configuration keys",
       .description = "A single key may also be set with:\n    virga config set [<remote>:][<instance>] <key> <value>",
       .examples = "virga config set c1 limits.cpu=2\n    Will set a CPU limit of \"2\" for the instance.\n\n"
                   "virga config set core.https_address=[::]:8443\n    Will have the server listen on IPv4 and IPv6 port 8443.",
       .flags = {property_flag("Set the key as an instance property")},
       .least = 1,
       .most = any_number,
       .run = set},
      {.use = "unset [<remote>:][<instance>] <key>",
       .summary = "Unset instance or server configuration keys",
       .flags = {property_flag("Unset the key as an instance property")},
       .least = 1,
       .most = 2,
       .run = unset},
      {.use = "edit [<remote>:][<instance>[/<snapshot>]]",
       .summary = "Edit instance or server configurations as YAML",
       .examples = "virga config edit <instance> < instance.yaml\n    Update the instance configuration from instance.yaml.",
       .most = 1,
       .run = edit},
      instance_device_command(),
      instance_metadata_command(),
      instance_template_command(),
      trust_command(),
  };
  return group;
}

}  // namespace virga::cli
