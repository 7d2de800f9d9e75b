// warning.
#include <fmt/format.h>

#include <algorithm>

#include "apps/virga/app.h"
#include "apps/virga/commands.h"
#include "apps/virga/listing.h"
#include "apps/virga/text.h"
#include "apps/virga/values.h"

namespace virga::cli {
namespace {

Url warning_url(const std::string& uuid) {
  return Url("/1.0/warnings").segment(uuid);
}

Result<json::array> warnings(Api& api) {
  return api.array(Url("/1.0/warnings").query("recursion", "1"));
}

Result<> list(App& app, const Args& args) {
  VIRGA_TRY(auto* api, app.api());
  VIRGA_TRY(auto rows, warnings(*api));
  if (!args.has("all")) {
    json::array fresh;
    for (auto& row : rows)
      if (row.is_object() && text_of(row.get_object(), "status") == "new") fresh.push_back(std::move(row));
    rows = std::move(fresh);
  }
  using Object = const json::object&;
  const std::vector<Column> columns = {
      {'u', "UUID", field("uuid")},
      {'t', "TYPE", field("type")},
      {'S', "STATUS", [](Object o) { return upper(text_of(o, "status")); }},
      {'s', "SEVERITY", [](Object o) { return upper(text_of(o, "severity")); }},
      {'c', "COUNT", [](Object o) { return fmt::format("{}", integer_of(o, "count")); }},
      {'p', "PROJECT", field("project")},
      {'l', "LAST SEEN", [](Object o) { return local_time(text_of(o, "last_seen_at"), ""); }},
      {'f', "FIRST SEEN", [](Object o) { return local_time(text_of(o, "first_seen_at"), ""); }},
      {'m', "MESSAGE", field("last_message")},
      {'e', "ENTITY", field("entity_url")},
      {'L', "LOCATION", field("location")},
  };
  return print_listing(app, args, columns, rows, Order::as_given);
}

Result<> show(App& app, const Args& args) {
  VIRGA_TRY(auto uuid, local_name(args[0]));
  VIRGA_TRY(auto* api, app.api());
  VIRGA_TRY(auto warning, api->object(warning_url(uuid)));
  app.print(as_yaml(warning));
  return {};
}

Result<> acknowledge(App& app, const Args& args) {
  VIRGA_TRY(auto uuid, local_name(args[0]));
  VIRGA_TRY(auto* api, app.api());
  VIRGA_CHECK(api->send("PUT", warning_url(uuid), json::object{{"status", "acknowledged"}}));
  app.note(fmt::format("Warning {} acknowledged", uuid));
  return {};
}

Result<> remove(App& app, const Args& args) {
  VIRGA_TRY(auto uuid, optional_local_name(args, 0));
  if (uuid.empty() != args.has("all"))
    return fail(Error(ErrorKind::invalid, "Name one warning, or use --all").with_hint("virga warning list --all shows them"));
  VIRGA_TRY(auto* api, app.api());
  std::vector<std::string> uuids{uuid};
  if (args.has("all")) {
    uuids.clear();
    VIRGA_TRY(const auto all, warnings(*api));
    for (const auto& row : all)
      if (row.is_object()) uuids.push_back(text_of(row.get_object(), "uuid"));
  }
  for (const auto& one : uuids) VIRGA_CHECK(api->send("DELETE", warning_url(one)));
  app.note(args.has("all") ? fmt::format("{} warnings deleted", uuids.size()) : fmt::format("Warning {} deleted", uuid));
  return {};
}

}  // namespace

Command warning_command() {
  Command group{.use = "warning", .summary = "List, show, acknowledge and delete warnings"};
  group.children = {
      {.use = "list [<remote>:]",
       .summary = "List warnings",
       .aliases = {"ls"},
       .description = "Only new warnings are shown, unless --all is given.\n\n"
                      "Column shorthand chars:\n  c - Count\n  l - Last seen\n  L - Location\n  f - First seen\n  p - Project\n"
                      "  s - Severity\n  S - Status\n  u - UUID\n  t - Type\n  m - Message\n  e - What it is about",
       .flags = {{"all", 'a', Flag::boolean, "List all warnings"}, columns_flag("utSscpl"), format_flag()},
       .most = 1,
       .run = list},
      {.use = "show [<remote>:]<warning-uuid>", .summary = "Show a warning", .least = 1, .most = 1, .run = show},
      {.use = "acknowledge [<remote>:]<warning-uuid>",
       .summary = "Acknowledge a warning",
       .aliases = {"ack"},
       .least = 1,
       .most = 1,
       .run = acknowledge},
      {.use = "delete [<remote>:]<warning-uuid>",
       .summary = "Delete a warning",
       .aliases = {"rm"},
       .flags = {{"all", 'a', Flag::boolean, "Delete all warnings"}},
       .most = 1,
       .run = remove},
  };
  return group;
}

}  // namespace virga::cli
