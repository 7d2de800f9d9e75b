// operation.
#include <fmt/format.h>

#include <algorithm>

#include "apps/virga/app.h"
#include "apps/virga/commands.h"
#include "apps/virga/listing.h"
#include "apps/virga/text.h"
#include "apps/virga/values.h"

namespace virga::cli {
namespace {

/// The API groups operations by their state: {"running": [...], "success": [...]}.
Result<json::array> operations(App& app, Api& api, bool all) {
  auto url = all ? Url("/1.0/operations").query("all-projects", "true") : app.url("/1.0/operations");
  VIRGA_TRY(auto groups, api.get(std::move(url).query("recursion", "1")));
  json::array out;
  if (groups.is_array()) out = std::move(groups.get_array());
  if (groups.is_object())
    for (auto& [state, group] : groups.get_object())
      if (group.is_array())
        for (auto& operation : group.get_array()) out.push_back(std::move(operation));
  std::sort(out.begin(), out.end(), [](const json::value& a, const json::value& b) {
    return a.is_object() && b.is_object() && text_of(a.get_object(), "created_at") < text_of(b.get_object(), "created_at");
  });
  return out;
}

Result<> list(App& app, const Args& args) {
  VIRGA_TRY(auto* api, app.api());
  VIRGA_TRY(auto rows, operations(app, *api, args.has("all-projects")));
  using Object = const json::object&;
  const std::vector<Column> columns = {
      {'i', "ID", field("id")},
      {'t', "TYPE", [](Object o) { return upper(text_of(o, "class")); }},
      {'d', "DESCRIPTION", field("description")},
      {'s', "STATE", [](Object o) { return upper(text_of(o, "status")); }},
      {'c', "CANCELABLE", [](Object o) { return yes_no(boolean_of(o, "may_cancel")); }},
      {'C', "CREATED", [](Object o) { return local_time(text_of(o, "created_at"), ""); }},
  };
  return print_listing(app, args, columns, rows, Order::as_given);
}

Result<> show(App& app, const Args& args) {
  VIRGA_TRY(auto id, local_name(args[0]));
  VIRGA_TRY(auto* api, app.api());
  VIRGA_TRY(auto operation, api->object(Url("/1.0/operations").segment(id)));
  if (auto* metadata = operation.if_contains("metadata"); metadata != nullptr && metadata->is_null()) *metadata = json::object();
  app.print(as_yaml(operation));
  return {};
}

Result<> remove(App& app, const Args& args) {
  VIRGA_TRY(auto id, local_name(args[0]));
  VIRGA_TRY(auto* api, app.api());
  VIRGA_CHECK(api->send("DELETE", Url("/1.0/operations").segment(id)));
  app.note(fmt::format("Operation {} deleted", id));
  return {};
}

}  // namespace

Command operation_command() {
  Command group{.use = "operation", .summary = "List, show and delete background operations"};
  group.children = {
      {.use = "list [<remote>:]",
       .summary = "List background operations",
       .aliases = {"ls"},
       .description =
           "Column shorthand chars:\n  i - ID\n  t - Type\n  d - Description\n  s - State\n  c - Cancelable\n  C - Created",
       .flags = {{"all-projects", 0, Flag::boolean, "List operations from all projects"}, columns_flag("itdscC"), format_flag()},
       .most = 1,
       .run = list},
      {.use = "show [<remote>:]<operation>",
       .summary = "Show details on a background operation",
       .examples = "virga operation show 344a79e4-d88a-45bf-9c39-c72c26f6ab8a\n    Show details on that operation UUID",
       .least = 1,
       .most = 1,
       .run = show},
      {.use = "delete [<remote>:]<operation>",
       .summary = "Delete a background operation (will attempt to cancel)",
       .aliases = {"cancel", "rm"},
       .least = 1,
       .most = 1,
       .run = remove},
  };
  return group;
}

}  // namespace virga::cli
