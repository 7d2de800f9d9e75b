// move: another name, another project, or both.
#include <fmt/format.h>

#include "apps/virga/document.h"
#include "apps/virga/instances/instances.h"
#include "apps/virga/text.h"
#include "apps/virga/values.h"

namespace virga::cli {
namespace {

/// The instance's own keys with those given over them.
Result<json::object> changed_config(App& app, Api& api, const std::string& name, const std::vector<std::string>& words) {
  VIRGA_TRY(auto settings, parse_key_values(words));
  VIRGA_TRY(auto instance, api.object(instance_url(app, name)));
  json::object config = object_of(instance, "config");
  for (const auto& [key, value] : settings) config[key] = value;
  return config;
}

Result<> move_instance(App& app, const Args& args) {
  VIRGA_TRY(auto from, local_name(args[0]));
  std::string to = from;
  if (args.words.size() > 1) {
    VIRGA_TRY(to, local_name(args[1]));
    if (to.empty()) to = from;
  }
  const auto project = args.text("target-project");
  if (to == from && project.empty()) return fail(ErrorKind::invalid, "Nothing to do: give a new name or --target-project");
  if (args.has("no-profiles") && !args.list("profile").empty())
    return fail(ErrorKind::invalid, "Can't use --no-profiles with --profile");
  VIRGA_TRY(auto* api, app.api());
  json::object body{{"name", to}};
  if (!project.empty()) {
    body["project"] = project;
    body["migration"] = true;
  }
  if (args.has("no-profiles")) body["profiles"] = json::array();
  if (const auto profiles = args.list("profile"); !profiles.empty()) body["profiles"] = to_json(profiles);
  if (const auto words = args.list("config"); !words.empty()) {
    VIRGA_TRY(body["config"], changed_config(app, *api, from, words));
  }
  VIRGA_CHECK(api->run("POST", instance_url(app, from), std::move(body)));
  return {};
}

}  // namespace

Command move_instance_command() {
  return {.use = "move [<remote>:]<instance> [<instance>]",
          .summary = "Move instances to another project, or rename them",
          .aliases = {"mv"},
          .description =
              "The instance must be stopped. In another project it has the profiles of the same names there, unless others "
              "are given.",
          .examples =
              "virga move web --target-project lab\n    Move web to the project lab\n\nvirga move web www --target-project "
              "lab --profile small\n    The same, with another name and another profile",
          .flags = {{"target-project", 0, Flag::text, "Move to a project different from the source"},
                    {"profile", 'p', Flag::list, "Profile to apply to the instance in its new place"},
                    {"no-profiles", 0, Flag::boolean, "Unset all profiles on the instance in its new place"},
                    {"config", 'c', Flag::list, "Config key/value to apply to the instance in its new place"}},
          .least = 1,
          .most = 2,
          .run = move_instance};
}

}  // namespace virga::cli
