// remote and version.
#include <fmt/format.h>

#include "apps/virga/app.h"
#include "apps/virga/commands.h"
#include "apps/virga/listing.h"
#include "apps/virga/server/remote_add.h"
#include "apps/virga/values.h"
#include "base/version.h"
#include "client/join.h"
#include "model/expiry.h"

namespace virga::cli {
namespace {

std::string auth_of(const client::Remote& remote) {
  if (remote.is_unix() || (remote.is_static && remote.address.empty())) return "file access";
  if (remote.is_public || !remote.speaks_api()) return "none";
  return remote.auth_type.empty() ? "tls" : remote.auth_type;
}

Result<> list(App& app, const Args& args) {
  VIRGA_TRY(auto* config, app.config());
  json::array remotes;
  for (const auto& [name, remote] : config->remotes) {
    json::object row{{"Addr", remote.is_static && remote.address.empty() ? "unix://" : remote.address},
                     {"AuthType", auth_of(remote)},
                     {"Project", remote.project},
                     {"Protocol", remote.protocol.empty() ? "incus" : remote.protocol},
                     {"Public", remote.is_public},
                     {"Global", false},
                     {"Static", remote.is_static},
                     {"name", name}};
    remotes.push_back(std::move(row));
  }
  const auto& chosen = config->default_remote;
  const std::vector<Column> columns = {
      {'n', "NAME", [&](const json::object& o) { return text_of(o, "name") + (text_of(o, "name") == chosen ? " (current)" : ""); }},
      {'u', "URL", field("Addr")},
      {'p', "PROTOCOL", field("Protocol")},
      {'a', "AUTH TYPE", field("AuthType")},
      {'P', "PUBLIC", [](const json::object& o) { return yes_no(boolean_of(o, "Public")); }},
      {'s', "STATIC", [](const json::object& o) { return yes_no(boolean_of(o, "Static")); }},
      {'g', "GLOBAL", [](const json::object& o) { return yes_no(boolean_of(o, "Global")); }},
  };
  return print_listing(app, args, columns, remotes);
}

Result<> get_default(App& app, const Args&) {
  VIRGA_TRY(auto* config, app.config());
  app.print(config->default_remote + "\n");
  return {};
}

/// "lab" or "lab:". Errors: not_found.
Result<std::string> known(client::Config& config, std::string name) {
  if (name.ends_with(':')) name.pop_back();
  VIRGA_CHECK(config.find(name));
  return name;
}

Result<std::string> changeable(client::Config& config, std::string name) {
  VIRGA_TRY(name, known(config, std::move(name)));
  if (config.remotes[name].is_static)
    return fail(ErrorKind::denied, fmt::format("Remote {} is static and cannot be modified", name));
  return name;
}

Result<> switch_default(App& app, const Args& args) {
  VIRGA_TRY(auto* config, app.config());
  VIRGA_TRY(config->default_remote, known(*config, args[0]));
  return config->save();
}

Result<> rename(App& app, const Args& args) {
  VIRGA_TRY(auto* config, app.config());
  VIRGA_TRY(const auto name, changeable(*config, args[0]));
  VIRGA_CHECK(client::check_remote_name(args[1]));
  if (auto it = config->remotes.find(args[1]); it != config->remotes.end())
    return fail(ErrorKind::exists, fmt::format("Remote {} already exists", args[1]));
  config->remotes[args[1]] = config->remotes[name];
  config->remotes.erase(name);
  if (config->default_remote == name) config->default_remote = args[1];
  config->rename_files(name, args[1]);
  return config->save();
}

Result<> remove(App& app, const Args& args) {
  VIRGA_TRY(auto* config, app.config());
  VIRGA_TRY(const auto name, changeable(*config, args[0]));
  if (config->default_remote == name) return fail(ErrorKind::busy, "Can't remove the default remote");
  config->remotes.erase(name);
  VIRGA_CHECK(config->save());
  config->rename_files(name, "");
  return {};
}

Result<> set_url(App& app, const Args& args) {
  VIRGA_TRY(auto* config, app.config());
  VIRGA_TRY(const auto name, changeable(*config, args[0]));
  auto& remote = config->remotes[name];
  const auto before = remote.address;
  remote.address = args[1];
  if (remote.speaks_api() && !remote.is_unix()) VIRGA_CHECK(config->endpoint(name));
  if (!remote.speaks_api() && !remote.address.starts_with("https://"))
    return fail(ErrorKind::invalid, fmt::format("Only https URLs are supported for {}", remote.protocol));
  return config->save();
}

Result<http::Identity> identity(App& app) {
  VIRGA_TRY(auto* config, app.config());
  bool made = false;
  auto out = config->ensure_identity(made);
  if (made) app.warn("Generating a client certificate. This may take a minute...");
  return out;
}

Result<> generate_certificate(App& app, const Args&) {
  VIRGA_TRY(auto* config, app.config());
  if (config->identity()) return fail(ErrorKind::exists, "A client certificate is already present");
  VIRGA_CHECK(identity(app));
  return {};
}

Result<> get_client_certificate(App& app, const Args&) {
  VIRGA_TRY(const auto own, identity(app));
  app.print(own.certificate);
  return {};
}

Result<> get_client_token(App& app, const Args& args) {
  const auto now = std::chrono::system_clock::now();
  VIRGA_TRY(const auto until, parse_expiry(args[0], now));
  VIRGA_TRY(const auto own, identity(app));
  VIRGA_TRY(const auto token, client::bearer_token(own, now, until));
  app.print(token + "\n");
  return {};
}

Result<> versions(App& app, const Args&) {
  std::string server = "unreachable";
  if (auto api = app.api(); api)
    if (auto object = (*api)->object(Url("/1.0")); object) server = text_of(object_of(*object, "environment"), "server_version");
  app.print(fmt::format("Client version: {}\nServer version: {}\n", version, server));
  return {};
}

}  // namespace

Command remote_command() {
  Command group{.use = "remote",
                .summary = "Manage the list of remote servers",
                .description = "\"local\" is the daemon of this machine. Others are named in front of what they hold: lab:c1."};
  group.children = {
      remote_add_command(),
      {.use = "generate-certificate",
       .summary = "Manually trigger the generation of a client certificate",
       .run = generate_certificate},
      {.use = "get-client-certificate",
       .summary = "Print the client certificate used by this client",
       .run = get_client_certificate},
      {.use = "get-client-token <expiry>",
       .summary = "Generate a client token derived from the client certificate",
       .description = "Until it expires, the token does as well as the certificate: HTTP clients send it as\n"
                      "\"Authorization: Bearer <token>\". It is worth what the certificate is worth to each server.",
       .examples = "virga remote get-client-token 1H\n    A token for an hour (30M minutes, 1d days, 2w weeks)",
       .least = 1,
       .most = 1,
       .run = get_client_token},
      {.use = "get-default", .summary = "Show the default remote", .run = get_default},
      {.use = "list",
       .summary = "List the available remotes",
       .aliases = {"ls"},
       .flags = {columns_flag("nupaPsg"), format_flag()},
       .run = list},
      {.use = "remove <remote>",
       .summary = "Remove remotes",
       .aliases = {"rm"},
       .least = 1,
       .most = 1,
       .run = remove,
       .own_remotes = true},
      {.use = "rename <remote> <new-name>",
       .summary = "Rename remotes",
       .aliases = {"mv"},
       .least = 2,
       .most = 2,
       .run = rename,
       .own_remotes = true},
      {.use = "set-url <remote> <URL>",
       .summary = "Set the URL for the remote",
       .least = 2,
       .most = 2,
       .run = set_url,
       .own_remotes = true},
      {.use = "switch <remote>",
       .summary = "Switch the default remote",
       .least = 1,
       .most = 1,
       .run = switch_default,
       .own_remotes = true},
  };
  return group;
}

Command version_command() {
  return {.use = "version [<remote>:]", .summary = "Show local and remote versions", .most = 1, .run = versions};
}

}  // namespace virga::cli
