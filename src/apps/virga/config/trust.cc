#include "apps/virga/config/trust.h"

#include <fmt/format.h>

#include <fstream>
#include <sstream>

#include "apps/virga/document.h"
#include "apps/virga/listing.h"
#include "apps/virga/text.h"
#include "apps/virga/values.h"
#include "client/certificate.h"

namespace virga::cli {
namespace {

std::string base64(std::string_view bytes) {
  constexpr std::string_view alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string out;
  for (std::size_t i = 0; i < bytes.size(); i += 3) {
    std::uint32_t group = 0;
    for (std::size_t k = 0; k < 3; ++k) group = group << 8 | (i + k < bytes.size() ? static_cast<unsigned char>(bytes[i + k]) : 0u);
    for (std::size_t k = 0; k < 4; ++k) out += i + k <= bytes.size() ? alphabet[group >> (18 - 6 * k) & 63] : '=';
  }
  return out;
}

std::string expiry(const json::object& certificate) {
  auto time = client::certificate_expiry(text_of(certificate, "certificate"));
  return time ? local_time(*time) : std::string();
}

const std::vector<Column>& certificate_columns() {
  using Object = const json::object&;
  static const std::vector<Column> columns = {
      {'n', "NAME", field("name")},
      {'t', "TYPE", field("type")},
      {'d', "DESCRIPTION", field("description")},
      {'f', "FINGERPRINT", [](Object o) { return text_of(o, "fingerprint").substr(0, 12); }},
      {'e', "EXPIRY DATE", expiry},
      {'r', "RESTRICTED", [](Object o) { return boolean_of(o, "restricted") ? "yes" : "no"; }},
      {'p', "PROJECTS", [](Object o) { return fmt::format("{}", fmt::join(strings_of(o, "projects"), "\n")); }},
  };
  return columns;
}

/// The one certificate whose fingerprint begins so.
Result<std::string> whole_fingerprint(Api& api, const std::string& start) {
  VIRGA_TRY(auto certificates, api.array(Url("/1.0/certificates").query("recursion", "1")));
  std::vector<std::string> found;
  for (const auto& certificate : objects_of(certificates))
    if (text_of(certificate, "fingerprint").starts_with(start)) found.push_back(text_of(certificate, "fingerprint"));
  if (found.empty() || start.empty()) return fail(ErrorKind::not_found, "Certificate not found");
  if (found.size() > 1)
    return fail(ErrorKind::invalid, fmt::format("More than one certificate has a fingerprint that begins with '{}'", start));
  return found[0];
}

json::object restrictions(const Args& args) {
  json::object out{{"restricted", args.has("restricted")}};
  json::array projects;
  for (const auto& list : args.list("projects"))
    for (const auto& name : split(list, ','))
      if (!name.empty()) projects.emplace_back(name);
  out["projects"] = std::move(projects);
  return out;
}

/// The API gives the parts of a token; the client wants them as one word: the base64 of their JSON.
Result<std::string> token_word(const json::object& operation) {
  const auto& metadata = object_of(operation, "metadata");
  auto secret = text_of(metadata, "secret");
  if (secret.empty()) return fail(ErrorKind::invalid, "the server's answer holds no token");
  json::object token{
      {"client_name", text_of(object_of(metadata, "request"), "name")},
      {"fingerprint", text_of(metadata, "fingerprint")},
      {"addresses", array_of(metadata, "addresses")},
      {"secret", secret},
      {"expires_at", text_of(metadata, "expiresAt").empty() ? "0001-01-01T00:00:00Z" : text_of(metadata, "expiresAt")}};
  return base64(json::serialize(token));
}

Result<> add(App& app, const Args& args) {
  VIRGA_TRY(auto name, local_name(args[0]));
  VIRGA_TRY(auto* api, app.api());
  auto body = restrictions(args);
  body["name"] = name;
  body["type"] = "client";
  body["token"] = true;
  // The operation is the token itself: it goes on until the token is used or expires.
  VIRGA_TRY(auto answer, api->start("POST", Url("/1.0/certificates"), std::move(body)));
  if (!answer.metadata.is_object()) return fail(ErrorKind::invalid, "the server's answer holds no token");
  VIRGA_TRY(auto word, token_word(answer.metadata.get_object()));
  app.note(fmt::format("Client {} certificate add token:", name));
  app.print(word + "\n");
  return {};
}

Result<> add_certificate(App& app, const Args& args) {
  const std::string& path = args[args.size() - 1];
  std::ifstream file(path);
  if (!file) return fail(ErrorKind::not_found, fmt::format("Can't read the certificate '{}'", path));
  std::ostringstream pem;
  pem << file.rdbuf();
  VIRGA_TRY(auto* api, app.api());
  auto body = restrictions(args);
  body["certificate"] = pem.str();
  auto name = args.text("name");
  if (name.empty()) {
    name = path.substr(path.rfind('/') == std::string::npos ? 0 : path.rfind('/') + 1);
    name = name.substr(0, name.rfind('.'));
  }
  body["name"] = name;
  body["type"] = args.text("type");
  if (auto text = args.text("description"); !text.empty()) body["description"] = text;
  VIRGA_CHECK(api->send("POST", Url("/1.0/certificates"), std::move(body)));
  return {};
}

Result<> list(App& app, const Args& args) {
  VIRGA_TRY(auto* api, app.api());
  VIRGA_TRY(auto certificates, api->array(Url("/1.0/certificates").query("recursion", "1")));
  return print_listing(app, args, certificate_columns(), certificates);
}

Result<json::array> token_operations(Api& api) {
  VIRGA_TRY(auto by_state, api.object(Url("/1.0/operations").query("recursion", "1")));
  json::array out;
  for (const auto& operation : objects_of(array_of(by_state, "running")))
    if (text_of(operation, "class") == "token") out.push_back(operation);
  return out;
}

Result<> list_tokens(App& app, const Args& args) {
  VIRGA_TRY(auto* api, app.api());
  VIRGA_TRY(auto operations, token_operations(*api));
  const std::vector<Column> columns = {
      {'n', "NAME", [](const json::object& o) { return text_of(object_of(object_of(o, "metadata"), "request"), "name"); }},
      // A server may keep the secret to the one who made it.
      {'t', "TOKEN", [](const json::object& o) { return token_word(o).value_or(""); }},
      {'E', "EXPIRES AT", [](const json::object& o) { return local_time(text_of(object_of(o, "metadata"), "expiresAt"), ""); }},
  };
  return print_listing(app, args, columns, operations);
}

Result<> revoke_token(App& app, const Args& args) {
  VIRGA_TRY(auto name, local_name(args[0]));
  VIRGA_TRY(auto* api, app.api());
  VIRGA_TRY(auto operations, token_operations(*api));
  for (const auto& operation : objects_of(operations)) {
    if (text_of(object_of(object_of(operation, "metadata"), "request"), "name") != name) continue;
    VIRGA_CHECK(api->send("DELETE", Url("/1.0/operations").segment(text_of(operation, "id"))));
    app.note(fmt::format("Certificate add token for {} deleted", name));
    return {};
  }
  return fail(ErrorKind::not_found, fmt::format("No certificate add token for member {} found", name));
}

Result<> remove(App& app, const Args& args) {
  VIRGA_TRY(auto start, local_name(args[0]));
  VIRGA_TRY(auto* api, app.api());
  VIRGA_TRY(auto fingerprint, whole_fingerprint(*api, start));
  VIRGA_CHECK(api->send("DELETE", Url("/1.0/certificates").segment(fingerprint)));
  return {};
}

Result<> show(App& app, const Args& args) {
  VIRGA_TRY(auto start, local_name(args[0]));
  VIRGA_TRY(auto* api, app.api());
  VIRGA_TRY(auto fingerprint, whole_fingerprint(*api, start));
  VIRGA_TRY(auto certificate, api->object(Url("/1.0/certificates").segment(fingerprint)));
  app.print(as_yaml(certificate));
  return {};
}

Result<> edit(App& app, const Args& args) {
  VIRGA_TRY(auto* api, app.api());
  VIRGA_TRY(auto fingerprint, whole_fingerprint(*api, args[0]));
  std::string etag;
  const auto url = Url("/1.0/certificates").segment(fingerprint);
  VIRGA_TRY(auto certificate, api->object(url, &etag));
  const auto editable = [](const json::object& object) {
    return only_fields(object, {"name", "type", "restricted", "projects", "certificate", "description"});
  };
  const std::string help = fmt::format(
      "This is a YAML representation of the certificate {}.\nLines that begin with '#' are ignored. The certificate itself cannot "
      "be "
      "replaced.",
      fingerprint.substr(0, 12));
  return edit_document(app, editable(certificate), help, [&](json::object document) -> Result<> {
    VIRGA_CHECK(api->send("PUT", url, editable(document), stdin_is_terminal() ? etag : std::string()));
    return {};
  });
}

std::vector<Flag> restriction_flags() {
  return {{"projects", 0, Flag::list, "List of projects to restrict the certificate to"},
          {"restricted", 0, Flag::boolean, "Restrict the certificate to one or more projects"}};
}

}  // namespace

Command trust_command() {
  Command group{.use = "trust", .summary = "Manage trusted clients"};
  auto certificate_flags = restriction_flags();
  certificate_flags.push_back({"description", 0, Flag::text, "Certificate description"});
  certificate_flags.push_back({"name", 0, Flag::text, "Alternative certificate name"});
  certificate_flags.push_back({"type", 0, Flag::text, "Type of certificate", "client"});
  group.children = {
      {.use = "add [<remote>:]<name>",
       .summary = "Add new trusted client",
       .description = "This will issue a trust token to be used by the client to add itself to the trust store.",
       .flags = restriction_flags(),
       .least = 1,
       .most = 1,
       .run = add},
      {.use = "add-certificate [<remote>:] <cert>",
       .summary = "Add new trusted client certificate",
       .flags = certificate_flags,
       .least = 1,
       .most = 2,
       .run = add_certificate},
      {.use = "edit [<remote>:]<fingerprint>",
       .summary = "Edit trust configurations as YAML",
       .examples = "virga config trust edit <fingerprint> < trust.yaml\n    Update a client's name, projects and restriction",
       .least = 1,
       .most = 1,
       .run = edit},
      {.use = "list [<remote>:]",
       .summary = "List trusted clients",
       .aliases = {"ls"},
       .flags = {columns_flag("ntdfe"), format_flag()},
       .most = 1,
       .run = list},
      {.use = "list-tokens [<remote>:]",
       .summary = "List all active certificate add tokens",
       .flags = {columns_flag("ntE"), format_flag()},
       .most = 1,
       .run = list_tokens},
      {.use = "revoke-token [<remote>:]<name>",
       .summary = "Revoke certificate add token",
       .least = 1,
       .most = 1,
       .run = revoke_token},
      {.use = "remove [<remote>:]<fingerprint>",
       .summary = "Remove trusted client",
       .aliases = {"rm"},
       .least = 1,
       .most = 1,
       .run = remove},
      {.use = "show [<remote>:]<fingerprint>", .summary = "Show trust configurations", .least = 1, .most = 1, .run = show},
  };
  return group;
}

}  // namespace virga::cli
