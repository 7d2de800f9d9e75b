// project.
#include <fmt/format.h>

#include "apps/virga/commands.h"
#include "apps/virga/listing.h"
#include "apps/virga/resource.h"
#include "apps/virga/text.h"
#include "apps/virga/values.h"

namespace virga::cli {
namespace {

const Resource& project_resource() {
  static const Resource resource{.noun = "project",
                                 .word = "project",
                                 .group = "project",
                                 .base = "/1.0/projects",
                                 .editable = {"config", "description"},
                                 .shown = {"config", "description", "name", "used_by"}};
  return resource;
}

std::function<std::string(const json::object&)> feature(std::string name) {
  return [name = "features." + name](const json::object& o) {
    return yes_no(parse_bool(text_of(object_of(o, "config"), name)).value_or(false));
  };
}

/// Each remote has its own current project.
Result<> remember_project(App& app, const std::string& name) {
  VIRGA_TRY(auto* config, app.config());
  config->remotes[app.remote()].project = name;
  return config->save();
}

Result<> list(App& app, const Args& args) {
  VIRGA_TRY(auto* api, app.api());
  VIRGA_TRY(auto projects, api->array(Url("/1.0/projects").query("recursion", "1")));
  const auto current = app.project();
  const std::vector<Column> columns = {
      {'n', "NAME",
       [&](const json::object& o) { return text_of(o, "name") + (text_of(o, "name") == current ? " (current)" : ""); }},
      {'i', "IMAGES", feature("images")},
      {'p', "PROFILES", feature("profiles")},
      {'v', "STORAGE VOLUMES", feature("storage.volumes")},
      {'b', "STORAGE BUCKETS", feature("storage.buckets")},
      {'w', "NETWORKS", feature("networks")},
      {'z', "NETWORK ZONES", feature("networks.zones")},
      {'d', "DESCRIPTION", field("description")},
      {'u', "USED BY", [](const json::object& o) { return fmt::format("{}", array_of(o, "used_by").size()); }},
  };
  return print_listing(app, args, columns, projects);
}

Result<> create(App& app, const Args& args) {
  VIRGA_TRY(auto name, local_name(args[0]));
  VIRGA_TRY(auto settings, parse_key_values(args.list("config")));
  VIRGA_TRY(auto document, piped_document());
  VIRGA_TRY(auto* api, app.api());
  auto body = editable_part(project_resource(), document);
  VIRGA_CHECK(apply_settings(body, settings, false));
  body["name"] = name;
  if (auto text = args.text("description"); !text.empty()) body["description"] = text;
  VIRGA_CHECK(api->send("POST", Url("/1.0/projects"), std::move(body)));
  app.note(fmt::format("Project {} created", name));
  return {};
}

Result<> remove(App& app, const Args& args) {
  VIRGA_TRY(auto name, local_name(args[0]));
  VIRGA_TRY(auto* api, app.api());
  auto url = Url("/1.0/projects").segment(name);
  if (args.has("force")) {
    VIRGA_TRY(bool yes,
              confirm(fmt::format("Remove {} and everything it contains (instances, images, volumes, networks, ...)", name)));
    if (!yes) return fail(ErrorKind::cancelled, "User aborted delete operation");
    url = std::move(url).query("force", "1");
  }
  VIRGA_CHECK(api->send("DELETE", url));
  app.note(fmt::format("Project {} deleted", name));
  if (app.project_of(app.remote()) == name) return remember_project(app, "");
  return {};
}

Result<> switch_project(App& app, const Args& args) {
  VIRGA_TRY(auto name, local_name(args[0]));
  VIRGA_TRY(auto* api, app.api());
  VIRGA_CHECK(api->object(Url("/1.0/projects").segment(name)));
  return remember_project(app, name);
}

/// "MEMORY", "DISK (FAST)" for the pool "fast".
std::string resource_label(std::string_view name) {
  if (name.starts_with("disk.")) return fmt::format("DISK ({})", upper(std::string(name.substr(5))));
  return upper(std::string(name));
}

Result<> info(App& app, const Args& args) {
  VIRGA_TRY(auto name, local_name(args[0]));
  VIRGA_TRY(auto* api, app.api());
  VIRGA_TRY(auto state, api->object(Url("/1.0/projects").segment(name).segment("state")));
  json::array rows;
  for (const auto& [resource, amounts] : object_of(state, "resources")) {
    if (!amounts.is_object()) continue;
    const bool bytes = resource == "memory" || resource.starts_with("disk");
    auto show = [&](std::int64_t n) { return bytes ? (n == 0 ? "0B" : binary_size(n)) : fmt::format("{}", n); };
    const auto limit = integer_of(amounts.get_object(), "Limit");
    rows.push_back(json::object{{"resource", resource_label(resource)},
                                {"limit", limit < 0 ? "UNLIMITED" : show(limit)},
                                {"usage", show(integer_of(amounts.get_object(), "Usage"))}});
  }
  VIRGA_TRY(auto format, parse_format(args.text("format")));
  if (format.format == Format::json || format.format == Format::yaml) {
    if (format.format == Format::json) app.write(compact_json(state) + "\n");
    if (format.format == Format::yaml) app.print(as_yaml(state));
    return {};
  }
  const std::vector<Column> columns = {
      {'r', "RESOURCE", field("resource")}, {'l', "LIMIT", field("limit")}, {'u', "USAGE", field("usage")}};
  return print_listing(app, args, columns, rows);
}

Result<> current(App& app, const Args&) {
  app.print(app.project() + "\n");
  return {};
}

}  // namespace

Command project_command() {
  const Resource& r = project_resource();
  Command group{.use = "project", .summary = "Manage projects"};
  group.children = {
      {.use = "list [<remote>:]",
       .summary = "List projects",
       .aliases = {"ls"},
       .description = "Column shorthand chars:\n  n - Project Name\n  i - Images\n  p - Profiles\n  v - Storage Volumes\n  b - "
                      "Storage Buckets\n  w - Networks\n  z - Network Zones\n"
                      "  d - Description\n  u - Used By",
       .flags = {columns_flag("nipvbwzdu"), format_flag()},
       .most = 1,
       .run = list},
      {.use = "create [<remote>:]<project>",
       .summary = "Create projects",
       .examples = "virga project create p1\n    Create a project named p1\n\nvirga project create p1 < config.yaml\n    Create a "
                   "project named p1 with configuration from config.yaml",
       .flags = {{"config", 'c', Flag::list, "Config key/value to apply to the new project"},
                 {"description", 0, Flag::text, "Project description"}},
       .least = 1,
       .most = 1,
       .run = create},
      {.use = "delete [<remote>:]<project>",
       .summary = "Delete projects",
       .aliases = {"rm"},
       .flags = {{"force", 'f', Flag::boolean, "Force delete the project and everything it contains."}},
       .least = 1,
       .most = 1,
       .run = remove},
      {.use = "switch [<remote>:]<project>", .summary = "Switch the current project", .least = 1, .most = 1, .run = switch_project},
      {.use = "get-current", .summary = "Show the current project", .run = current},
      {.use = "info [<remote>:]<project>",
       .summary = "Get a summary of resource allocations",
       .aliases = {},
       .description = "Shows what the instances, volumes and images of a project use, beside the limits that the project sets.",
       .flags = {columns_flag("rlu"), format_flag()},
       .least = 1,
       .most = 1,
       .run = info},
      show_command(r),
      get_command(r),
      set_command(r),
      unset_command(r),
      edit_command(r),
      rename_command(r),
  };
  return group;
}

}  // namespace virga::cli
