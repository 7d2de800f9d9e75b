// JSON and YAML for display: no control character reaches the terminal.
#include <fmt/format.h>

#include "apps/virga/app.h"
#include "apps/virga/text.h"
#include "wire/yaml/yaml.h"

namespace virga::cli {
namespace {

void append_json(std::string& out, const json::value& value, int depth) {
  const bool pretty = depth >= 0;
  auto newline = [&](int level) {
    if (!pretty) return;
    out += '\n';
    out.append(static_cast<std::size_t>(level), '\t');
  };
  const int inner = pretty ? depth + 1 : depth;
  bool first = true;
  switch (value.kind()) {
    case json::kind::object:
      out += '{';
      for (const auto& [key, item] : value.get_object()) {
        if (!first) out += ',';
        first = false;
        newline(inner);
        out += json_quoted(key);
        out += pretty ? ": " : ":";
        append_json(out, item, inner);
      }
      if (!first) newline(depth);
      out += '}';
      break;
    case json::kind::array:
      out += '[';
      for (const auto& item : value.get_array()) {
        if (!first) out += ',';
        first = false;
        newline(inner);
        append_json(out, item, inner);
      }
      if (!first) newline(depth);
      out += ']';
      break;
    case json::kind::string:
      out += json_quoted(value.get_string());
      break;
    case json::kind::double_:
      out += fmt::format("{}", value.get_double());
      break;
    default:
      out += json::serialize(value);
  }
}

}  // namespace

std::string pretty_json(const json::value& value) {
  std::string out;
  append_json(out, value, 0);
  return out;
}

std::string compact_json(const json::value& value) {
  std::string out;
  append_json(out, value, -1);
  return out;
}

std::string as_yaml(const json::value& value) {
  std::string out;
  for (auto& line : split(yaml::encode(value), '\n')) {
    // created_at: "2026-..." -- the encoder cannot know that this text is a time.
    auto key = line.find("_at: \"");
    if (key != std::string::npos && line.ends_with("Z\"") && line.find('"') == key + 5 &&
        parse_time(std::string_view(line).substr(key + 6, line.size() - key - 7))) {
      line.erase(key + 5, 1);
      line.pop_back();
    }
    out += line;
    out += '\n';
  }
  out.pop_back();
  return out;
}

}  // namespace virga::cli
