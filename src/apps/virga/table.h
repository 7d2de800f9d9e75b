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
  std::size_t width = 0;  ///< columns of the terminal, 0: as wide as it gets; tables wrap, compact ones cut with "…"
  bool colour = false;    ///< states are coloured
};

/// "table", "csv,header", "compact,noheader". Errors: invalid.
Result<OutputFormat> parse_format(std::string_view text);

using Row = std::vector<std::string>;

/// The same with what standard output is: nothing changes where it is not a terminal.
OutputFormat fitted(OutputFormat format);

/// Cells may hold several lines; other control characters are escaped.
std::string render_table(const OutputFormat& format, const std::vector<std::string>& headers, const std::vector<Row>& rows);
/// First cell first, numbers by value.
void sort_naturally(std::vector<Row>& rows);

}  // namespace virga::cli
