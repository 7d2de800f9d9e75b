#include "wire/qmp/message.h"

#include <fmt/format.h>

namespace virga::qmp {
namespace {

/// QEMU's error classes; nearly everything is GenericError, where only the text tells more.
Error error_of(const json::object& error) {
  Fields fields(error, "error");
  const auto name = fields.string("class").value_or("");
  auto text = fields.string("desc").value_or("");
  if (text.empty()) text = "QEMU refused the command";
  if (text.size() > 1000) text.resize(1000);
  for (char& c : text)
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) c = ' ';
  if (name == "DeviceNotFound") return Error(ErrorKind::not_found, std::move(text));
  if (name == "CommandNotFound") return Error(ErrorKind::unsupported, std::move(text));
  return Error(ErrorKind::internal, std::move(text));
}

Result<Message> parse_greeting(const json::object& line) {
  Fields outer(line);
  VIRGA_TRY(auto qmp, outer.object("QMP"));
  VIRGA_TRY(auto version, Fields(qmp, "QMP").object("version"));
  VIRGA_TRY(auto qemu, Fields(version, "QMP.version").object("qemu"));
  Fields numbers(qemu, "QMP.version.qemu");
  VIRGA_TRY(auto major, numbers.integer("major"));
  VIRGA_TRY(auto minor, numbers.integer("minor"));
  VIRGA_TRY(auto micro, numbers.integer("micro"));
  return Greeting{fmt::format("{}.{}.{}", major, minor, micro)};
}

}  // namespace

Result<Message> parse_message(std::string_view line) {
  VIRGA_TRY(auto object, parse_json_object(line));
  Fields fields(object);
  if (object.contains("QMP")) return parse_greeting(object);
  if (object.contains("event")) {
    VIRGA_TRY(auto name, fields.string("event"));
    VIRGA_TRY(auto data, fields.object("data"));
    if (name.empty() || name.size() > 128) return fail(ErrorKind::invalid, "QMP event without a name");
    return EventMessage{std::move(name), std::move(data)};
  }
  // Errors about commands QEMU could not even parse have no id; 0 is never given to a command.
  VIRGA_TRY(auto id, fields.integer("id"));
  if (id < 0) return fail(ErrorKind::invalid, "QMP reply with a negative id");
  if (object.contains("error")) {
    VIRGA_TRY(auto error, fields.object("error"));
    return Reply{static_cast<std::uint64_t>(id), fail(error_of(error))};
  }
  auto* value = object.if_contains("return");
  if (value == nullptr) return fail(ErrorKind::invalid, "a QMP line that is no greeting, event or reply");
  return Reply{static_cast<std::uint64_t>(id), std::move(*value)};
}

std::string format_command(std::string_view command, const json::object& arguments, std::uint64_t id) {
  json::object line;
  line["execute"] = command;
  if (!arguments.empty()) line["arguments"] = arguments;
  line["id"] = static_cast<std::int64_t>(id);
  return json::serialize(line) + "\n";
}

}  // namespace virga::qmp
