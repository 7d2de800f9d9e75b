#include "apps/virga/listing.h"

#include <fmt/format.h>

#include <algorithm>

#include "apps/virga/text.h"
#include "apps/virga/values.h"

namespace virga::cli {

Result<std::vector<const Column*>> pick_columns(const std::vector<Column>& all, std::string_view spec) {
  std::vector<const Column*> out;
  for (const auto& entry : split(spec, ',')) {
    if (entry.empty())
      return fail(ErrorKind::invalid, fmt::format("Empty column entry (redundant, leading or trailing command) in '{}'", spec));
    for (char letter : entry) {
      auto it = std::find_if(all.begin(), all.end(), [&](const Column& c) { return c.letter == letter; });
      if (it == all.end()) {
        if (letter == 'L') return fail(ErrorKind::invalid, "Can't specify column L when not clustered");
        std::string known;
        for (const auto& column : all) known += fmt::format("{}{}", known.empty() ? "" : " ", column.letter);
        return fail(Error(ErrorKind::invalid, fmt::format("Unknown column shorthand char '{}' in '{}'", letter, entry))
                        .with_hint("there are: " + known));
      }
      out.push_back(&*it);
    }
  }
  return out;
}

Result<> print_listing(App& app, const Args& args, const std::vector<Column>& all, const json::array& rows, Order order) {
  VIRGA_TRY(auto format, parse_format(args.text("format")));
  if (format.format == Format::json) {
    app.write(compact_json(rows) + "\n");
    return {};
  }
  if (format.format == Format::yaml) {
    app.print(rows.empty() ? "[]\n" : as_yaml(rows));
    return {};
  }
  auto spec = args.text("columns");
  const bool has_project = std::any_of(all.begin(), all.end(), [](const Column& c) { return c.letter == 'e'; });
  if (args.has("all-projects") && !args.has("columns") && has_project) spec.insert(0, "e");
  VIRGA_TRY(auto columns, pick_columns(all, spec));
  std::vector<std::string> headers;
  for (const auto* column : columns) headers.push_back(column->header);
  std::vector<Row> table;
  for (const auto& object : objects_of(rows)) {
    Row row;
    for (const auto* column : columns) row.push_back(column->cell(object));
    table.push_back(std::move(row));
  }
  if (order == Order::natural) sort_naturally(table);
  app.write(render_table(fitted(format), headers, table));
  return {};
}

Flag format_flag() {
  return {
      "format", 'f', Flag::text,
      R"(Format (csv|json|table|yaml|compact), use suffix ",noheader" to disable headers and ",header" to enable it if missing, e.g. csv,header)",
      "table"};
}

Flag columns_flag(std::string_view letters) {
  return {"columns", 'c', Flag::text, "Columns", letters};
}

std::function<std::string(const json::object&)> field(std::string name) {
  return [name = std::move(name)](const json::object& object) { return text_of(object, name); };
}

std::string yes_no(bool value) {
  return value ? "YES" : "NO";
}

}  // namespace virga::cli
