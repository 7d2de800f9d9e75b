// remote and version.
#include <fmt/format.h>

#include "apps/virga/app.h"
#include "apps/virga/commands.h"
#include "apps/virga/listing.h"
#include "apps/virga/values.h"
#include "base/version.h"

namespace virga::cli {
namespace {

Result<> list(App& app, const Args& args) {
  json::array remotes = {json::object{{"name", "local"},
                                      {"addr", "unix://" + app.socket_path()},
                                      {"protocol", "incus"},
                                      {"auth_type", "file access"},
                                      {"public", false}}};
  const std::vector<Column> columns = {
      {'n', "NAME", [](const json::object& o) { return text_of(o, "name") + " (current)"; }},
      {'u', "URL", field("addr")},
      {'p', "PROTOCOL", field("protocol")},
      {'a', "AUTH TYPE", field("auth_type")},
      {'P', "PUBLIC", [](const json::object& o) { return yes_no(boolean_of(o, "public")); }},
      {'s', "STATIC", [](const json::object&) { return std::string("YES"); }},
      {'g', "GLOBAL", [](const json::object&) { return std::string("NO"); }},
  };
  return print_listing(app, args, columns, remotes);
}

Result<> get_default(App& app, const Args&) {
  app.print("local\n");
  return {};
}

Result<> versions(App& app, const Args& args) {
  VIRGA_TRY(auto rest, optional_local_name(args, 0));
  std::string server = "unreachable";
  if (auto api = app.api(); api)
    if (auto object = (*api)->object(Url("/1.0")); object) server = text_of(object_of(*object, "environment"), "server_version");
  app.print(fmt::format("Client version: {}\nServer version: {}\n", version, server));
  return {};
}

}  // namespace

Command remote_command() {
  Command group{.use = "remote",
                .summary = "Manage the list of remote servers",
                .description = "virga speaks to the daemon of this machine, which is called \"local\"."};
  group.children = {{.use = "list",
                     .summary = "List the available remotes",
                     .aliases = {"ls"},
                     .flags = {columns_flag("nupaPsg"), format_flag()},
                     .run = list},
                    {.use = "get-default", .summary = "Show the default remote", .run = get_default}};
  return group;
}

Command version_command() {
  return {.use = "version [<remote>:]", .summary = "Show local and remote versions", .most = 1, .run = versions};
}

}  // namespace virga::cli
