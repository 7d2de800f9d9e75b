// image list and info.
#include <fmt/format.h>

#include <algorithm>

#include "apps/virga/images/images.h"
#include "apps/virga/images/servers.h"
#include "apps/virga/instances/filter.h"
#include "apps/virga/listing.h"
#include "apps/virga/text.h"
#include "apps/virga/values.h"

namespace virga::cli {
namespace {

using Object = const json::object&;

std::vector<std::string> alias_names(Object image) {
  std::vector<std::string> names;
  for (const auto& alias : objects_of(array_of(image, "aliases"))) names.push_back(text_of(alias, "name"));
  return names;
}

std::string short_alias(Object image) {
  auto names = alias_names(image);
  if (names.empty()) return {};
  auto shortest = *std::min_element(names.begin(), names.end(), [](const auto& a, const auto& b) { return a.size() < b.size(); });
  return names.size() == 1 ? shortest : fmt::format("{} ({} more)", shortest, names.size() - 1);
}

std::string mebibytes(std::int64_t bytes) {
  return fmt::format("{:.2f}MiB", static_cast<double>(bytes) / 1024.0 / 1024.0);
}

const std::vector<Column>& image_columns() {
  static const std::vector<Column> columns = {
      {'l', "ALIAS", short_alias},
      {'L', "ALIASES", [](Object o) { return fmt::format("{}", fmt::join(alias_names(o), "\n")); }},
      {'f', "FINGERPRINT", [](Object o) { return text_of(o, "fingerprint").substr(0, 12); }},
      {'F', "FINGERPRINT", field("fingerprint")},
      {'p', "PUBLIC", [](Object o) { return boolean_of(o, "public") ? "yes" : "no"; }},
      {'d', "DESCRIPTION", [](Object o) { return text_of(object_of(o, "properties"), "description"); }},
      {'e', "PROJECT", field("project")},
      {'a', "ARCHITECTURE", field("architecture")},
      {'t', "TYPE", [](Object o) { return upper(text_of(o, "type")); }},
      {'s', "SIZE", [](Object o) { return mebibytes(integer_of(o, "size")); }},
      {'u', "UPLOAD DATE", [](Object o) { return local_time(text_of(o, "uploaded_at"), ""); }},
  };
  return columns;
}

bool matches(Object image, const std::string& filter) {
  auto equals = filter.find('=');
  if (equals == std::string::npos) {
    if (text_of(image, "fingerprint").starts_with(filter)) return true;
    for (const auto& name : alias_names(image))
      if (name.find(filter) != std::string::npos) return true;
    return false;
  }
  const auto key = filter.substr(0, equals), value = filter.substr(equals + 1);
  if (key == "type" || key == "architecture") return text_of(image, key) == value;
  for (const auto& [name, text] : object_of(image, "properties"))
    if (text.is_string() && abbreviates(key, name) && matches_pattern(std::string(text.get_string()), value)) return true;
  return false;
}

Result<json::array> all_images(App& app, bool all_projects) {
  VIRGA_TRY(const bool published, publishes_images(app, app.remote()));
  if (published) return published_images(app, app.remote());
  VIRGA_TRY(auto* api, app.api());
  auto url = all_projects ? Url("/1.0/images").query("all-projects", "true") : app.url("/1.0/images");
  return api->array(std::move(url).query("recursion", "1"));
}

Result<> list(App& app, const Args& args) {
  auto filters = args.words;
  if (!filters.empty() && filters[0].find('=') == std::string::npos && filters[0].find(':') != std::string::npos) {
    VIRGA_TRY(filters[0], local_name(filters[0]));
  }
  VIRGA_TRY(auto images, all_images(app, args.has("all-projects")));
  json::array shown;
  for (auto& image : images)
    if (image.is_object() &&
        std::all_of(filters.begin(), filters.end(), [&](const auto& f) { return f.empty() || matches(image.get_object(), f); }))
      shown.push_back(std::move(image));
  return print_listing(app, args, image_columns(), shown);
}

std::string lines(std::string_view title, const std::vector<std::string>& entries) {
  std::string out = fmt::format("{}:{}\n", title, entries.empty() ? " []" : "");
  for (const auto& entry : entries) out += fmt::format("    - {}\n", entry);
  return out;
}

Result<> info(App& app, const Args& args) {
  VIRGA_TRY(auto name, local_name(args[0]));
  VIRGA_TRY(const auto image, find_image(app, name, args.has("vm")));
  std::string out = fmt::format("Fingerprint: {}\nSize: {}\nArchitecture: {}\nType: {}\nPublic: {}\nTimestamps:\n",
                                text_of(image, "fingerprint"), mebibytes(integer_of(image, "size")), text_of(image, "architecture"),
                                text_of(image, "type"), boolean_of(image, "public") ? "yes" : "no");
  if (auto time = local_time(text_of(image, "created_at"), ""); !time.empty()) out += fmt::format("    Created: {}\n", time);
  out += fmt::format("    Uploaded: {}\n    Expires: {}\n    Last used: {}\nProperties:\n",
                     local_time(text_of(image, "uploaded_at"), "never"), local_time(text_of(image, "expires_at"), "never"),
                     local_time(text_of(image, "last_used_at"), "never"));
  std::vector<std::string> properties;
  for (const auto& [key, value] : object_of(image, "properties"))
    if (value.is_string())
      properties.push_back(fmt::format("    {}: {}\n", std::string_view(key), std::string_view(value.get_string())));
  std::sort(properties.begin(), properties.end());
  for (const auto& line : properties) out += line;
  out += "Aliases:\n";
  for (const auto& alias : alias_names(image)) out += fmt::format("    - {}\n", alias);
  out += fmt::format("Cached: {}\nAuto update: {}\n", boolean_of(image, "cached") ? "yes" : "no",
                     boolean_of(image, "auto_update") ? "enabled" : "disabled");
  if (const auto& source = object_of(image, "update_source"); !source.empty())
    out += fmt::format("Source:\n    Server: {}\n    Protocol: {}\n    Alias: {}\n", text_of(source, "server"),
                       text_of(source, "protocol"), text_of(source, "alias"));
  out += lines("Profiles", strings_of(image, "profiles"));
  app.print(out);
  return {};
}

}  // namespace

Command image_list_command() {
  return {
      .use = "list [<remote>:] [<filter>...]",
      .summary = "List images",
      .aliases = {"ls"},
      .description =
          "Filters may be of the <key>=<value> form for property based filtering,\n"
          "or part of the image hash or part of the image alias name.\n\n"
          "Column shorthand chars:\n\n"
          "    l - Shortest image alias (and optionally number of other aliases)\n    L - Newline-separated list of all image "
          "aliases\n    f - Fingerprint (short)\n"
          "    F - Fingerprint (long)\n    p - Whether image is public\n    d - Description\n    e - Project\n    a - "
          "Architecture\n    s - Size\n    u - Upload date\n    t - Type",
      .flags = {{"all-projects", 0, Flag::boolean, "Display images from all projects"}, columns_flag("lfpdatsu"), format_flag()},
      .most = any_number,
      .run = list};
}

Command image_info_command() {
  return {.use = "info [<remote>:]<image>",
          .summary = "Show useful information about images",
          .flags = {{"vm", 0, Flag::boolean, "Query virtual machine images"}},
          .least = 1,
          .most = 1,
          .run = info};
}

}  // namespace virga::cli
