// What comes back after a restart of the daemon: the log's operations, and how the journal settled those that were half done.
#include "engine/operations/restore.h"

#include <algorithm>
#include <utility>

#include "engine/operations/log.h"
#include "engine/operations/operation.h"

namespace virga::engine {
namespace {

constexpr std::size_t longest_text = 8'192;

std::string kept(std::string_view text) {
  return valid_utf8(text.substr(0, longest_text));
}

}  // namespace

json::object encode_for_log(const Operation& operation) {
  json::object out = operation.to_json();
  if (auto* metadata = out["metadata"].if_object()) metadata->erase("environment");  // may hold passwords
  const Caller& caller = operation.spec().caller;
  out["project"] = operation.spec().project;
  out["err"] = kept(std::string_view(out["err"].as_string()));
  out["caller"] = {{"username", kept(caller.username)}, {"protocol", caller.protocol}, {"address", caller.address}};
  // Guests and tools have their word in metadata: what could not be read again is not kept.
  auto text = json::serialize(out);
  if (valid_utf8(text) != text || text.size() > 64 * longest_text) out["metadata"] = nullptr;
  return out;
}

Result<LoggedOperation> decode_from_log(const json::object& document) {
  const Fields f(document);
  LoggedOperation out;
  VIRGA_TRY(out.id, f.string("id"));
  if (out.id.empty()) return invalid("id", "an operation without an id");
  VIRGA_TRY(out.spec.project, f.string("project"));
  VIRGA_TRY(out.spec.description, f.string("description"));
  VIRGA_TRY(const auto op_class, f.string("class"));
  if (op_class == "websocket") out.spec.op_class = OperationClass::websocket;
  VIRGA_TRY(const auto resources, f.object("resources"));
  const Fields nouns(resources);
  for (const auto& noun : resources) {
    VIRGA_TRY(out.spec.resources[std::string(noun.key())], nouns.strings(noun.key()));
  }
  VIRGA_TRY(const auto caller, f.object("caller"));
  const Fields who(caller);
  VIRGA_TRY(out.spec.caller.username, who.string("username"));
  VIRGA_TRY(out.spec.caller.protocol, who.string("protocol"));
  VIRGA_TRY(out.spec.caller.address, who.string("address"));
  VIRGA_TRY(out.metadata, f.object("metadata"));
  VIRGA_TRY(const auto created, f.string("created_at"));
  VIRGA_TRY(out.created, parse_time(created));
  VIRGA_TRY(const auto updated, f.string("updated_at"));
  VIRGA_TRY(out.updated, parse_time(updated));
  VIRGA_TRY(const auto code, f.integer("status_code"));
  VIRGA_TRY(auto err, f.string("err"));
  if (code == static_cast<int>(OperationStatus::success)) {
    out.status = OperationStatus::success;
  } else if (code == static_cast<int>(OperationStatus::cancelled)) {
    out.status = OperationStatus::cancelled;
  } else if (code != static_cast<int>(OperationStatus::failure)) {
    err = "the daemon ended while this ran";
  }
  if (!err.empty()) out.error = Error(out.status == OperationStatus::cancelled ? ErrorKind::cancelled : ErrorKind::internal, err);
  return out;
}

std::string describe_kind(std::string_view kind) {
  static constexpr std::pair<std::string_view, std::string_view> verbs[] = {
      {"-create", "Creating"}, {"-start", "Starting"},  {"-stop", "Stopping"},    {"-delete", "Deleting"},
      {"-rename", "Renaming"}, {"-update", "Updating"}, {"-import", "Importing"}, {"-restore", "Restoring"},
      {"-copy", "Copying"},    {"-move", "Moving"}};
  for (const auto& [ending, verb] : verbs)
    if (kind.ends_with(ending)) return std::string(verb) + " " + std::string(kind.substr(0, kind.size() - ending.size()));
  return std::string(kind);
}

}  // namespace virga::engine
