// snapshot: states of instances that are kept.
#include <fmt/format.h>

#include "apps/virga/commands.h"
#include "apps/virga/document.h"
#include "apps/virga/instances/instances.h"
#include "apps/virga/listing.h"
#include "apps/virga/text.h"
#include "apps/virga/values.h"

namespace virga::cli {
namespace {

Url snapshots_url(App& app, const std::string& instance) {
  return Url(instance_url(app, instance)).segment("snapshots");
}
Url snapshot_url(App& app, const std::string& instance, const std::string& snapshot) {
  return snapshots_url(app, instance).segment(snapshot);
}

Result<> create(App& app, const Args& args) {
  VIRGA_TRY(auto instance, local_name(args[0]));
  const auto name = args.word(1);
  VIRGA_TRY(auto* api, app.api());
  json::object body;
  if (!stdin_is_terminal()) {
    VIRGA_TRY(auto document, piped_document());
    if (auto expires = text_of(document, "expires_at"); !expires.empty()) body["expires_at"] = expires;
  }
  body["name"] = name;
  body["stateful"] = args.has("stateful");
  if (args.has("no-expiry")) body["expires_at"] = "0001-01-01T00:00:00Z";
  if (args.has("reuse") && !name.empty()) {
    auto old = api->object(snapshot_url(app, instance, name));
    if (old) VIRGA_CHECK(api->run("DELETE", snapshot_url(app, instance, name)));
    if (!old && old.error().kind() != ErrorKind::not_found) return fail(std::move(old).error());
  }
  auto progress = app.progress("");
  progress.show(fmt::format("Taking a snapshot of {}", instance));
  VIRGA_CHECK(api->run("POST", snapshots_url(app, instance), std::move(body)));
  return {};
}

Result<> remove(App& app, const Args& args) {
  VIRGA_TRY(auto instance, local_name(args[0]));
  if (args.has("interactive")) {
    VIRGA_TRY(bool yes, confirm(fmt::format("Remove snapshot {} from {}", args[1], instance)));
    if (!yes) return fail(ErrorKind::cancelled, "User aborted delete operation");
  }
  VIRGA_TRY(auto* api, app.api());
  VIRGA_CHECK(api->run("DELETE", snapshot_url(app, instance, args[1])));
  return {};
}

const std::vector<Column>& columns() {
  using Object = const json::object&;
  static const std::vector<Column> all = {
      {'n', "NAME", field("name")},
      {'T', "TAKEN AT", [](Object o) { return local_time(text_of(o, "created_at"), ""); }},
      {'E', "EXPIRES AT", [](Object o) { return local_time(text_of(o, "expires_at"), ""); }},
      {'s', "STATEFUL", [](Object o) { return yes_no(boolean_of(o, "stateful")); }},
      {'z', "SIZE", [](Object o) { return binary_size(integer_of(o, "size")); }},
  };
  return all;
}

Result<> list(App& app, const Args& args) {
  VIRGA_TRY(auto instance, local_name(args[0]));
  VIRGA_TRY(auto* api, app.api());
  VIRGA_TRY(auto rows, api->array(snapshots_url(app, instance).query("recursion", "1")));
  return print_listing(app, args, columns(), rows, Order::as_given);
}

Result<> rename(App& app, const Args& args) {
  VIRGA_TRY(auto instance, local_name(args[0]));
  VIRGA_TRY(auto* api, app.api());
  VIRGA_CHECK(api->run("POST", snapshot_url(app, instance, args[1]), json::object{{"name", args[2]}}));
  return {};
}

Result<> restore(App& app, const Args& args) {
  VIRGA_TRY(auto instance, local_name(args[0]));
  VIRGA_TRY(auto* api, app.api());
  VIRGA_CHECK(api->object(snapshot_url(app, instance, args[1])));
  auto progress = app.progress("");
  progress.show(fmt::format("Restoring {}", instance));
  VIRGA_CHECK(api->run("PUT", instance_url(app, instance), json::object{{"restore", args[1]}, {"stateful", args.has("stateful")}}));
  return {};
}

Result<> show(App& app, const Args& args) {
  VIRGA_TRY(auto instance, local_name(args[0]));
  VIRGA_TRY(auto* api, app.api());
  VIRGA_TRY(auto snapshot, api->object(snapshot_url(app, instance, args[1])));
  app.print(as_yaml(snapshot));
  return {};
}

}  // namespace

Command snapshot_command() {
  Command group{
      .use = "snapshot",
      .summary = "Manage instance snapshots",
      .examples = "virga snapshot create web before-update\nvirga snapshot list web\nvirga snapshot restore web before-update"};
  group.children = {
      {.use = "create [<remote>:]<instance> [<snapshot>]",
       .summary = "Create instance snapshots",
       .description = "Without a name it gets the next one that snapshots.pattern of the instance makes. What expires_at says in a "
                      "YAML document on standard input is when it goes.",
       .examples = "virga snapshot create u1 snap0\n    Create a snapshot of \"u1\" called \"snap0\".",
       .flags = {{"no-expiry", 0, Flag::boolean, "Ignore any configured auto-expiry for the instance"},
                 {"reuse", 0, Flag::boolean, "If the snapshot name already exists, delete and create a new one"},
                 {"stateful", 0, Flag::boolean, "Whether or not to snapshot the instance's running state"}},
       .least = 1,
       .most = 2,
       .run = create},
      {.use = "list [<remote>:]<instance>",
       .summary = "List instance snapshots",
       .aliases = {"ls"},
       .flags = {columns_flag("nTEs"), format_flag()},
       .least = 1,
       .most = 1,
       .run = list},
      {.use = "delete [<remote>:]<instance> <snapshot>",
       .summary = "Delete instance snapshots",
       .aliases = {"rm"},
       .flags = {{"interactive", 'i', Flag::boolean, "Require user confirmation"}},
       .least = 2,
       .most = 2,
       .run = remove},
      {.use = "rename [<remote>:]<instance> <snapshot> <new-name>",
       .summary = "Rename instance snapshots",
       .least = 3,
       .most = 3,
       .run = rename},
      {.use = "restore [<remote>:]<instance> <snapshot>",
       .summary = "Restore instance from snapshots",
       .description =
           "The root disk and the configuration become what they were. An instance that runs is stopped for it, and started "
           "again.",
       .flags = {{"stateful", 0, Flag::boolean, "Whether or not to restore the instance's running state from snapshot"}},
       .least = 2,
       .most = 2,
       .run = restore},
      {.use = "show [<remote>:]<instance> <snapshot>",
       .summary = "Show instance snapshot configuration",
       .least = 2,
       .most = 2,
       .run = show},
  };
  return group;
}

}  // namespace virga::cli
