// storage: pools, and a look at their volumes.
#include <fmt/format.h>

#include "apps/virga/commands.h"
#include "apps/virga/listing.h"
#include "apps/virga/resource.h"
#include "apps/virga/text.h"
#include "apps/virga/values.h"

namespace virga::cli {
namespace {

const Resource& pool_resource() {
  static const Resource resource{.noun = "storage pool",
                                 .word = "pool",
                                 .group = "storage",
                                 .base = "/1.0/storage-pools",
                                 .editable = {"config", "description"},
                                 .shown = {"config", "description", "name", "driver", "used_by", "status", "locations"}};
  return resource;
}

Result<> list(App& app, const Args& args) {
  VIRGA_TRY(auto* api, app.api());
  VIRGA_TRY(auto pools, api->array(app.url("/1.0/storage-pools").query("recursion", "1")));
  const std::vector<Column> columns = {
      {'n', "NAME", field("name")},
      {'D', "DRIVER", field("driver")},
      {'d', "DESCRIPTION", field("description")},
      {'S', "SOURCE", [](const json::object& o) { return text_of(object_of(o, "config"), "source"); }},
      {'u', "USED BY", [](const json::object& o) { return fmt::format("{}", array_of(o, "used_by").size()); }},
      {'s', "STATE", [](const json::object& o) { return upper(text_of(o, "status")); }},
  };
  return print_listing(app, args, columns, pools);
}

Result<> create(App& app, const Args& args) {
  VIRGA_TRY(auto name, local_name(args[0]));
  VIRGA_TRY(auto settings, parse_key_values({args.words.begin() + 2, args.words.end()}));
  VIRGA_TRY(auto document, piped_document());
  VIRGA_TRY(auto* api, app.api());
  auto body = editable_part(pool_resource(), document);
  VIRGA_CHECK(apply_settings(body, settings, false));
  body["name"] = name;
  body["driver"] = args[1];
  if (auto text = args.text("description"); !text.empty()) body["description"] = text;
  VIRGA_CHECK(api->send("POST", app.url("/1.0/storage-pools"), std::move(body)));
  app.note(fmt::format("Storage pool {} created", name));
  return {};
}

/// "/1.0/instances/c1?project=x" under its kind, as `storage info` groups them.
json::object grouped_users(const std::vector<std::string>& urls) {
  json::object out;
  for (const auto& url : urls) {
    auto parts = split(url.substr(0, url.find('?')), '/');
    if (parts.size() < 4) continue;
    std::string name = client::name_in_url(url);
    if (auto project = url.find("project="); project != std::string::npos)
      name += fmt::format(" (project \"{}\")", url.substr(project + 8));
    auto& group = out[parts[2]];
    if (!group.is_array()) group = json::array();
    group.get_array().emplace_back(name);
  }
  return out;
}

Result<> info(App& app, const Args& args) {
  VIRGA_TRY(auto name, local_name(args[0]));
  VIRGA_TRY(auto* api, app.api());
  VIRGA_TRY(auto pool, api->object(pool_resource().url(app, name)));
  VIRGA_TRY(auto resources, api->object(Url(pool_resource().url(app, name)).segment("resources")));
  const auto& space = object_of(resources, "space");
  auto size = [&](std::string_view key) -> json::value {
    const auto bytes = integer_of(space, key);
    return args.has("bytes") ? json::value(std::to_string(bytes)) : json::value(binary_size(bytes));
  };
  json::object about{{"description", text_of(pool, "description")},
                     {"driver", text_of(pool, "driver")},
                     {"name", text_of(pool, "name")},
                     {"space used", size("used")},
                     {"total space", size("total")}};
  app.print(as_yaml(json::object{{"info", std::move(about)}, {"used by", grouped_users(strings_of(pool, "used_by"))}}));
  return {};
}

Result<> list_volumes(App& app, const Args& args) {
  VIRGA_TRY(auto pool, local_name(args[0]));
  VIRGA_TRY(auto* api, app.api());
  const bool all = args.has("all-projects");
  auto url = all ? Url("/1.0/storage-pools").query("all-projects", "true") : app.url("/1.0/storage-pools");
  VIRGA_TRY(auto volumes, api->array(std::move(url).segment(pool).segment("volumes").query("recursion", "1")));
  const std::vector<Column> columns = {
      {'t', "TYPE", field("type")},
      {'n', "NAME", field("name")},
      {'d', "DESCRIPTION", field("description")},
      {'c', "CONTENT-TYPE", field("content_type")},
      {'e', "PROJECT", field("project")},
      {'u', "USED BY", [](const json::object& o) { return fmt::format("{}", array_of(o, "used_by").size()); }},
  };
  return print_listing(app, args, columns, volumes);
}

Command volume_command() {
  Command group{.use = "volume", .summary = "Manage storage volumes"};
  group.children = {
      {.use = "list [<remote>:]<pool>",
       .summary = "List storage volumes",
       .aliases = {"ls"},
       .description =
           "Column shorthand chars:\n    c - Content type (filesystem or block)\n    d - Description\n    e - Project name\n    n "
           "- Name\n"
           "    t - Type of volume (custom, image, container or virtual-machine)\n    u - Number of references (used by)",
       .flags = {{"all-projects", 0, Flag::boolean, "All projects"}, columns_flag("tndcu"), format_flag()},
       .least = 1,
       .most = 1,
       .run = list_volumes}};
  return group;
}

}  // namespace

Command storage_command() {
  const Resource& r = pool_resource();
  Command group{.use = "storage", .summary = "Manage storage pools and volumes"};
  group.children = {
      {.use = "list [<remote>:]",
       .summary = "List available storage pools",
       .aliases = {"ls"},
       .description =
           "Column shorthand chars:\n  n - Name\n  D - Driver\n  d - Description\n  S - Source\n  u - Used by\n  s - State",
       .flags = {columns_flag("nDdus"), format_flag()},
       .most = 1,
       .run = list},
      {.use = "create [<remote>:]<pool> <driver> [key=value...]",
       .summary = "Create storage pools",
       .examples = "virga storage create s1 dir\n\nvirga storage create s1 dir source=/srv/virga\n    Keep the pool in a directory "
                   "of your choice",
       .flags = {{"description", 0, Flag::text, "Storage pool description"}},
       .least = 2,
       .most = any_number,
       .run = create},
      {.use = "info [<remote>:]<pool>",
       .summary = "Show useful information about storage pools",
       .flags = {{"bytes", 0, Flag::boolean, "Show the used and free space in bytes"}},
       .least = 1,
       .most = 1,
       .run = info},
      show_command(r),
      get_command(r),
      set_command(r),
      unset_command(r),
      edit_command(r),
      delete_command(r),
      volume_command(),
  };
  return group;
}

}  // namespace virga::cli
