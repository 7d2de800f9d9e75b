#include "apps/virga/table.h"

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <map>

#include "apps/virga/text.h"

namespace virga::cli {
namespace {

constexpr std::string_view unpainted = "\x1b[0m";

struct Cell {
  std::vector<std::string> lines;
};

std::vector<Cell> cells_of(const Row& row, std::size_t columns) {
  std::vector<Cell> out;
  out.reserve(columns);
  for (std::size_t i = 0; i < columns; ++i) out.push_back({split(i < row.size() ? escaped(row[i]) : std::string(), '\n')});
  return out;
}

std::string padded(const std::string& text, std::size_t width, bool centred, std::string_view paint) {
  const std::size_t gap = width - std::min(width, display_width(text));
  const std::size_t left = centred ? gap / 2 : 0;
  const auto shown = paint.empty() || text.empty() ? text : fmt::format("{}{}{}", paint, text, unpainted);
  return std::string(left, ' ') + shown + std::string(gap - left, ' ');
}

/// Colours for what a person looks for first; by the words of the API, so that it holds for every list.
std::string_view paint_of(std::string_view header, std::string_view text) {
  if (header != "STATE" && header != "STATUS" && header != "LEVEL" && header != "SEVERITY") return {};
  static const std::map<std::string_view, std::string_view> paints = {
      {"RUNNING", "\x1b[32m"}, {"CREATED", "\x1b[32m"}, {"SUCCESS", "\x1b[32m"}, {"ERROR", "\x1b[31m"},
      {"FAILURE", "\x1b[31m"}, {"HIGH", "\x1b[31m"},    {"STOPPED", "\x1b[2m"},  {"CANCELLED", "\x1b[2m"},
      {"FROZEN", "\x1b[36m"},  {"PENDING", "\x1b[33m"}, {"MODERATE", "\x1b[33m"}};
  auto it = paints.find(text);
  return it == paints.end() ? std::string_view() : it->second;
}

/// Takes columns from the widest until all fit, as long as they are not narrower than a word or two.
void shrink(std::vector<std::size_t>& widths, std::size_t frame, std::size_t terminal) {
  constexpr std::size_t least = 8;
  auto total = frame;
  for (auto width : widths) total += width;
  while (total > terminal && !widths.empty()) {
    auto widest = std::max_element(widths.begin(), widths.end());
    if (*widest <= least) return;
    --*widest, --total;
  }
}

void fit(Cell& cell, std::size_t width, bool wrap) {
  std::vector<std::string> lines;
  for (auto& line : cell.lines) {
    if (display_width(line) <= width) {
      lines.push_back(std::move(line));
    } else if (wrap) {
      for (auto& part : wrapped(line, width)) lines.push_back(std::move(part));
    } else {
      lines.push_back(line.substr(0, bytes_that_fit(line, width - 1)) + "…");
    }
  }
  cell.lines = std::move(lines);
}

/// What stands before, between and behind the cells of a line.
struct Frame {
  std::string_view before, between, behind;
};
constexpr Frame boxed{"| ", " | ", " |"};
constexpr Frame open{"  ", "  ", "  "};
const std::vector<std::string> plain;  ///< no header means anything: nothing is painted

std::string lines_of(const std::vector<Cell>& cells, const std::vector<std::size_t>& widths, const Frame& frame,
                     const std::vector<std::string>* headers) {
  std::size_t height = 1;
  for (const auto& cell : cells) height = std::max(height, cell.lines.size());
  std::string out;
  for (std::size_t line = 0; line < height; ++line) {
    out += frame.before;
    for (std::size_t i = 0; i < cells.size(); ++i) {
      if (i > 0) out += frame.between;
      const auto& text = line < cells[i].lines.size() ? cells[i].lines[line] : std::string();
      out +=
          padded(text, widths[i], headers == nullptr, headers == nullptr || headers->empty() ? "" : paint_of((*headers)[i], text));
    }
    out += frame.behind;
    out += '\n';
  }
  return out;
}

std::string rule(const std::vector<std::size_t>& widths) {
  std::string out = "+";
  for (auto width : widths) out += std::string(width + 2, '-') + "+";
  return out + "\n";
}

std::string csv_field(const std::string& text) {
  const bool quoted =
      text.find_first_of(",\"\r\n") != std::string::npos || text == "\\." || (!text.empty() && (text[0] == ' ' || text[0] == '\t'));
  if (!quoted) return text;
  std::string out = "\"";
  for (char c : text) {
    if (c == '"') out += '"';
    out += c;
  }
  return out + "\"";
}

std::string csv_line(const Row& row) {
  std::string out;
  for (std::size_t i = 0; i < row.size(); ++i) out += (i > 0 ? "," : "") + csv_field(escaped(row[i]));
  return out + "\n";
}

}  // namespace

Result<OutputFormat> parse_format(std::string_view text) {
  OutputFormat out;
  auto parts = split(text, ',');
  const std::string& name = parts[0];
  auto bad = [&] {
    return fail(Error(ErrorKind::invalid, fmt::format("Invalid value \"{}\" for flag \"--format\"", text))
                    .with_hint("one of: table, compact, csv, json, yaml; with ,header or ,noheader behind it"));
  };
  if (name == "table")
    out.format = Format::table;
  else if (name == "compact")
    out.format = Format::compact;
  else if (name == "csv")
    out.format = Format::csv, out.header = false;
  else if (name == "json")
    out.format = Format::json;
  else if (name == "yaml")
    out.format = Format::yaml;
  else
    return bad();
  if (parts.size() > 2) return bad();
  if (parts.size() == 2) {
    if (parts[1] == "header")
      out.header = true;
    else if (parts[1] == "noheader")
      out.header = false;
    else
      return bad();
  }
  return out;
}

OutputFormat fitted(OutputFormat format) {
  if (::isatty(STDOUT_FILENO) != 1) return format;
  ::winsize size{};
  if (::ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0) format.width = size.ws_col;
  const char* refused = std::getenv("NO_COLOR");
  const char* terminal = std::getenv("TERM");
  format.colour = (refused == nullptr || *refused == '\0') && terminal != nullptr && std::string_view(terminal) != "dumb";
  return format;
}

std::string render_table(const OutputFormat& format, const std::vector<std::string>& headers, const std::vector<Row>& rows) {
  std::string out;
  if (format.format == Format::csv) {
    if (format.header) out += csv_line(headers);
    for (const auto& row : rows) out += csv_line(row);
    return out;
  }
  std::vector<std::size_t> widths(headers.size(), 0);
  std::vector<std::vector<Cell>> all;
  if (format.header) all.push_back(cells_of(headers, headers.size()));
  for (const auto& row : rows) all.push_back(cells_of(row, headers.size()));
  for (const auto& cells : all)
    for (std::size_t i = 0; i < cells.size(); ++i)
      for (const auto& line : cells[i].lines) widths[i] = std::max(widths[i], display_width(line));

  const bool box = format.format == Format::table;
  const Frame& frame = box ? boxed : open;
  if (format.width > 0 && !widths.empty()) {
    shrink(widths, frame.before.size() + frame.behind.size() + frame.between.size() * (widths.size() - 1), format.width);
    for (auto& cells : all)
      for (std::size_t i = 0; i < cells.size(); ++i) fit(cells[i], widths[i], box);
  }
  if (box) out += rule(widths);
  for (std::size_t i = 0; i < all.size(); ++i) {
    out += lines_of(all[i], widths, frame, format.header && i == 0 ? nullptr : format.colour ? &headers : &plain);
    if (box) out += rule(widths);
  }
  return out;
}

void sort_naturally(std::vector<Row>& rows) {
  std::sort(rows.begin(), rows.end(), [](const Row& a, const Row& b) {
    for (std::size_t i = 0; i < a.size() && i < b.size(); ++i) {
      if (a[i].empty() != b[i].empty()) return b[i].empty();
      if (natural_less(a[i], b[i])) return true;
      if (natural_less(b[i], a[i])) return false;
    }
    return a.size() < b.size();
  });
}

}  // namespace virga::cli
