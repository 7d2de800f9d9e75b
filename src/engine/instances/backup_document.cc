#include "engine/instances/backup_document.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/units.h"
#include "model/address.h"

namespace virga::engine {
namespace {

constexpr const char* idmap_key = "volatile.last_state.idmap";

json::object instance_object(const Instance& i) {
  auto config = i.config, expanded = i.expanded_config;
  config["volatile.last_state.power"] = expanded["volatile.last_state.power"] = "STOPPED";  // what it is when it comes back
  if (i.type == InstanceType::container) config[idmap_key] = expanded[idmap_key] = "[]";    // files have the container's own ids
  return {{"architecture", i.architecture},
          {"config", to_json(config)},
          {"devices", to_json(i.devices)},
          {"ephemeral", i.ephemeral},
          {"profiles", to_json(i.profiles)},
          {"stateful", false},
          {"description", i.description},
          {"created_at", format_time(i.created_at)},
          {"expanded_config", to_json(expanded)},
          {"expanded_devices", to_json(i.expanded_devices)},
          {"name", i.name},
          {"status", "Stopped"},
          {"status_code", 102},
          {"last_used_at", format_time(i.last_used_at)},
          {"location", "none"},
          {"type", to_string(i.type)},
          {"project", i.project}};
}

json::object volume_object(const Instance& i) {
  json::object config;
  if (auto root = root_disk(i.expanded_devices))
    if (auto size = root->second.find("size"); size != root->second.end()) config["size"] = size->second;
  return {{"config", std::move(config)},
          {"description", ""},
          {"name", i.name},
          {"type", to_string(i.type)},
          {"used_by", json::array()},
          {"location", "none"},
          {"content_type", i.type == InstanceType::container ? "filesystem" : "block"},
          {"project", i.project},
          {"created_at", format_time(i.created_at)}};
}

/// Every scalar is a string there; one that is empty stands for nothing at all, whatever its field's type.
json::object without_empty(json::object object) {
  for (auto* p = object.begin(); p != object.end();)
    p = p->value().is_string() && p->value().get_string().empty() ? object.erase(p) : p + 1;
  return object;
}

/// The instance in a document: older and newer versions name it differently.
Result<json::object> instance_in(const json::object& document, const std::string& where) {
  const Fields fields(document, where);
  VIRGA_TRY(auto container, fields.object("container"));
  VIRGA_TRY(auto instance, fields.object("instance"));
  if (!container.empty() && !instance.empty())
    return fail(ErrorKind::invalid, fmt::format("{}: both 'container' and 'instance' are there", where));
  return without_empty(instance.empty() ? std::move(container) : std::move(instance));
}

Result<> check_equal(const json::object& a, const json::object& b) {
  for (const auto* field : {"name", "type", "architecture", "ephemeral", "profiles", "config", "devices"}) {
    const auto *left = a.if_contains(field), *right = b.if_contains(field);
    if ((left == nullptr) != (right == nullptr) || (left != nullptr && *left != *right))
      return fail(ErrorKind::invalid,
                  fmt::format("the backup's index.yaml and backup.yaml say different things about '{}'", field));
  }
  return {};
}

/// [{"Isuid":true,"Isgid":false,"Hostid":1000000,"Nsid":0,"Maprange":65536}, ...]: how the files' ids were shifted when they were
/// packed. One range for users and groups is what daemons make.
Result<> read_idmap(const std::string& text, BackedUpInstance& out) {
  if (text.empty()) return {};
  const auto refuse = [] {
    return fail(ErrorKind::unsupported, fmt::format("the backup's '{}' is not one range of ids from 0 on", idmap_key));
  };
  VIRGA_TRY(const auto value, parse_json(text));
  if (!value.is_array()) return refuse();
  bool users = false, groups = false;
  for (const auto& entry : value.get_array()) {
    if (!entry.is_object()) return refuse();
    const Fields fields(entry.get_object(), idmap_key);
    VIRGA_TRY(const bool uid, fields.boolean("Isuid"));
    VIRGA_TRY(const bool gid, fields.boolean("Isgid"));
    VIRGA_TRY(const auto host, fields.integer("Hostid"));
    VIRGA_TRY(const auto inside, fields.integer("Nsid"));
    VIRGA_TRY(const auto range, fields.integer("Maprange"));
    if (inside != 0 || host <= 0 || host > UINT32_MAX || range <= 0 || range > UINT32_MAX || (users && uid) || (groups && gid))
      return refuse();
    if ((users || groups) && (out.id_base != host || out.id_count != range)) return refuse();
    out.id_base = static_cast<std::uint32_t>(host);
    out.id_count = static_cast<std::uint32_t>(range);
    users |= uid;
    groups |= gid;
  }
  return users == groups ? Result<>{} : refuse();
}

/// Of what the other daemon kept only this has a meaning here: the image, and the addresses of NICs.
void keep_ours(Config& config) {
  auto kept = [](const auto& entry) {
    const auto& [key, value] = entry;
    if (!key.starts_with("volatile.")) return !value.empty();
    return key == "volatile.base_image" || (key.ends_with(".hwaddr") && parse_mac(value).has_value());
  };
  std::erase_if(config, [&](const auto& entry) { return !kept(entry); });
}

}  // namespace

image::BackupDocuments backup_documents(const Instance& instance, const Pool& pool,
                                        const std::vector<std::shared_ptr<const Profile>>& profiles) {
  json::array used;
  for (const auto& p : profiles)
    used.push_back(json::object{{"config", to_json(p->config)},
                                {"description", p->description},
                                {"devices", to_json(p->devices)},
                                {"name", p->name},
                                {"used_by", json::array()},
                                {"project", p->project}});
  image::BackupDocuments out;
  out.instance = {{"container", instance_object(instance)},
                  {"pool", json::object{{"config", json::object()},
                                        {"description", pool.description},
                                        {"name", pool.name},
                                        {"driver", pool.driver},
                                        {"used_by", json::array()},
                                        {"status", "Created"},
                                        {"locations", json::array{"none"}}}},
                  {"profiles", std::move(used)},
                  {"volume", volume_object(instance)}};
  out.index = {{"name", instance.name},     {"backend", pool.driver},           {"pool", pool.name},     {"optimized", false},
               {"optimized_header", false}, {"type", to_string(instance.type)}, {"config", out.instance}};
  return out;
}

Result<BackedUpInstance> read_backup(const image::BackupInspection& backup) {
  const Fields index(backup.documents.index, "index.yaml");
  VIRGA_TRY(const auto optimized, index.string("optimized"));
  if (!optimized.empty() && optimized != "false")
    return fail(ErrorKind::unsupported,
                "the backup is in the form of another storage driver: export it without --optimized-storage");
  VIRGA_TRY(const auto type, index.string("type"));
  if (!type.empty() && type != "container" && type != "virtual-machine")
    return fail(ErrorKind::invalid, fmt::format("index.yaml: '{}' is no type of a backup", type.substr(0, 40)));
  BackedUpInstance out;
  out.instance.type = backup.type == image::Type::container ? InstanceType::container : InstanceType::virtual_machine;
  if (!type.empty() && type != to_string(out.instance.type))
    return fail(ErrorKind::invalid, fmt::format("index.yaml says that it is a {}, which it is not", type));
  VIRGA_TRY(out.pool, index.string("pool"));

  VIRGA_TRY(const auto config, index.object("config"));
  VIRGA_TRY(const auto first, instance_in(config, "index.yaml"));
  VIRGA_TRY(const auto second, instance_in(backup.documents.instance, "backup.yaml"));
  if (second.empty()) return fail(ErrorKind::invalid, "backup.yaml tells of no instance");
  if (!first.empty()) VIRGA_CHECK(check_equal(first, second));

  const Fields fields(second, "backup.yaml");
  auto& i = out.instance;
  VIRGA_TRY(i.name, fields.string("name"));
  VIRGA_TRY(const auto said, fields.string("type"));
  if (!said.empty() && said != to_string(i.type))
    return fail(ErrorKind::invalid, fmt::format("backup.yaml says that it is a '{}', which it is not", said.substr(0, 40)));
  VIRGA_TRY(i.architecture, fields.string("architecture", "x86_64"));
  VIRGA_TRY(i.description, fields.string("description"));
  VIRGA_TRY(const auto ephemeral, fields.string("ephemeral", "false"));
  auto truth = parse_bool(ephemeral);
  if (!truth) return fail(std::move(truth).error().wrap("backup.yaml: 'ephemeral'"));
  i.ephemeral = *truth;
  VIRGA_TRY(i.profiles, fields.strings("profiles"));
  VIRGA_TRY(i.config, fields.string_map("config"));
  VIRGA_TRY(i.devices, fields.string_maps("devices"));
  if (auto map = i.config.find(idmap_key); map != i.config.end() && i.type == InstanceType::container)
    VIRGA_CHECK(read_idmap(map->second, out));
  keep_ours(i.config.edit());
  return out;
}

}  // namespace virga::engine
