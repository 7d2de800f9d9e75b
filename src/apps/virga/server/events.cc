#include "apps/virga/server/events.h"

#include <fmt/format.h>

#include "apps/virga/app.h"
#include "apps/virga/text.h"
#include "apps/virga/values.h"

namespace virga::cli {
namespace {

std::string logfmt_value(const json::value& value) {
  auto text = value.is_string() ? std::string(value.get_string()) : json::serialize(value);
  const bool plain = !text.empty() && text.find_first_of(" =\"\n\t") == std::string::npos;
  return plain ? escaped_line(text) : compact_json(json::string(text));
}

std::string line(std::string_view time, std::string_view level, std::string_view message, const json::object& context) {
  std::string out =
      fmt::format("time=\"{}\" level={} msg={}", escaped_line(time), escaped_line(level), compact_json(json::string(message)));
  for (const auto& [key, value] : context) out += fmt::format(" {}={}", escaped_line(key), logfmt_value(value));
  return out + "\n";
}

std::string pretty_event(const json::object& event, int lowest) {
  const auto type = text_of(event, "type");
  const auto time = text_of(event, "timestamp").substr(0, 19) + "Z";
  const auto& metadata = object_of(event, "metadata");
  if (type == "logging") {
    const auto level = text_of(metadata, "level");
    if (parse_log_level(level).value_or(3) < lowest) return {};
    return line(time, level, text_of(metadata, "message"), object_of(metadata, "context"));
  }
  if (type == "lifecycle") {
    auto message = fmt::format("Action: {}, Source: {}", text_of(metadata, "action"), text_of(metadata, "source"));
    if (const auto& who = object_of(metadata, "requestor"); !who.empty())
      message +=
          fmt::format(", Requestor: {}/{} ({})", text_of(who, "protocol"), text_of(who, "username"), text_of(who, "address"));
    return line(time, "info", message, object_of(metadata, "context"));
  }
  json::object context{{"Status", text_of(metadata, "status")}};
  if (auto error = text_of(metadata, "err"); !error.empty()) context["Err"] = error;
  if (const auto& progress = object_of(metadata, "metadata"); !progress.empty()) context["Metadata"] = progress;
  return line(time, "info",
              fmt::format("ID: {}, Class: {}, Description: {}", text_of(metadata, "id"), text_of(metadata, "class"),
                          text_of(metadata, "description")),
              context);
}

json::value by_name(const json::value& value) {
  if (!value.is_object()) return value;
  std::map<std::string, json::value> ordered;
  for (const auto& [key, item] : value.get_object()) ordered.emplace(std::string(key), by_name(item));
  json::object out;
  for (auto& [key, item] : ordered) out[key] = std::move(item);
  return out;
}

}  // namespace

Result<int> parse_log_level(std::string_view level) {
  if (level == "trace" || level == "debug" || level == "dbug") return 0;
  if (level == "info") return 1;
  if (level == "warn" || level == "warning") return 2;
  if (level == "error" || level == "eror" || level == "crit" || level == "panic" || level == "fatal") return 3;
  return fail(ErrorKind::invalid, fmt::format("Unknown log level '{}': use debug, info, warn or error", level));
}

std::string render_event(const json::object& event, const EventFormat& format) {
  switch (format.style) {
    case EventFormat::json:
      return compact_json(by_name(event)) + "\n\n";
    case EventFormat::pretty:
      return pretty_event(event, format.lowest);
    case EventFormat::yaml:
      return escaped(as_yaml(by_name(event))) + "\n\n";
  }
  return {};
}

}  // namespace virga::cli
