#include "api/instances/request.h"

#include <fmt/format.h>

#include <limits>

#include "api/body.h"
#include "api/images/source.h"

namespace virga::api {
namespace {

tl::unexpected<Error> not_yet(std::string_view what) {
  return fail(ErrorKind::unsupported, fmt::format("{} is not implemented yet", what));
}

/// Refuses fields that ask for something virga cannot do; their empty values, which the stock client sends, ask for nothing.
Result<> refuse_set(const json::object& body, std::initializer_list<std::string_view> names, std::string_view prefix = "") {
  for (auto name : names) {
    const auto* v = body.if_contains(name);
    if (v == nullptr || v->is_null()) continue;
    const bool nothing = (v->is_bool() && !v->get_bool()) || (v->is_string() && v->get_string().empty()) ||
                         (v->is_object() && v->get_object().empty()) || (v->is_array() && v->get_array().empty());
    if (!nothing) return not_yet(fmt::format("field '{}{}'", prefix, name));
  }
  return {};
}

Result<std::optional<std::vector<std::string>>> read_profiles(const Fields& fields) {
  if (!fields.has("profiles")) return std::optional<std::vector<std::string>>();
  VIRGA_TRY(auto list, fields.strings("profiles"));
  return std::optional(std::move(list));
}

/// A flag by its name, or by the one that it had once.
Result<bool> either(const Fields& fields, std::string_view name, std::string_view old_name) {
  VIRGA_TRY(const bool now, fields.boolean(name));
  VIRGA_TRY(const bool then, fields.boolean(old_name));
  return now || then;
}

/// An operation of another server and its secrets, which clients call by either name.
Result<engine::MigrationPeer> read_peer(const Fields& fields) {
  engine::MigrationPeer out;
  VIRGA_TRY(out.operation, fields.string("operation"));
  VIRGA_TRY(out.certificate, fields.string("certificate"));
  for (const char* name : {"secrets", "websockets"}) {
    VIRGA_TRY(auto secrets, fields.string_map(name));
    out.secrets.merge(secrets);
  }
  return out;
}

Result<> read_migration(const Fields& from, const json::object& source, engine::CreateInstance& out) {
  VIRGA_CHECK(refuse_set(
      source,
      {"properties", "secret", "server", "alias", "fingerprint", "protocol", "source", "refresh", "refresh_exclude_older", "live"},
      "source."));
  for (const auto* flag : {"allow_inconsistent", "instance_only", "container_only"}) VIRGA_CHECK(from.boolean(flag));
  VIRGA_TRY(const auto base, from.string("base-image"));  // a hint where the image may be here: all that is needed is sent
  VIRGA_TRY(const auto project, from.string("project"));
  VIRGA_TRY(const auto mode, from.string("mode"));
  auto& migration = out.migration.emplace();
  if (mode == "push") return refuse_set(source, {"operation", "secrets"}, "source.");
  if (!mode.empty() && mode != "pull") return invalid("source.mode", "'source.mode' must be \"pull\" or \"push\"");
  VIRGA_TRY(migration.peer, read_peer(from));
  return {};
}

/// A copy is of one moment, without the guest's memory, whether the source runs or not: "live" and "allow_inconsistent", which the
/// stock client sends, ask for nothing more.
Result<> read_copy(const Fields& fields, const Fields& from, const json::object& source, engine::CreateInstance& out) {
  VIRGA_CHECK(refuse_set(source,
                         {"properties", "secret", "operation", "secrets", "certificate", "server", "alias", "fingerprint",
                          "protocol", "refresh_exclude_older"},
                         "source."));
  for (const auto* flag : {"live", "allow_inconsistent"}) VIRGA_CHECK(from.boolean(flag));
  VIRGA_CHECK(from.string("base-image"));
  VIRGA_TRY(auto mode, from.string("mode"));
  if (!mode.empty() && mode != "pull") return invalid("source.mode", "a copy within the server is of mode \"pull\", or of none");
  auto& copy = out.copy.emplace();
  VIRGA_TRY(copy.name, from.string("source"));
  if (copy.name.empty()) return invalid("source.source", "field 'source.source' must name the instance to copy");
  if (const auto slash = copy.name.find('/'); slash != std::string::npos) {
    copy.snapshot = copy.name.substr(slash + 1);
    copy.name.resize(slash);
    if (copy.name.empty() || copy.snapshot.empty())
      return invalid("source.source", "field 'source.source' must name an instance, or INSTANCE/SNAPSHOT");
  }
  VIRGA_TRY(copy.instance_only, either(from, "instance_only", "container_only"));
  VIRGA_TRY(copy.project, from.string("project"));
  VIRGA_TRY(copy.refresh, from.boolean("refresh"));
  if (fields.has("type")) {
    VIRGA_TRY(const auto type, fields.string("type"));
    if (!type.empty()) copy.type = out.type;
  }
  return {};
}

Result<> read_source(const Fields& fields, engine::CreateInstance& out) {
  VIRGA_TRY(auto source, fields.object("source"));
  const Fields from(source, "source");
  VIRGA_CHECK(from.only({"type",          "alias",
                         "fingerprint",   "properties",
                         "server",        "secret",
                         "protocol",      "certificate",
                         "base-image",    "mode",
                         "operation",     "secrets",
                         "source",        "live",
                         "instance_only", "container_only",
                         "refresh",       "refresh_exclude_older",
                         "project",       "allow_inconsistent"}));
  VIRGA_TRY(auto type, from.string("type"));
  if (type.empty()) return invalid("source.type", "field 'source.type' must be given: \"image\"");
  if (type == "copy") return read_copy(fields, from, source, out);
  if (type == "migration") return read_migration(from, source, out);
  if (type == "none") return not_yet(fmt::format("an instance from source type '{}'", type));
  if (type != "image") return invalid("source.type", fmt::format("'{}' is no source type", type));
  VIRGA_TRY(auto server, from.string("server"));
  if (!server.empty()) {
    VIRGA_CHECK(refuse_set(source, {"base-image", "operation", "secrets", "source", "live", "refresh"}, "source."));
    VIRGA_TRY(out.image_server, read_image_source(from));
    return {};
  }
  VIRGA_CHECK(refuse_set(source,
                         {"properties", "secret", "base-image", "operation", "secrets", "source", "live", "refresh", "certificate"},
                         "source."));
  VIRGA_TRY(out.image_alias, from.string("alias"));
  VIRGA_TRY(out.image_fingerprint, from.string("fingerprint"));
  // The stock client sends both for an alias it has looked up; the fingerprint is the exact one.
  if (!out.image_fingerprint.empty()) out.image_alias.clear();
  if (out.image_alias.empty() && out.image_fingerprint.empty())
    return invalid("source.alias", "an image must be named: field 'source.alias' or 'source.fingerprint'");
  return {};
}

constexpr std::initializer_list<std::string_view> update_fields = {
    "description",      "architecture", "ephemeral",  "profiles",     "config",   "devices",
    "stateful",         "restore",      "disk_only",  "name",         "project",  "type",
    "status",           "status_code",  "created_at", "last_used_at", "location", "expanded_config",
    "expanded_devices", "backups",      "snapshots",  "state"};

}  // namespace

Result<engine::CreateInstance> read_create(const json::object& body) {
  const Fields fields(body);
  VIRGA_CHECK(fields.only({"name", "type", "source", "architecture", "description", "profiles", "config", "devices", "ephemeral",
                           "start", "stateful", "restore", "instance_type", "disk_only"}));
  VIRGA_CHECK(refuse_set(body, {"stateful", "restore", "instance_type", "disk_only"}));
  engine::CreateInstance out;
  VIRGA_TRY(out.name, fields.string("name"));
  VIRGA_TRY(auto type, fields.string("type"));
  VIRGA_TRY(out.type, parse_instance_type(type));
  VIRGA_TRY(out.architecture, fields.string("architecture"));
  VIRGA_TRY(out.description, fields.string("description"));
  VIRGA_TRY(out.ephemeral, fields.boolean("ephemeral"));
  VIRGA_TRY(out.start, fields.boolean("start"));
  VIRGA_TRY(out.profiles, read_profiles(fields));
  VIRGA_TRY(out.config, fields.string_map("config"));
  VIRGA_TRY(out.devices, fields.string_maps("devices"));
  VIRGA_CHECK(read_source(fields, out));
  return out;
}

Result<engine::UpdateInstance> read_update(const json::object& body, bool replace) {
  const Fields fields(body);
  // Besides what may change, what a client got from GET may stay in: it is the instance's own state and changes nothing.
  VIRGA_CHECK(fields.only(update_fields));
  VIRGA_CHECK(fields.string("restore"));
  VIRGA_CHECK(refuse_set(body, {"stateful", "restore", "disk_only"}));
  engine::UpdateInstance out;
  out.replace = replace;
  VIRGA_TRY(out.description, read_text(fields, "description"));
  VIRGA_TRY(out.architecture, read_text(fields, "architecture"));
  if (out.architecture && out.architecture->empty()) out.architecture.reset();
  if (fields.has("ephemeral")) {
    VIRGA_TRY(out.ephemeral, fields.boolean("ephemeral"));
  }
  VIRGA_TRY(out.profiles, read_profiles(fields));
  VIRGA_TRY(out.config, read_config(fields));
  VIRGA_TRY(out.devices, read_devices(fields));
  return out;
}

Result<std::string> read_restore(const json::object& body) {
  const Fields fields(body);
  VIRGA_TRY(auto snapshot, fields.string("restore"));
  if (snapshot.empty()) return snapshot;
  VIRGA_CHECK(fields.only(update_fields));
  VIRGA_CHECK(refuse_set(body, {"stateful", "disk_only"}));
  return snapshot;
}

Result<engine::StateChange> read_state_change(const json::object& body) {
  const Fields fields(body);
  VIRGA_CHECK(fields.only({"action", "timeout", "force", "stateful"}));
  engine::StateChange out;
  VIRGA_TRY(auto action, fields.string("action"));
  using enum engine::StateAction;
  if (action == "start") {
    out.action = start;
  } else if (action == "stop") {
    out.action = stop;
  } else if (action == "restart") {
    out.action = restart;
  } else if (action == "freeze") {
    out.action = freeze;
  } else if (action == "unfreeze") {
    out.action = unfreeze;
  } else {
    return invalid("action", fmt::format("'{}' is no action: there are start, stop, restart, freeze and unfreeze", action));
  }
  VIRGA_TRY(out.timeout_seconds, fields.integer("timeout", -1));
  if (out.timeout_seconds < -1) return invalid("timeout", "field 'timeout' must be a number of seconds, or -1 for no limit");
  VIRGA_TRY(out.force, fields.boolean("force"));
  VIRGA_TRY(out.stateful, fields.boolean("stateful"));
  return out;
}

Result<engine::ExecRequest> read_exec(const json::object& body) {
  const Fields fields(body);
  VIRGA_CHECK(fields.only(
      {"command", "environment", "cwd", "user", "group", "interactive", "wait-for-websocket", "record-output", "width", "height"}));
  engine::ExecRequest out;
  VIRGA_TRY(out.command, fields.strings("command"));
  if (out.command.empty()) return invalid("command", "field 'command' must be given: a program and its arguments");
  VIRGA_TRY(out.environment, fields.string_map("environment"));
  VIRGA_TRY(out.cwd, fields.string("cwd"));
  auto number = [&](std::string_view name, std::int64_t most) -> Result<std::int64_t> {
    VIRGA_TRY(auto value, fields.integer(name));
    if (value < 0 || value > most) return invalid(std::string(name), fmt::format("field '{}' must be 0 to {}", name, most));
    return value;
  };
  VIRGA_TRY(auto user, number("user", std::numeric_limits<std::uint32_t>::max() - 1));
  VIRGA_TRY(auto group, number("group", std::numeric_limits<std::uint32_t>::max() - 1));
  VIRGA_TRY(auto width, number("width", 65'535));
  VIRGA_TRY(auto height, number("height", 65'535));
  out.user = static_cast<std::uint32_t>(user);
  out.group = static_cast<std::uint32_t>(group);
  out.width = static_cast<std::uint16_t>(width);
  out.height = static_cast<std::uint16_t>(height);
  VIRGA_TRY(out.interactive, fields.boolean("interactive"));
  VIRGA_TRY(out.wait_for_websocket, fields.boolean("wait-for-websocket"));
  VIRGA_TRY(out.record_output, fields.boolean("record-output"));
  return out;
}

Result<std::optional<engine::MigrateInstance>> read_migrate(const json::object& body) {
  const Fields fields(body);
  VIRGA_TRY(const bool migration, fields.boolean("migration"));
  VIRGA_TRY(const auto project, fields.string("project"));
  VIRGA_TRY(const auto pool, fields.string("pool"));
  VIRGA_TRY(const auto name, fields.string("name"));
  if (!migration || !project.empty() || !pool.empty() || !name.empty()) return std::optional<engine::MigrateInstance>();
  VIRGA_CHECK(fields.only({"name", "migration", "live", "instance_only", "container_only", "target", "pool", "project",
                           "allow_inconsistent", "Config", "Devices", "Profiles", "config", "devices", "profiles"}));
  VIRGA_CHECK(refuse_set(body, {"live", "Config", "Devices", "Profiles", "config", "devices", "profiles"}));
  VIRGA_CHECK(fields.boolean("allow_inconsistent"));
  engine::MigrateInstance out;
  VIRGA_TRY(out.instance_only, either(fields, "instance_only", "container_only"));
  VIRGA_TRY(const auto target, fields.object("target"));
  if (!target.empty()) {
    const Fields to(target, "target");
    VIRGA_CHECK(to.only({"certificate", "operation", "secrets", "websockets"}));
    VIRGA_TRY(out.target, read_peer(to));
  }
  return std::optional(std::move(out));
}

Result<engine::MoveInstance> read_move(const json::object& body) {
  const Fields fields(body);
  VIRGA_CHECK(fields.only({"name", "migration", "live", "instance_only", "container_only", "target", "pool", "project",
                           "allow_inconsistent", "Config", "Devices", "Profiles", "config", "devices", "profiles", "refresh"}));
  VIRGA_CHECK(refuse_set(body, {"target", "pool", "refresh"}));
  engine::MoveInstance out;
  VIRGA_TRY(out.name, fields.string("name"));
  VIRGA_TRY(out.project, fields.string("project"));
  // With a project the stock client calls it a migration, and "live" where the guest runs, which is refused as such; without one it
  // is one to another server.
  for (const char* key : {"migration", "live", "instance_only", "container_only", "allow_inconsistent", "refresh"}) {
    VIRGA_TRY(const bool set, fields.boolean(key));
    if (set && out.project.empty() && (std::string_view(key) == "migration" || std::string_view(key) == "live"))
      return not_yet(fmt::format("field '{}' without a project", key));
  }
  if (out.name.empty() && out.project.empty()) return invalid("name", "field 'name' must be given");
  for (const char* key : {"config", "Config"}) {
    VIRGA_TRY(auto config, read_config(fields, key));
    if (config) out.changes.config = std::move(config);
  }
  for (const char* key : {"devices", "Devices"}) {
    if (!fields.has(key)) continue;
    VIRGA_TRY(out.changes.devices, fields.string_maps(key));
  }
  for (const char* key : {"profiles", "Profiles"}) {
    if (!fields.has(key)) continue;
    VIRGA_TRY(out.changes.profiles, fields.strings(key));
  }
  return out;
}

}  // namespace virga::api
