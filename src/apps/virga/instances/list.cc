// list.
#include "apps/virga/instances/columns.h"
#include "apps/virga/instances/filter.h"
#include "apps/virga/instances/instances.h"
#include "apps/virga/table.h"
#include "apps/virga/text.h"
#include "apps/virga/values.h"

namespace virga::cli {
namespace {

constexpr std::string_view default_columns = "ns46tS";
constexpr std::string_view fast_columns = "nsacPt";

constexpr std::string_view list_description =
    R"(Default column layout: ns46tS
Fast column layout: nsacPt

A single keyword like "web" which will list any instance with a name starting by "web".
A regular expression on the instance name. (e.g. .*web.*01$).
A key/value pair referring to a configuration item. For those, the
namespace can be abbreviated to the smallest unambiguous identifier.
A key/value pair where the key is a shorthand. Multiple values must be delimited by ','. Available shorthands:
  - type={instance type}
  - status={instance current lifecycle status}
  - architecture={instance architecture}
  - location={location name}
  - ipv4={ip or CIDR}
  - ipv6={ip or CIDR}

When multiple filters are passed, they are added one on top of the other,
selecting instances which satisfy them all.

== Columns ==
The -c option takes a list of letters, and of configuration or device keys between commas:
  4 - IPv4 address
  6 - IPv6 address
  a - Architecture
  b - Storage pool
  c - Creation date
  d - Description
  D - disk usage
  e - Project name
  f - Base Image Fingerprint (short)
  F - Base Image Fingerprint (long)
  g - Age of the state shown: of 4, 6, m, M, N and u
  l - Last used date
  m - Memory usage
  M - Memory usage (%)
  n - Name
  N - Number of Processes
  p - PID of the instance's init process
  P - Profiles
  s - State
  S - Number of snapshots
  t - Type (persistent or ephemeral)
  u - CPU usage (in seconds)
  U - Started date

Custom columns are defined with "[config:|devices:]key[:name][:maxWidth]".)";

constexpr std::string_view list_examples =
    R"(virga list
    Show all instances

virga list type=container status=running
    Show the containers that run

virga list -c nFs46,volatile.eth0.hwaddr:MAC,config:image.os,devices:eth0.network:NET
    Show chosen columns, among them configuration and device keys

virga list -f csv -c n4
    Names and addresses for scripts)";

std::string columns_of(const Args& args) {
  auto spec = args.text("columns");
  if (args.has("fast")) return std::string(fast_columns);
  if (args.has("all-projects") && spec == default_columns) return "e" + spec;
  return spec;
}

Result<> list(App& app, const Args& args) {
  auto words = args.words;
  if (!words.empty() && words[0].find('=') == std::string::npos && words[0].find(':') != std::string::npos) {
    VIRGA_TRY(words[0], local_name(words[0]));
  }
  VIRGA_TRY(auto format, parse_format(args.text("format")));
  if (args.has("fast") && args.text("columns") != default_columns)
    return fail(ErrorKind::invalid, "Can't specify --fast with --columns");
  const auto spec = columns_of(args);
  VIRGA_TRY(auto columns, instance_columns(spec));

  const bool whole = format.format == Format::json || format.format == Format::yaml;
  const bool full = whole || needs_state(spec) || filters_need_state(words);
  VIRGA_TRY(auto* api, app.api());
  auto url = args.has("all-projects") ? Url("/1.0/instances").query("all-projects", "true") : app.url("/1.0/instances");
  VIRGA_TRY(auto instances, api->array(std::move(url).query("recursion", full ? "2" : "1")));

  json::array shown;
  for (auto& instance : instances)
    if (instance.is_object() && matches_filters(instance.get_object(), words)) {
      // Lists that are not there read as empty ones.
      for (std::string_view name : {"backups", "snapshots"})
        if (auto* list = instance.get_object().if_contains(name);
            list != nullptr && list->is_null() && format.format == Format::yaml)
          *list = json::array();
      shown.push_back(std::move(instance));
    }
  if (whole) return print_listing(app, args, {}, shown);

  std::vector<std::string> headers;
  for (const auto& column : columns) headers.push_back(column.header);
  std::vector<Row> rows;
  for (const auto& instance : objects_of(shown)) {
    Row row;
    for (const auto& column : columns) row.push_back(column.cell(instance));
    rows.push_back(std::move(row));
  }
  sort_naturally(rows);
  app.write(render_table(fitted(format), headers, rows));
  return {};
}

}  // namespace

Command list_command() {
  return {.use = "list [<remote>:] [<filter>...]",
          .summary = "List instances",
          .aliases = {"ls"},
          .description = list_description,
          .examples = list_examples,
          .flags = {{"all-projects", 0, Flag::boolean, "Display instances from all projects"},
                    columns_flag(default_columns),
                    {"fast", 0, Flag::boolean, "Fast mode (same as --columns=nsacPt)"},
                    format_flag()},
          .most = any_number,
          .run = list};
}

}  // namespace virga::cli
