// Rows of cells as a table, a compact table or CSV, laid out as the incus command does. Pure.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"

namespace virga::cli {

enum class Format { table, compact, csv, json, yaml };

struct OutputFormat {
  Format format = Format::table;
  bool header = true;
};

/// "table", "csv,header", "compact,noheader". Errors: invalid.
Result<OutputFormat> parse_format(std::string_view text);

using Row = std::vector<std::string>;

/// Cells may hold several lines; other control characters are escaped.
std::string render_table(const OutputFormat& format, const std::vector<std::string>& headers, const std::vector<Row>& rows);
/// First cell first, numbers by value.
void sort_naturally(std::vector<Row>& rows);

}  // namespace virga::cli
