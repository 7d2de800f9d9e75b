// image alias.
#include <fmt/format.h>

#include "apps/virga/images/images.h"
#include "apps/virga/images/servers.h"
#include "apps/virga/listing.h"
#include "apps/virga/text.h"
#include "apps/virga/values.h"

namespace virga::cli {
namespace {

using Object = const json::object&;

Result<json::array> all_aliases(App& app) {
  VIRGA_TRY(const bool published, publishes_images(app, app.remote()));
  if (!published) {
    VIRGA_TRY(auto* api, app.api());
    return api->array(app.url("/1.0/images/aliases").query("recursion", "1"));
  }
  VIRGA_TRY(const auto images, published_images(app, app.remote()));
  json::array out;
  for (const auto& image : objects_of(images))
    for (const auto& alias : objects_of(array_of(image, "aliases")))
      out.push_back(json::object{{"name", text_of(alias, "name")},
                                 {"target", text_of(image, "fingerprint")},
                                 {"type", text_of(image, "type")},
                                 {"description", text_of(object_of(image, "properties"), "description")}});
  return out;
}

Result<> list(App& app, const Args& args) {
  VIRGA_TRY(auto aliases, all_aliases(app));
  json::array shown;
  for (auto& alias : aliases) {
    if (!alias.is_object()) continue;
    const bool wanted = std::all_of(args.words.begin(), args.words.end(), [&](const std::string& filter) {
      return filter.empty() || text_of(alias.get_object(), "target").starts_with(filter) ||
             text_of(alias.get_object(), "name").find(filter) != std::string::npos;
    });
    if (wanted) shown.push_back(std::move(alias));
  }
  const std::vector<Column> columns = {
      {'a', "ALIAS", field("name")},
      {'f', "FINGERPRINT", [](Object o) { return text_of(o, "target").substr(0, 12); }},
      {'t', "TYPE", [](Object o) { return upper(text_of(o, "type").empty() ? "container" : text_of(o, "type")); }},
      {'d', "DESCRIPTION", field("description")},
  };
  return print_listing(app, args, columns, shown);
}

Result<> create(App& app, const Args& args) {
  VIRGA_TRY(auto name, local_name(args[0]));
  VIRGA_TRY(auto* api, app.api());
  // The whole fingerprint for the start of one; an unknown one is left to the server to refuse.
  auto image = api->object(app.url("/1.0/images").segment(args[1]));
  const std::string target = image ? text_of(*image, "fingerprint") : args[1];
  VIRGA_CHECK(api->send("POST", app.url("/1.0/images/aliases"),
                        json::object{{"name", name}, {"target", target}, {"description", args.text("description")}}));
  return {};
}

Result<> remove(App& app, const Args& args) {
  VIRGA_TRY(auto name, local_name(args[0]));
  VIRGA_TRY(auto* api, app.api());
  VIRGA_CHECK(api->send("DELETE", app.url("/1.0/images/aliases").segment(name)));
  return {};
}

Result<> rename(App& app, const Args& args) {
  VIRGA_TRY(auto name, local_name(args[0]));
  VIRGA_TRY(auto* api, app.api());
  VIRGA_CHECK(api->send("POST", app.url("/1.0/images/aliases").segment(name), json::object{{"name", args[1]}}));
  return {};
}

}  // namespace

Command image_alias_command() {
  Command group{.use = "alias", .summary = "Manage image aliases"};
  group.children = {
      {.use = "list [<remote>:] [<filters>...]",
       .summary = "List image aliases",
       .aliases = {"ls"},
       .description = "Filters may be part of the image hash or part of the image alias name.\n\n"
                      "Column shorthand chars:\n  a - Alias\n  f - Fingerprint\n  t - Type\n  d - Description",
       .flags = {columns_flag("aftd"), format_flag()},
       .most = any_number,
       .run = list},
      {.use = "create [<remote>:]<alias> <fingerprint>",
       .summary = "Create aliases for existing images",
       .flags = {{"description", 0, Flag::text, "Image alias description"}},
       .least = 2,
       .most = 2,
       .run = create},
      {.use = "delete [<remote>:]<alias>",
       .summary = "Delete image aliases",
       .aliases = {"rm"},
       .least = 1,
       .most = 1,
       .run = remove},
      {.use = "rename [<remote>:]<alias> <new-name>",
       .summary = "Rename aliases",
       .aliases = {"mv"},
       .least = 2,
       .most = 2,
       .run = rename},
  };
  return group;
}

}  // namespace virga::cli
