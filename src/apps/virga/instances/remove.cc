// rename and delete.
#include <fmt/format.h>

#include "apps/virga/instances/instances.h"
#include "apps/virga/values.h"

namespace virga::cli {
namespace {

constexpr std::int64_t stopped = 102;
constexpr std::int64_t error_state = 112;

Result<> remove_one(App& app, Api& api, const std::string& name, bool force) {
  VIRGA_TRY(auto instance, api.object(instance_url(app, name)));
  const auto status = integer_of(instance, "status_code");
  if (status != 0 && status != stopped && status != error_state) {
    if (!force) return fail(ErrorKind::busy, "The instance is currently running, stop it first or pass --force");
    auto stop = change_state(app, name, "stop", -1, true);
    // It may have stopped by itself meanwhile.
    if (!stop && stop.error().chain().find("already stopped") == std::string::npos)
      return fail(std::move(stop).error().wrap("Stopping the instance failed"));
    if (boolean_of(instance, "ephemeral")) return {};
  }
  auto progress = app.progress("");
  progress.show(fmt::format("Deleting {}", name));
  VIRGA_CHECK(api.run("DELETE", instance_url(app, name)));
  return {};
}

Result<> remove_instances(App& app, const Args& args) {
  VIRGA_TRY(auto* api, app.api());
  std::vector<std::string> names;
  for (const auto& word : args.words) {
    VIRGA_TRY(auto name, local_name(word));
    auto exists = api->object(instance_url(app, name));
    if (!exists) return fail(std::move(exists).error().wrap(fmt::format("Failed checking instance exists \"{}\"", word)));
    names.push_back(std::move(name));
  }
  for (const auto& name : names) {
    if (args.has("interactive")) {
      VIRGA_TRY(bool yes, confirm(fmt::format("Remove {}", name)));
      if (!yes) return fail(ErrorKind::cancelled, "User aborted delete operation");
    }
    VIRGA_CHECK(remove_one(app, *api, name, args.has("force")));
  }
  return {};
}

Result<> rename_instance(App& app, const Args& args) {
  VIRGA_TRY(auto from, local_name(args[0]));
  VIRGA_TRY(auto to, local_name(args[1]));
  VIRGA_TRY(auto* api, app.api());
  VIRGA_CHECK(api->run("POST", instance_url(app, from), json::object{{"name", to}}));
  return {};
}

}  // namespace

Command rename_instance_command() {
  return {.use = "rename [<remote>:]<instance> <instance>",
          .summary = "Rename instances",
          .least = 2,
          .most = 2,
          .run = rename_instance};
}

Command delete_instances_command() {
  return {.use = "delete [<remote>:]<instance> [[<remote>:]<instance>...]",
          .summary = "Delete instances",
          .aliases = {"rm"},
          .flags = {{"force", 'f', Flag::boolean, "Force the removal of running instances"},
                    {"interactive", 'i', Flag::boolean, "Require user confirmation"}},
          .least = 1,
          .most = any_number,
          .run = remove_instances};
}

}  // namespace virga::cli
