// Lists of objects in all output formats, with the columns that "-c" picks.
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "apps/virga/app.h"
#include "apps/virga/table.h"

namespace virga::cli {

struct Column {
  char letter;
  std::string header;
  std::function<std::string(const json::object&)> cell;
};

/// The columns that `spec` names, such as "ns46" or "n,s". Errors: invalid.
Result<std::vector<const Column*>> pick_columns(const std::vector<Column>& all, std::string_view spec);

enum class Order { natural, as_given };
/// Prints the rows as --format and --columns of `args` say.
Result<> print_listing(App& app, const Args& args, const std::vector<Column>& all, const json::array& rows,
                       Order order = Order::natural);

/// The flags that every list has.
Flag format_flag();
Flag columns_flag(std::string_view letters);

/// A cell that shows a field's text as it is.
std::function<std::string(const json::object&)> field(std::string name);
std::string yes_no(bool value);

}  // namespace virga::cli
