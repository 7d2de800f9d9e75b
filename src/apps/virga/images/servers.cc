#include "apps/virga/images/servers.h"

#include <fmt/format.h>
#include <sys/utsname.h>

#include <algorithm>
#include <map>

#include "apps/virga/images/images.h"
#include "apps/virga/values.h"
#include "client/streams.h"

namespace virga::cli {
namespace {

constexpr const char* never = "0001-01-01T00:00:00Z";

std::string host_architecture() {
  utsname name{};
  return ::uname(&name) == 0 ? name.machine : "x86_64";
}

/// "20260201_05:24" is the first of February.
std::string time_of(std::string_view version) {
  if (version.size() < 8 || version.substr(0, 8).find_first_not_of("0123456789") != std::string_view::npos) return never;
  const bool timed = version.size() == 14 && version[8] == '_' && version[11] == ':';
  auto text = fmt::format("{}-{}-{}T{}:00Z", version.substr(0, 4), version.substr(4, 2), version.substr(6, 2),
                          timed ? version.substr(9) : "00:00");
  return parse_time(text) ? text : never;
}

json::object as_api(const streams::Download& image) {
  json::array aliases;
  for (const auto& alias : image.aliases) aliases.push_back(json::object{{"name", alias}, {"description", ""}});
  const auto size = image.metadata.size + (image.root ? image.root->size : 0);
  return {{"fingerprint", image.fingerprint},
          {"aliases", std::move(aliases)},
          {"type", to_string(image.type)},
          {"architecture", image.architecture},
          {"size", static_cast<std::int64_t>(size)},
          {"properties", to_json(image.properties)},
          {"public", true},
          {"auto_update", false},
          {"cached", false},
          {"filename", ""},
          {"profiles", json::array()},
          {"created_at", time_of(image.version)},
          {"uploaded_at", time_of(image.version)},
          {"expires_at", never},
          {"last_used_at", never}};
}

Result<std::vector<streams::Download>> list_of(App& app, const std::string& remote) {
  VIRGA_TRY(auto* config, app.config());
  VIRGA_TRY(const auto* known, config->find(remote));
  // No connection is kept: only the loop is used.
  Api loop(http::Endpoint{});
  auto listed = loop.await(client::list_streams(known->address, config->server_certificate(remote)));
  if (!listed) return fail(std::move(listed).error().wrap(fmt::format("remote \"{}\"", remote)));
  return listed;
}

Result<const streams::Download*> choose(const std::vector<streams::Download>& images, const std::string& name, bool vm) {
  const auto wanted = [&](std::string alias, std::string fingerprint) {
    return streams::Wanted{std::move(alias), std::move(fingerprint), vm ? InstanceType::virtual_machine : InstanceType::container,
                           host_architecture()};
  };
  if (const auto* image = streams::choose(images, wanted(name, ""))) return image;
  auto by_fingerprint = wanted("", name);
  by_fingerprint.type.reset();
  const bool digits = !name.empty() && name.find_first_not_of("0123456789abcdef") == std::string::npos;
  if (const auto* image = digits ? streams::choose(images, by_fingerprint) : nullptr) return image;
  return fail(Error(ErrorKind::not_found, fmt::format("Image \"{}\" not found", name))
                  .with_hint(vm ? "virga image list <remote>: shows what there is" : "virtual machines' images need --vm"));
}

Result<std::vector<json::object>> api_sources(App& app, const std::string& remote, const std::string& name, bool vm) {
  const auto project = app.project_of(remote);
  const auto at = [&](std::string_view base) { return Url(base).project(project); };
  VIRGA_TRY(auto* api, app.api_of(remote));
  VIRGA_TRY(const auto aliases, api->array(at("/1.0/images/aliases").query("recursion", "1")));
  std::string fingerprint = name, alias;
  for (const auto& one : objects_of(aliases)) {
    if (text_of(one, "name") != name) continue;
    if (alias.empty() || (text_of(one, "type") == "virtual-machine") == vm) fingerprint = text_of(one, "target");
    alias = name;
  }
  auto image = api->object(at("/1.0/images").segment(fingerprint));
  if (!image) return fail(std::move(image).error().wrap(fmt::format("remote \"{}\"", remote)));
  VIRGA_TRY(const auto meeting, meeting_of(app, remote, *api));
  const bool is_public = boolean_of(*image, "public");
  std::vector<json::object> out;
  for (const auto& address : meeting.addresses) {
    json::object source{
        {"type", "image"}, {"mode", "pull"}, {"protocol", "incus"}, {"server", address}, {"certificate", meeting.certificate}};
    // By its alias a public image can be followed; one of another project or a private one is had by its secret only.
    if (is_public && !alias.empty() && project == "default") {
      source["alias"] = alias;
    } else {
      source["fingerprint"] = text_of(*image, "fingerprint");
    }
    if (!is_public || project != "default") {
      VIRGA_TRY(const auto answer, api->start("POST", at("/1.0/images").segment(text_of(*image, "fingerprint")).segment("secret")));
      const auto operation = answer.metadata.is_object() ? answer.metadata.get_object() : json::object();
      source["secret"] = text_of(object_of(operation, "metadata"), "secret");
    }
    out.push_back(std::move(source));
  }
  return out;
}

}  // namespace

Result<bool> publishes_images(App& app, const std::string& remote) {
  if (app.globals().force_local) return false;
  VIRGA_TRY(auto* config, app.config());
  VIRGA_TRY(const auto* known, config->find(remote));
  if (known->protocol == "oci")
    return fail(Error(ErrorKind::unsupported, fmt::format("The remote \"{}\" is an OCI registry: application containers are not "
                                                          "supported yet",
                                                          remote))
                    .with_hint("use an image server (remote add --protocol=simplestreams) or virga image build"));
  return known->protocol == "simplestreams";
}

Result<json::array> published_images(App& app, const std::string& remote) {
  VIRGA_TRY(const auto images, list_of(app, remote));
  std::map<std::pair<std::string, InstanceType>, const streams::Download*> newest;
  for (const auto& image : images) {
    auto& best = newest[{image.product, image.type}];
    if (best == nullptr || image.version > best->version) best = &image;
  }
  json::array out;
  for (const auto& image : images)
    if (newest.at({image.product, image.type}) == &image) out.push_back(as_api(image));
  return out;
}

Result<json::object> published_image(App& app, const std::string& remote, const std::string& name, bool vm) {
  VIRGA_TRY(const auto images, list_of(app, remote));
  VIRGA_TRY(const auto* image, choose(images, name, vm));
  return as_api(*image);
}

Result<Meeting> meeting_of(App& app, const std::string& remote, Api& api) {
  Meeting out;
  VIRGA_TRY(const auto server, api.object(Url("/1.0")));
  const auto& environment = object_of(server, "environment");
  out.certificate = text_of(environment, "certificate");
  VIRGA_TRY(auto* config, app.config());
  VIRGA_TRY(const auto* known, config->find(remote));
  if (known->address.starts_with("https://")) out.addresses.push_back(known->address);
  for (const auto& address : strings_of(environment, "addresses"))
    if (const auto url = "https://" + address; out.addresses.empty() || out.addresses[0] != url) out.addresses.push_back(url);
  if (out.addresses.empty())
    return fail(Error(ErrorKind::unavailable, fmt::format("The server \"{}\" isn't listening on the network", remote))
                    .with_hint("set its core.https_address, or copy with --mode=relay"));
  if (out.certificate.empty()) out.certificate = config->server_certificate(remote);
  return out;
}

Result<std::vector<json::object>> remote_sources(App& app, const std::string& remote, const std::string& image, bool vm) {
  VIRGA_TRY(const bool published, publishes_images(app, remote));
  if (!published) return api_sources(app, remote, image, vm);
  VIRGA_TRY(const auto images, list_of(app, remote));
  VIRGA_TRY(const auto* found, choose(images, image, vm));
  VIRGA_TRY(auto* config, app.config());
  VIRGA_TRY(const auto* known, config->find(remote));
  json::object source{{"type", "image"},
                      {"mode", "pull"},
                      {"protocol", "simplestreams"},
                      {"server", known->address},
                      {"certificate", config->server_certificate(remote)}};
  // A fingerprint never becomes another image; an alias is what can be followed.
  const bool by_fingerprint = found->fingerprint.starts_with(image);
  source[by_fingerprint ? "fingerprint" : "alias"] = by_fingerprint ? found->fingerprint : image;
  return std::vector<json::object>{std::move(source)};
}

}  // namespace virga::cli
