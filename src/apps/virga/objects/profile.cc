#include "apps/virga/objects/profile.h"

#include <fmt/format.h>

#include <algorithm>

#include "apps/virga/commands.h"
#include "apps/virga/config/devices.h"
#include "apps/virga/instances/instances.h"
#include "apps/virga/listing.h"
#include "apps/virga/text.h"
#include "apps/virga/values.h"

namespace virga::cli {
namespace {

Result<> list(App& app, const Args& args) {
  VIRGA_TRY(auto* api, app.api());
  const bool all = args.has("all-projects");
  auto url = all ? Url("/1.0/profiles").query("all-projects", "true") : app.url("/1.0/profiles");
  VIRGA_TRY(auto profiles, api->array(std::move(url).query("recursion", "1")));
  std::vector<Column> columns = {
      {'n', "NAME", field("name")},
      {'e', "PROJECT", field("project")},
      {'d', "DESCRIPTION", field("description")},
      {'u', "USED BY", [](const json::object& o) { return fmt::format("{}", array_of(o, "used_by").size()); }}};
  return print_listing(app, args, columns, profiles);
}

Result<> create(App& app, const Args& args) {
  VIRGA_TRY(auto name, local_name(args[0]));
  VIRGA_TRY(auto document, piped_document());
  VIRGA_TRY(auto* api, app.api());
  auto body = editable_part(profile_resource(), document);
  body["name"] = name;
  if (auto text = args.text("description"); !text.empty()) body["description"] = text;
  VIRGA_CHECK(api->send("POST", app.url("/1.0/profiles"), std::move(body)));
  app.note(fmt::format("Profile {} created", name));
  return {};
}

Result<> copy(App& app, const Args& args) {
  VIRGA_TRY(auto from, local_name(args[0]));
  VIRGA_TRY(auto to, local_name(args[1]));
  VIRGA_TRY(auto* api, app.api());
  VIRGA_TRY(auto source, api->object(profile_resource().url(app, from)));
  auto body = editable_part(profile_resource(), source);
  auto target_project = args.text("target-project");
  auto collection = target_project.empty() ? app.url("/1.0/profiles") : Url("/1.0/profiles").query("project", target_project);
  if (args.has("refresh")) {
    auto target = Url(collection).segment(to);
    if (api->object(target)) {
      VIRGA_CHECK(api->send("PUT", target, std::move(body)));
      return {};
    }
  }
  body["name"] = to;
  VIRGA_CHECK(api->send("POST", collection, std::move(body)));
  return {};
}

/// The profiles of an instance, changed and put back.
Result<> change_profiles(App& app, const std::string& instance, const std::function<Result<>(std::vector<std::string>&)>& change) {
  return update(app, instance_resource(), instance, [&](json::object& object) -> Result<> {
    auto names = strings_of(object, "profiles");
    VIRGA_CHECK(change(names));
    object["profiles"] = to_json(names);
    return {};
  });
}

Result<> assign(App& app, const Args& args) {
  VIRGA_TRY(auto instance, local_name(args[0]));
  std::vector<std::string> names;
  if (!args[1].empty()) names = split(args[1], ',');
  VIRGA_CHECK(change_profiles(app, instance, [&](std::vector<std::string>& now) -> Result<> {
    now = names;
    return {};
  }));
  app.note(names.empty() ? fmt::format("All profiles removed from {}", instance)
                         : fmt::format("Profiles {} applied to {}", args[1], instance));
  return {};
}

Result<> add(App& app, const Args& args) {
  VIRGA_TRY(auto instance, local_name(args[0]));
  VIRGA_CHECK(change_profiles(app, instance, [&](std::vector<std::string>& names) -> Result<> {
    names.push_back(args[1]);
    return {};
  }));
  app.note(fmt::format("Profile {} added to {}", args[1], instance));
  return {};
}

Result<> remove(App& app, const Args& args) {
  VIRGA_TRY(auto instance, local_name(args[0]));
  VIRGA_CHECK(change_profiles(app, instance, [&](std::vector<std::string>& names) -> Result<> {
    auto it = std::find(names.begin(), names.end(), args[1]);
    if (it == names.end())
      return fail(ErrorKind::not_found, fmt::format("Profile {} isn't currently applied to {}", args[1], instance));
    names.erase(it);
    return {};
  }));
  app.note(fmt::format("Profile {} removed from {}", args[1], instance));
  return {};
}

}  // namespace

const Resource& profile_resource() {
  static const Resource resource{.noun = "profile",
                                 .word = "profile",
                                 .group = "profile",
                                 .base = "/1.0/profiles",
                                 .editable = {"config", "description", "devices"},
                                 .shown = {"config", "description", "devices", "name", "used_by", "project"}};
  return resource;
}

Command profile_command() {
  const Resource& r = profile_resource();
  Command group{.use = "profile", .summary = "Manage profiles"};
  group.children = {
      {.use = "list [<remote>:]",
       .summary = "List profiles",
       .aliases = {"ls"},
       .description = "Column shorthand chars:\n  n - Profile Name\n  d - Description\n  e - Project\n  u - Used By",
       .flags = {{"all-projects", 0, Flag::boolean, "Display profiles from all projects"}, columns_flag("ndu"), format_flag()},
       .most = 1,
       .run = list},
      {.use = "create [<remote>:]<profile>",
       .summary = "Create profiles",
       .examples = "virga profile create p1\n    Create a profile named p1\n\nvirga profile create p1 < config.yaml\n    Create a "
                   "profile named p1 with configuration from config.yaml",
       .flags = {{"description", 0, Flag::text, "Profile description"}},
       .least = 1,
       .most = 1,
       .run = create},
      {.use = "copy [<remote>:]<profile> [<remote>:]<profile>",
       .summary = "Copy profiles",
       .aliases = {"cp"},
       .flags = {{"refresh", 0, Flag::boolean, "Update the target profile from the source if it already exists"},
                 {"target-project", 0, Flag::text, "Copy to a project different from the source"}},
       .least = 2,
       .most = 2,
       .run = copy},
      {.use = "assign [<remote>:]<instance> <profiles>",
       .summary = "Assign sets of profiles to instances",
       .aliases = {"apply"},
       .examples = "virga profile assign foo default,bar\n    Set the profiles for \"foo\" to \"default\" and \"bar\".\n\nvirga "
                   "profile assign foo ''\n    Remove all profiles from \"foo\"",
       .least = 2,
       .most = 2,
       .run = assign},
      {.use = "add [<remote>:]<instance> <profile>", .summary = "Add profiles to instances", .least = 2, .most = 2, .run = add},
      {.use = "remove [<remote>:]<instance> <profile>",
       .summary = "Remove profiles from instances",
       .least = 2,
       .most = 2,
       .run = remove},
      show_command(r),
      get_command(r),
      set_command(r),
      unset_command(r),
      edit_command(r),
      delete_command(r),
      rename_command(r),
      profile_device_command(),
  };
  return group;
}

}  // namespace virga::cli
