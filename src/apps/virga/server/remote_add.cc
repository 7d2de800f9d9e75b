// remote add: a server becomes known under a name. Its certificate is looked at first, then ours comes into its trust store.
#include "apps/virga/server/remote_add.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <iostream>

#include "apps/virga/app.h"
#include "apps/virga/text.h"
#include "apps/virga/values.h"
#include "client/join.h"

namespace virga::cli {
namespace {

Result<std::string> ask(const std::string& question, const std::string& instead) {
  if (!stdin_is_terminal())
    return fail(Error(ErrorKind::invalid, fmt::format("{}: there is no terminal to ask", question)).with_hint(instead));
  fmt::print("{}: ", escaped(question));
  std::fflush(stdout);
  std::string answer;
  if (!std::getline(std::cin, answer)) return fail(ErrorKind::cancelled, "no answer");
  return answer;
}

/// "host", "host:port", "https://host:port" and IPv6 addresses with or without brackets. A virga server listens on 8443 unless it
/// says otherwise.
Result<std::string> https_address(std::string text, bool is_api) {
  if (!text.starts_with("https://")) {
    const auto colons = std::count(text.begin(), text.end(), ':');
    if (colons > 1 && !text.starts_with('[')) text = "[" + text + "]";
    text = "https://" + text;
  }
  while (text.ends_with('/')) text.pop_back();
  const auto authority = std::string_view(text).substr(8, text.find('/', 8) - 8);
  const auto after = authority.rfind(']');
  const bool has_port = authority.find(':', after == std::string_view::npos ? 0 : after) != std::string_view::npos;
  if (is_api && !has_port && authority.size() + 8 == text.size()) text += ":8443";
  return text;
}

Result<> check_new(const client::Config& config, const std::string& name) {
  VIRGA_CHECK(client::check_remote_name(name));
  auto it = config.remotes.find(name);
  if (it == config.remotes.end()) return {};
  if (it->second.is_static) return fail(ErrorKind::exists, fmt::format("Remote {} is static and cannot be modified", name));
  return fail(ErrorKind::exists, fmt::format("Remote {} exists as <{}>", name, it->second.address));
}

/// Whoever runs this says, by fingerprint or with yes, that the server is the right one.
Result<> approve(const Args& args, const client::ServerLook& look) {
  if (args.has("accept-certificate")) return {};
  const auto hint =
      fmt::format("compare the fingerprint with `virga info` on the server, then use --accept-certificate or a token");
  VIRGA_TRY(auto answer, ask(fmt::format("Certificate fingerprint: {}\nok (y/n/[fingerprint])?", look.fingerprint), hint));
  if (answer == look.fingerprint || answer == "y" || answer == "Y" || answer == "yes") return {};
  if (answer.size() == 64)
    return fail(ErrorKind::denied, "The provided fingerprint does not match the server certificate fingerprint");
  return fail(ErrorKind::denied, "Server certificate NACKed by user");
}

struct Adding {
  App& app;
  const Args& args;
  client::Config& config;
  std::string name;
  client::Remote remote;
};

Result<> finish(Adding& a) {
  a.config.remotes[a.name] = a.remote;
  return a.config.save();
}

/// What was written for a remote that did not come to be goes again.
Result<> or_forget(Adding& a, Result<> done) {
  if (!done) {
    a.config.remotes.erase(a.name);
    a.config.rename_files(a.name, "");
  }
  return done;
}

Result<Api*> connect(Adding& a) {
  a.config.remotes[a.name] = a.remote;
  return a.app.api_of(a.name);
}

Result<> choose_project(Adding& a, Api& api) {
  a.remote.project = a.args.text("project");
  if (!a.remote.project.empty()) {
    VIRGA_CHECK(api.object(Url("/1.0/projects").segment(a.remote.project)));
    return {};
  }
  VIRGA_TRY(const auto projects, api.array(Url("/1.0/projects").query("recursion", "1")));
  const auto has_default = std::any_of(projects.begin(), projects.end(), [](const json::value& p) {
    return p.is_object() && text_of(p.get_object(), "name") == "default";
  });
  // A certificate that is restricted to other projects works in the first of its own.
  if (!has_default && !projects.empty() && projects[0].is_object()) a.remote.project = text_of(projects[0].get_object(), "name");
  if (has_default) a.remote.project = "default";
  return {};
}

/// The server's certificate is pinned where authorities do not vouch for it, or where a token names it.
Result<> meet(Adding& a, const std::string& address, const std::string& fingerprint) {
  a.remote.address = address;
  a.config.rename_files(a.name, "");
  a.config.remotes[a.name] = a.remote;
  VIRGA_TRY(auto endpoint, a.config.endpoint(a.name));
  Api looking(endpoint);
  VIRGA_TRY(const auto look, looking.await(client::look_at_server(endpoint)));
  if (!fingerprint.empty() && look.fingerprint != fingerprint)
    return fail(ErrorKind::denied, fmt::format("The server at {} shows a certificate that is not the one in the token", address));
  if (look.known_to_authorities) return {};
  if (fingerprint.empty()) VIRGA_CHECK(approve(a.args, look));
  return a.config.pin_server_certificate(a.name, look.certificate);
}

Result<> authenticate(Adding& a, std::string token) {
  VIRGA_TRY(auto* api, connect(a));
  VIRGA_TRY(const bool known, api->await(client::is_trusted(api->client())));
  if (!known) {
    if (token.empty()) {
      VIRGA_TRY(token, ask(fmt::format("Trust token for {}", a.name),
                           "make one on the server with `virga config trust add <name>`, then use --token"));
    }
    VIRGA_TRY(const auto parsed, client::parse_token(token));
    VIRGA_CHECK(api->await(client::join(api->client(), token, parsed.client_name)));
    VIRGA_TRY(const bool now, api->await(client::is_trusted(api->client())));
    if (!now) return fail(ErrorKind::denied, "The server doesn't trust us after adding our certificate");
    a.app.note(fmt::format("Client certificate now trusted by server: {}", a.name));
  }
  return choose_project(a, *api);
}

Result<> own_certificate(Adding& a) {
  bool made = false;
  VIRGA_CHECK(a.config.ensure_identity(made));
  if (made) a.app.warn("Generating a client certificate. This may take a minute...");
  return {};
}

Result<> add_with_token(Adding& a, const std::string& text, const CertificateToken& token) {
  VIRGA_CHECK(own_certificate(a));
  Error last(ErrorKind::unavailable, "The token names no address of the server");
  for (const auto& entry : token.addresses) {
    VIRGA_TRY(const auto address, https_address(entry, true));
    auto met = or_forget(a, meet(a, address, token.fingerprint));
    if (met) {
      VIRGA_CHECK(or_forget(a, authenticate(a, text)));
      return finish(a);
    }
    last = std::move(met).error();
  }
  return fail(std::move(last).wrap("No address of the token could be used"));
}

Result<> add_image_server(Adding& a, const std::string& address) {
  if (!address.starts_with("https://"))
    return fail(ErrorKind::invalid, fmt::format("Only https URLs are supported for {}", a.remote.protocol));
  VIRGA_TRY(a.remote.address, https_address(address, false));
  a.remote.is_public = true;
  return finish(a);
}

Result<> add_unix(Adding& a, const std::string& address) {
  const auto path = address.substr(address.starts_with("unix://") ? 7 : 5);
  if (!path.empty() && !path.starts_with('/')) return fail(ErrorKind::invalid, fmt::format("{} is not unix:///PATH", address));
  a.remote.address = "unix://" + path;
  a.remote.auth_type.clear();
  VIRGA_TRY(auto* api, connect(a));
  VIRGA_CHECK(or_forget(a, choose_project(a, *api)));
  return finish(a);
}

Result<> add_server(Adding& a, const std::string& given) {
  VIRGA_TRY(const auto address, https_address(given, true));
  if (!a.remote.is_public) VIRGA_CHECK(own_certificate(a));
  auto token = a.args.text("token");
  std::string fingerprint;
  if (!token.empty()) {
    VIRGA_TRY(const auto parsed, client::parse_token(token));
    fingerprint = parsed.fingerprint;
  }
  VIRGA_CHECK(or_forget(a, meet(a, address, fingerprint)));
  if (!a.remote.is_public) VIRGA_CHECK(or_forget(a, authenticate(a, token)));
  return finish(a);
}

/// The host of an address is a usable name for its remote.
std::string name_from(const std::string& address) {
  std::string_view host = address;
  if (const auto scheme = host.find("://"); scheme != std::string_view::npos) host.remove_prefix(scheme + 3);
  return std::string(host.substr(0, host.find_first_of(":/")));
}

Result<> add(App& app, const Args& args) {
  VIRGA_TRY(auto* config, app.config());
  const auto& address = args[args.size() - 1];
  Adding a{.app = app, .args = args, .config = *config, .name = args.size() > 1 ? args[0] : "", .remote = {}};
  a.remote.protocol = args.text("protocol");
  a.remote.is_public = args.has("public");
  a.remote.auth_type = a.remote.is_public ? "" : "tls";
  if (auto type = args.text("auth-type"); !type.empty() && type != "tls")
    return fail(ErrorKind::unsupported, fmt::format("The authentication type \"{}\" is not supported: use tls", type));
  const auto token = client::parse_token(address);
  if (a.name.empty()) a.name = token && !token->addresses.empty() ? name_from(token->addresses[0]) : name_from(address);
  VIRGA_CHECK(check_new(*config, a.name));
  if (token) return add_with_token(a, address, *token);
  if (a.remote.protocol == "simplestreams" || a.remote.protocol == "oci") return add_image_server(a, address);
  if (a.remote.protocol != "incus") return fail(ErrorKind::invalid, fmt::format("Invalid protocol: {}", a.remote.protocol));
  if (address.starts_with("unix:")) return add_unix(a, address);
  if (address.find("://") != std::string::npos && !address.starts_with("https://"))
    return fail(ErrorKind::invalid, fmt::format("Invalid URL scheme in \"{}\": https:// or unix:// is expected", address));
  return add_server(a, address);
}

}  // namespace

Command remote_add_command() {
  return {.use = "add [<remote>] <IP|FQDN|URL|token>",
          .summary = "Add new remote servers",
          .description =
              "URLs for remote resources must be HTTPS (https://) or a unix socket (unix:///path).\n"
              "Basic authentication is not supported: a server comes to trust this client by a token, which\n"
              "`virga config trust add <name>` makes on the server.",
          .examples =
              "virga remote add lab eyJjbGllbnRfbmFtZSI6...\n    Join a server with the token that it gave out\n\n"
              "virga remote add lab 192.0.2.10 --accept-certificate --token eyJj...\n\n"
              "virga remote add images https://images.example.org --protocol=simplestreams",
          .flags = {{"accept-certificate", 0, Flag::boolean, "Accept certificate"},
                    {"auth-type", 0, Flag::text, "Server authentication type (tls)"},
                    {"protocol", 0, Flag::text, "Server protocol (incus, oci or simplestreams)", "incus"},
                    {"public", 0, Flag::boolean, "Public image server"},
                    {"token", 0, Flag::text, "Remote trust token"}},
          .least = 1,
          .most = 2,
          .run = add,
          .own_remotes = true};
}

}  // namespace virga::cli
