// admin init: pools, networks, profiles and projects from a document; what is there already is brought in line, so that it can be
// run again.
#include "apps/virga/server/init.h"

#include <fmt/format.h>

#include <cstdio>
#include <iostream>

#include "apps/virga/app.h"
#include "apps/virga/document.h"
#include "apps/virga/resource.h"
#include "apps/virga/server/admin.h"
#include "apps/virga/server/preseed.h"
#include "apps/virga/server/questions.h"
#include "apps/virga/values.h"
#include "wire/yaml/yaml.h"

namespace virga::cli {
namespace {

constexpr std::string_view network_name = "virgabr0";

struct Kind {
  std::string_view part;  ///< of the document
  std::string_view base;
  std::string_view noun;
  std::vector<std::string_view> editable;
};

const std::vector<Kind>& kinds() {
  static const std::vector<Kind> all = {{"projects", "/1.0/projects", "Project", {"config", "description"}},
                                        {"storage_pools", "/1.0/storage-pools", "Storage pool", {"config", "description"}},
                                        {"networks", "/1.0/networks", "Network", {"config", "description"}},
                                        {"profiles", "/1.0/profiles", "Profile", {"config", "description", "devices"}}};
  return all;
}

/// The map `into` with what `from` has on top; both may be null.
void merge_map(json::object& object, std::string_view part, const json::object& from) {
  const auto& wanted = object_of(from, part);
  if (wanted.empty()) return;
  auto& map = map_in(object, part);
  for (const auto& [key, value] : wanted) map[key] = value;
}

Result<> ensure(App& app, Api& api, const Kind& kind, const json::object& wanted) {
  const auto name = text_of(wanted, "name");
  if (name.empty()) return fail(ErrorKind::invalid, fmt::format("an entry of {} has no name", kind.part));
  const std::string project = text_of(wanted, "project");
  const auto collection = Url(kind.base).project(project);
  const auto url = Url(collection).segment(name);
  std::string etag;
  auto existing = api.object(url, &etag);
  if (!existing && existing.error().kind() != ErrorKind::not_found) return fail(std::move(existing).error());
  if (!existing || (kind.part == "networks" && !boolean_of(*existing, "managed"))) {
    auto body = wanted;
    body.erase("project");
    auto made = api.send("POST", collection, std::move(body));
    if (!made) return fail(std::move(made).error().wrap(fmt::format("Failed to create {} '{}'", kind.part, name)));
    app.note(fmt::format("{} {} created", kind.noun, name));
    return {};
  }
  json::object editable;
  for (auto field : kind.editable)
    if (const auto* value = existing->if_contains(field)) editable[field] = *value;
  const auto before = editable;
  merge_map(editable, "config", wanted);
  merge_map(editable, "devices", wanted);
  if (auto text = text_of(wanted, "description"); !text.empty()) editable["description"] = text;
  if (editable == before) return {};
  auto changed = api.send("PUT", url, std::move(editable), etag);
  if (!changed) return fail(std::move(changed).error().wrap(fmt::format("Failed to update {} '{}'", kind.part, name)));
  app.note(fmt::format("{} {} updated", kind.noun, name));
  return {};
}

Result<> configure_server(Api& api, const json::object& wanted) {
  if (wanted.empty()) return {};
  std::string etag;
  VIRGA_TRY(auto server, api.object(Url("/1.0"), &etag));
  json::object body = only_fields(server, {"config"});
  const auto before = body;
  auto& config = map_in(body, "config");
  for (const auto& [key, value] : wanted) config[key] = value;
  if (body == before) return {};
  VIRGA_CHECK(api.send("PUT", Url("/1.0"), std::move(body), etag));
  return {};
}

/// What a profile or instance has already is left alone: --auto fills gaps only.
Result<> leave_out_existing(Api& api, json::object& preseed) {
  for (const auto& kind : kinds()) {
    auto* list = preseed.if_contains(kind.part);
    if (list == nullptr || !list->is_array()) continue;
    json::array kept;
    for (auto& entry : objects_of(list->get_array())) {
      auto existing = api.object(Url(kind.base).segment(text_of(entry, "name")));
      if (existing && kind.part == "profiles") {
        auto& devices = map_in(entry, "devices");
        for (const auto& [name, device] : object_of(*existing, "devices")) devices.erase(name);
      } else if (existing && (kind.part != "networks" || boolean_of(*existing, "managed"))) {
        continue;
      }
      kept.push_back(std::move(entry));
    }
    *list = std::move(kept);
  }
  return {};
}

Result<> apply(App& app, json::object preseed) {
  VIRGA_CHECK(check_preseed(preseed));
  VIRGA_TRY(auto* api, app.api());
  VIRGA_CHECK(configure_server(*api, object_of(preseed, "config")));
  for (const auto& kind : kinds())
    for (const auto& entry : objects_of(array_of(preseed, kind.part))) VIRGA_CHECK(ensure(app, *api, kind, entry));
  for (const auto& entry : objects_of(array_of(preseed, "storage_volumes"))) VIRGA_CHECK(ensure_volume(app, *api, entry));
  for (const auto& entry : objects_of(array_of(preseed, "certificates"))) VIRGA_CHECK(ensure_certificate(app, *api, entry));
  return {};
}

Result<> dump(App& app) {
  VIRGA_TRY(auto* api, app.api());
  VIRGA_TRY(auto server, api->object(Url("/1.0")));
  json::object out{{"config", object_of(server, "config")}};
  for (const auto& kind : kinds()) {
    VIRGA_TRY(auto objects, api->array(Url(kind.base).query("recursion", "1")));
    json::array entries;
    for (const auto& object : objects_of(objects)) {
      if (kind.part == "networks" && !boolean_of(object, "managed")) continue;
      entries.push_back(only_fields(object, {"config", "description", "devices", "name", "driver", "type", "project"}));
    }
    out[kind.part] = std::move(entries);
  }
  app.print(as_yaml(out));
  return {};
}

Result<> preseed_from_input(App& app) {
  VIRGA_TRY(auto text, piped_input());
  if (text.empty())
    return fail(Error(ErrorKind::invalid, "Missing preseed content").with_hint("virga admin init --preseed < preseed.yaml"));
  yaml::DecodeOptions as_text;
  as_text.strings_only = true;  // all of it is text in the API
  VIRGA_TRY(auto document, yaml::decode_object(text, as_text));
  return apply(app, std::move(document));
}

Result<HostFacts> facts_of(Api& api) {
  HostFacts facts;
  VIRGA_TRY(auto server, api.object(Url("/1.0")));
  facts.storage_drivers.clear();
  for (const auto& driver : objects_of(array_of(object_of(server, "environment"), "storage_supported_drivers")))
    facts.storage_drivers.push_back(text_of(driver, "Name"));
  VIRGA_TRY(auto pools, api.array(Url("/1.0/storage-pools").query("recursion", "1")));
  for (const auto& pool : objects_of(pools)) facts.pools.push_back(text_of(pool, "name"));
  VIRGA_TRY(auto networks, api.array(Url("/1.0/networks").query("recursion", "1")));
  for (const auto& network : objects_of(networks))
    if (boolean_of(network, "managed")) facts.networks.push_back(text_of(network, "name"));
  return facts;
}

Result<> interactive(App& app) {
  if (!stdin_is_terminal())
    return fail(
        Error(ErrorKind::invalid, "Choose how to configure the daemon: standard input is no terminal, so that nothing can be asked")
            .with_hint("virga admin init --auto        makes a pool, a bridge and the default profile\nvirga admin init "
                       "--preseed     reads a YAML document"));
  VIRGA_TRY(auto* api, app.api());
  VIRGA_TRY(auto facts, facts_of(*api));
  app.print(
      "Instances need a storage pool for their disks and, mostly, a network. Both are put into the profile \"default\", which\n"
      "instances use unless told otherwise. Press enter to take what stands in brackets.\n\n");
  const Prompt prompt{[&](const std::string& question) -> Result<std::string> {
                        app.print(question);
                        std::fflush(stdout);
                        std::string answer;
                        if (!std::getline(std::cin, answer)) return fail(ErrorKind::cancelled, "no answer: nothing was changed");
                        return answer;
                      },
                      [&](const std::string& text) { app.print(text + "\n\n"); }};
  VIRGA_TRY(auto answers, ask_everything(prompt, facts));
  if (answers.print) app.print("\n" + as_yaml(answers.preseed) + "\n");
  return apply(app, std::move(answers.preseed));
}

Result<> init(App& app, const Args& args) {
  if (args.has("dump")) return dump(app);
  if (args.has("preseed")) return preseed_from_input(app);
  if (!args.has("auto") && !args.has("minimal")) return interactive(app);
  if (args.has("auto") && args.has("minimal")) return fail(ErrorKind::invalid, "Can't use --minimal and --auto together");
  auto preseed = automatic_preseed(args);
  VIRGA_TRY(auto* api, app.api());
  VIRGA_CHECK(leave_out_existing(*api, preseed));
  return apply(app, std::move(preseed));
}

}  // namespace

json::object automatic_preseed(const Args& args) {
  auto text = [&](std::string_view flag, std::string fallback) {
    auto value = args.text(flag);
    return value.empty() ? std::move(fallback) : value;
  };
  const auto pool = text("storage-pool", "default");
  json::object config;
  if (auto address = args.text("network-address"); !address.empty()) {
    const auto port = args.integer("network-port") > 0 ? args.integer("network-port") : 8443;
    const bool bare_v6 = address.find(':') != std::string::npos && address[0] != '[';
    config["core.https_address"] = bare_v6 ? fmt::format("[{}]:{}", address, port) : fmt::format("{}:{}", address, port);
  }
  json::object root{{"type", "disk"}, {"path", "/"}, {"pool", pool}};
  json::object nic{{"type", "nic"}, {"name", "eth0"}, {"network", network_name}};
  json::object out;
  out["config"] = std::move(config);
  out["storage_pools"] =
      json::array{json::object{{"name", pool}, {"driver", text("storage-backend", "dir")}, {"config", json::object()}}};
  out["networks"] = json::array{
      json::object{{"name", network_name}, {"type", "bridge"}, {"config", {{"ipv4.address", "auto"}, {"ipv6.address", "auto"}}}}};
  out["profiles"] =
      json::array{json::object{{"name", "default"}, {"devices", {{"root", std::move(root)}, {"eth0", std::move(nic)}}}}};
  return out;
}

Result<> check_preseed(const json::object& preseed) {
  if (const auto* cluster = preseed.if_contains("cluster"); cluster != nullptr && !cluster->is_null())
    return fail(Error(ErrorKind::unsupported, "clusters are not supported yet: take the part 'cluster' out").with_field("cluster"));
  return Fields(preseed).only(
      {"config", "storage_pools", "storage_volumes", "networks", "profiles", "projects", "certificates", "cluster"});
}

Command admin_init_command() {
  return {
      .use = "init",
      .summary = "Configure the daemon",
      .description =
          "Without flags it asks, explains and offers defaults; nothing is changed before the last answer.\n\n"
          "--auto makes the storage pool \"default\", the bridge \"virgabr0\" with addresses of its own choice, and puts both\n"
          "into the default profile. It leaves alone what is there, so it can be run again.\n\n"
          "--preseed reads YAML with config, storage_pools, storage_volumes, networks, profiles, projects and certificates, as\n"
          "--dump writes it. What is there is brought in line with it, so it can be run again too.",
      .examples =
          "virga admin init\nvirga admin init --auto\nvirga admin init --auto --network-address=[::] --storage-backend=dir\nvirga "
          "admin init "
          "--preseed < preseed.yaml\nvirga admin init --dump > preseed.yaml",
      .flags = {{"auto", 0, Flag::boolean, "Automatic (non-interactive) mode"},
                {"dump", 0, Flag::boolean, "Dump YAML config to stdout"},
                {"minimal", 0, Flag::boolean, "Minimal configuration (non-interactive)"},
                {"network-address", 0, Flag::text, "Address to bind to (default: none)"},
                {"network-port", 0, Flag::integer, "Port to bind to (default: 8443)", "-1"},
                {"preseed", 0, Flag::boolean, "Pre-seed mode, expects YAML config from stdin"},
                {"storage-backend", 0, Flag::text, "Storage backend to use (default: dir)"},
                {"storage-pool", 0, Flag::text, "Storage pool to use or create"}},
      .run = init};
}

}  // namespace virga::cli
