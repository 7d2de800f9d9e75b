#include "client/config.h"

#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include "io/file.h"
#include "wire/http/url.h"
#include "wire/yaml/yaml.h"

namespace virga::client {
namespace {

constexpr std::string_view name_characters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.";

std::string value_of(const Environment& environment, const char* name) {
  const char* value = environment(name);
  return value == nullptr ? std::string() : std::string(value);
}

std::string directory_of(const Environment& environment) {
  if (auto given = value_of(environment, "VIRGA_CONF"); !given.empty()) return given;
  if (auto given = value_of(environment, "XDG_CONFIG_HOME"); !given.empty()) return given + "/virga";
  const auto home = value_of(environment, "HOME");
  return (home.empty() ? std::string("/root") : home) + "/.config/virga";
}

Result<> make_directories(const std::string& path) {
  for (std::size_t at = 1; at != std::string::npos;) {
    at = path.find('/', at + 1);
    const auto part = path.substr(0, at);
    if (!io::exists(part)) VIRGA_CHECK(io::make_directory(part, 0750));
  }
  return {};
}

Result<Remote> read_remote(const json::object& object, std::string_view name) {
  const Fields fields(object, fmt::format("remotes.{}", name));
  Remote out;
  VIRGA_TRY(out.address, fields.string("addr"));
  VIRGA_TRY(out.protocol, fields.string("protocol"));
  VIRGA_TRY(out.auth_type, fields.string("auth_type"));
  VIRGA_TRY(out.project, fields.string("project"));
  VIRGA_TRY(out.is_public, fields.boolean("public"));
  for (const auto& [key, value] : object)
    if (key != "addr" && key != "protocol" && key != "auth_type" && key != "project" && key != "public") out.other[key] = value;
  return out;
}

json::object write_remote(const Remote& remote) {
  json::object out{{"addr", remote.address}};
  if (!remote.auth_type.empty()) out["auth_type"] = remote.auth_type;
  if (!remote.project.empty()) out["project"] = remote.project;
  if (!remote.protocol.empty()) out["protocol"] = remote.protocol;
  out["public"] = remote.is_public;
  for (const auto& [key, value] : remote.other) out[key] = value;
  return out;
}

}  // namespace

Result<> check_remote_name(std::string_view name) {
  if (name.empty() || name.size() > 64 || name.find_first_not_of(name_characters) != std::string_view::npos ||
      name.front() == '.' || name.front() == '-')
    return fail(ErrorKind::invalid,
                "The name of a remote has up to 64 letters, digits, '-', '_' and '.', and begins with a letter or digit");
  return {};
}

std::pair<std::string, std::string> split_remote(std::string_view argument) {
  const auto colon = argument.find(':');
  if (colon == std::string_view::npos || !check_remote_name(argument.substr(0, colon))) return {"", std::string(argument)};
  return {std::string(argument.substr(0, colon)), std::string(argument.substr(colon + 1))};
}

Result<Config> Config::load(const Environment& environment) {
  Config out;
  out.environment_ = environment;
  out.directory_ = directory_of(environment);
  const auto path = out.directory_ + "/config.yml";
  auto text = io::read_file(path);
  if (!text && text.error().kind() != ErrorKind::not_found) return fail(std::move(text).error().wrap("read " + path));
  auto document = yaml::decode_object(text.value_or(std::string()));
  if (!document) return fail(std::move(document).error().wrap("read " + path));
  out.document_ = std::move(*document);
  const Fields fields(out.document_);
  const auto in_file = [&](Error error) { return fail(std::move(error).wrap("read " + path)); };
  auto chosen = fields.string("default-remote");
  if (!chosen) return in_file(std::move(chosen).error());
  if (!chosen->empty()) out.default_remote = *chosen;
  auto remotes = fields.object("remotes");
  if (!remotes) return in_file(std::move(remotes).error());
  for (const auto& [name, value] : *remotes) {
    if (auto ok = check_remote_name(name); !ok) return in_file(std::move(ok).error());
    if (!value.is_object())
      return in_file(Error(ErrorKind::invalid, fmt::format("remotes.{} is not a map", std::string_view(name))));
    auto remote = read_remote(value.get_object(), name);
    if (!remote) return in_file(std::move(remote).error());
    out.remotes.emplace(name, std::move(*remote));
  }
  if (const auto* aliases = out.document_.if_contains("aliases"); aliases != nullptr && aliases->is_object())
    for (const auto& [name, target] : aliases->get_object())
      if (target.is_string()) out.aliases.emplace(name, target.get_string());
  auto& local = out.remotes["local"];
  local.is_static = true;
  local.protocol = "incus";
  local.is_public = false;
  // Before there were remotes the project stood by itself.
  if (auto project = fields.string("project"); project && local.project.empty()) local.project = *project;
  out.document_.erase("project");
  if (!out.remotes.contains(out.default_remote)) out.default_remote = "local";
  return out;
}

Result<> Config::save() const {
  json::object document = document_;
  document["default-remote"] = default_remote;
  json::object all;
  for (const auto& [name, remote] : remotes) {
    auto entry = write_remote(remote);
    if (remote.is_static) entry["addr"] = remote.address.empty() ? "unix://" : remote.address;
    all[name] = std::move(entry);
  }
  document["remotes"] = std::move(all);
  document["aliases"] = to_json(aliases);
  VIRGA_CHECK(make_directories(directory_));
  return io::write_file_durably(directory_ + "/config.yml", yaml::encode(document), 0600);
}

Result<const Remote*> Config::find(std::string_view name) const {
  auto it = remotes.find(std::string(name));
  if (it != remotes.end()) return &it->second;
  return fail(Error(ErrorKind::not_found, fmt::format("The remote \"{}\" doesn't exist", name))
                  .with_hint("virga remote list shows the remotes there are, virga remote add adds one"));
}

Result<http::Endpoint> Config::endpoint(std::string_view name) const {
  VIRGA_TRY(const auto* remote, find(name));
  if (!remote->speaks_api())
    return fail(ErrorKind::unsupported,
                fmt::format("The remote \"{}\" is a server of images ({}), not a virga server", name, remote->protocol));
  if (remote->address.empty() || remote->address == "unix://" || remote->address == "unix:") return local_endpoint(environment_);
  http::Endpoint out;
  if (remote->is_unix()) {
    out.unix_path = remote->address.substr(remote->address.starts_with("unix://") ? 7 : 5);
    return out;
  }
  auto url = http::parse_url(remote->address);
  if (!url || !url->secure)
    return fail(ErrorKind::invalid, fmt::format("The address of the remote \"{}\" is not usable: {}", name, remote->address));
  out.host = url->host;
  out.port = url->port;
  if (const auto pem = server_certificate(name); !pem.empty()) {
    VIRGA_TRY(const auto pinned, http::describe_certificate(pem));
    out.server_fingerprint = pinned.fingerprint;
  }
  if (!remote->is_public)
    if (auto own = identity()) out.identity = std::move(*own);
  return out;
}

std::string Config::server_certificate(std::string_view remote) const {
  return io::read_file(fmt::format("{}/servercerts/{}.crt", directory_, remote)).value_or(std::string());
}

Result<> Config::pin_server_certificate(std::string_view remote, std::string_view pem) const {
  VIRGA_CHECK(make_directories(directory_ + "/servercerts"));
  return io::write_file_durably(fmt::format("{}/servercerts/{}.crt", directory_, remote), pem, 0644);
}

void Config::rename_files(const std::string& remote, const std::string& new_name) const {
  const auto path = [this](const std::string& name) { return fmt::format("{}/servercerts/{}.crt", directory_, name); };
  if (new_name.empty()) {
    ::unlink(path(remote).c_str());
  } else {
    (void)::rename(path(remote).c_str(), path(new_name).c_str());
  }
}

Result<http::Identity> Config::identity() const {
  VIRGA_TRY(auto certificate, io::read_file(directory_ + "/client.crt"));
  VIRGA_TRY(auto key, io::read_file(directory_ + "/client.key"));
  return http::Identity{.certificate = std::move(certificate), .key = std::move(key)};
}

Result<http::Identity> Config::ensure_identity(bool& made) const {
  made = false;
  auto there = identity();
  if (there || there.error().kind() != ErrorKind::not_found) return there;
  char host[256] = "localhost";
  (void)::gethostname(host, sizeof host - 1);
  const auto user = value_of(environment_, "USER");
  VIRGA_TRY(auto identity, http::make_self_signed(fmt::format("{}@{}", user.empty() ? "root" : user, host), {}));
  VIRGA_CHECK(make_directories(directory_));
  VIRGA_CHECK(io::write_file_durably(directory_ + "/client.key", identity.key, 0600));
  VIRGA_CHECK(io::write_file_durably(directory_ + "/client.crt", identity.certificate, 0644));
  made = true;
  return identity;
}

}  // namespace virga::client
