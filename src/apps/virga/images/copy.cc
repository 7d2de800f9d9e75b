// image copy: between two servers. They speak to each other (pull, push), or the bytes come through this machine (relay).
#include <fmt/format.h>

#include <cstdio>
#include <functional>
#include <memory>

#include "apps/virga/document.h"
#include "apps/virga/images/images.h"
#include "apps/virga/images/servers.h"
#include "apps/virga/values.h"

namespace virga::cli {
namespace {

struct Copy {
  App& app;
  const Args& args;
  std::string from, to;  ///< remotes
  Api* source = nullptr;
  Api* target = nullptr;
  json::object image;  ///< as the source shows it
  std::string source_project, target_project;

  Url source_url(std::string_view base) const { return Url(base).project(source_project); }
  Url target_url(std::string_view base) const { return Url(base).project(target_project); }
  std::string fingerprint() const { return text_of(image, "fingerprint"); }
};

json::object wanted(const Copy& copy) {
  json::array aliases;
  if (copy.args.has("copy-aliases"))
    for (const auto& alias : objects_of(array_of(copy.image, "aliases")))
      aliases.push_back(json::object{{"name", text_of(alias, "name")}, {"description", text_of(alias, "description")}});
  for (const auto& alias : copy.args.list("alias")) aliases.push_back(json::object{{"name", alias}});
  json::object out{
      {"aliases", std::move(aliases)}, {"public", copy.args.has("public")}, {"auto_update", copy.args.has("auto-update")}};
  if (!copy.args.list("profile").empty()) out["profiles"] = to_json(copy.args.list("profile"));
  return out;
}

Result<> pull(Copy& copy) {
  VIRGA_TRY(const auto meeting, meeting_of(copy.app, copy.from, *copy.source));
  Error last(ErrorKind::unavailable, "no address");
  for (const auto& address : meeting.addresses) {
    auto request = wanted(copy);
    json::object source{{"type", "image"},
                        {"mode", "pull"},
                        {"protocol", "incus"},
                        {"server", address},
                        {"certificate", meeting.certificate},
                        {"fingerprint", copy.fingerprint()},
                        {"project", copy.source_project}};
    if (!boolean_of(copy.image, "public")) {
      VIRGA_TRY(const auto answer,
                copy.source->start("POST", copy.source_url("/1.0/images").segment(copy.fingerprint()).segment("secret")));
      const auto& operation = answer.metadata.is_object() ? answer.metadata.get_object() : json::object();
      source["secret"] = text_of(object_of(operation, "metadata"), "secret");
    }
    request["source"] = std::move(source);
    auto progress = copy.app.progress("Copying the image");
    auto done = copy.target->run("POST", copy.target_url("/1.0/images"), std::move(request), &progress);
    if (done) return {};
    last = std::move(done).error();
  }
  return fail(std::move(last));
}

Result<> push(Copy& copy) {
  VIRGA_TRY(const auto meeting, meeting_of(copy.app, copy.to, *copy.target));
  auto request = wanted(copy);
  request["source"] = json::object{{"type", "image"}, {"mode", "push"}, {"fingerprint", copy.fingerprint()}};
  request["properties"] = object_of(copy.image, "properties");
  request["expires_at"] = text_of(copy.image, "expires_at");
  Error last(ErrorKind::unavailable, "no address");
  for (const auto& address : meeting.addresses) {
    VIRGA_TRY(const auto token, copy.target->start("POST", copy.target_url("/1.0/images"), request));
    const auto& operation = token.metadata.is_object() ? token.metadata.get_object() : json::object();
    json::object order{{"target", address},
                       {"certificate", meeting.certificate},
                       {"secret", text_of(object_of(operation, "metadata"), "secret")},
                       {"project", copy.target_project}};
    auto progress = copy.app.progress("Copying the image");
    auto done = copy.source->run("POST", copy.source_url("/1.0/images").segment(copy.fingerprint()).segment("export"),
                                 std::move(order), &progress);
    if (done) return {};
    last = std::move(done).error();
    (void)copy.target->send("DELETE", Url("/1.0/operations").segment(text_of(operation, "id")));
  }
  return fail(std::move(last));
}

/// From a server that only publishes images: the target fetches them itself.
Result<> fetch(Copy& copy, const std::string& name) {
  if (copy.args.text("mode") != "pull")
    return fail(Error(ErrorKind::invalid, fmt::format("\"{}\" only publishes images: the target has to fetch them", copy.from))
                    .with_hint("leave --mode out"));
  VIRGA_TRY(copy.image, published_image(copy.app, copy.from, name, copy.args.has("vm")));
  VIRGA_TRY(auto sources, remote_sources(copy.app, copy.from, name, copy.args.has("vm")));
  auto request = wanted(copy);
  auto& source = sources.at(0);
  // Such an alias may stand for an image of each kind.
  source["image_type"] = text_of(copy.image, "type");
  request["source"] = std::move(source);
  auto progress = copy.app.progress("Copying the image");
  VIRGA_CHECK(copy.target->run("POST", copy.target_url("/1.0/images"), std::move(request), &progress));
  return {};
}

std::string joined(const std::vector<std::pair<std::string, std::string>>& items) {
  Url url("");
  for (const auto& [key, value] : items) url = std::move(url).query(key, value);
  const auto text = url.text();
  return text.empty() ? text : text.substr(1);
}

/// The headers that an upload has instead of a body's fields.
std::vector<std::pair<std::string, std::string>> upload_headers(const Copy& copy, std::string_view content_type) {
  std::vector<std::pair<std::string, std::string>> properties, aliases, profiles;
  for (const auto& [key, value] : object_of(copy.image, "properties"))
    if (value.is_string()) properties.emplace_back(std::string(key), std::string(value.get_string()));
  const auto body = wanted(copy);
  for (const auto& alias : objects_of(array_of(body, "aliases"))) aliases.emplace_back("alias", text_of(alias, "name"));
  for (const auto& profile : strings_of(body, "profiles")) profiles.emplace_back("profile", profile);
  return {{"Content-Type", std::string(content_type)},
          {"X-Incus-fingerprint", copy.fingerprint()},
          {"X-Incus-public", boolean_of(body, "public") ? "true" : "false"},
          {"X-Incus-properties", joined(properties)},
          {"X-Incus-aliases", joined(aliases)},
          {"X-Incus-profiles", joined(profiles)}};
}

Result<> relay(Copy& copy) {
  const std::unique_ptr<std::FILE, int (*)(std::FILE*)> file(std::tmpfile(), std::fclose);
  if (!file) return fail(ErrorKind::unavailable, "cannot make a temporary file");
  auto progress = copy.app.progress("Copying the image");
  const auto sink = [&](std::string_view bytes) -> Result<> {
    if (std::fwrite(bytes.data(), 1, bytes.size(), file.get()) == bytes.size()) return {};
    return fail(ErrorKind::unavailable, "cannot write a temporary file: is the disk full?");
  };
  const auto from = copy.source_url("/1.0/images").segment(copy.fingerprint()).segment("export").text();
  VIRGA_TRY(const auto response, copy.source->await(copy.source->client().download(from, sink)));
  client::Upload upload;
  upload.target = copy.target_url("/1.0/images").text();
  upload.headers = upload_headers(copy, response.header("Content-Type"));
  upload.length = static_cast<std::uint64_t>(std::ftell(file.get()));
  std::rewind(file.get());
  upload.read = [&](std::span<char> into) -> Result<std::size_t> { return std::fread(into.data(), 1, into.size(), file.get()); };
  VIRGA_TRY(const auto answer, copy.target->await(copy.target->client().upload(std::move(upload))));
  VIRGA_CHECK(copy.target->wait(answer.operation, &progress));
  return {};
}

Result<> run_copy(App& app, const Args& args) {
  VIRGA_TRY(auto* config, app.config());
  auto [from, name] = client::split_remote(args[0]);
  auto [to, rest] = client::split_remote(args[1]);
  if (from.empty()) from = app.remote();
  if (to.empty() || !rest.empty())
    return fail(Error(ErrorKind::invalid, "The target is a remote, such as lab:").with_hint("virga image copy <image> <remote>:"));
  VIRGA_CHECK(config->find(to));
  if (from == to) return fail(ErrorKind::invalid, "The source and target servers must be different");
  Copy copy{.app = app, .args = args, .from = from, .to = to, .image = {}, .source_project = {}, .target_project = {}};
  copy.source_project = app.project_of(from);
  copy.target_project = args.text("target-project");
  if (copy.target_project.empty()) copy.target_project = config->remotes[to].project;
  if (copy.target_project.empty()) copy.target_project = "default";
  VIRGA_TRY(copy.target, app.api_of(to));
  VIRGA_TRY(const bool published, publishes_images(app, from));
  if (published) {
    VIRGA_CHECK(fetch(copy, name));
    app.note("Image copied successfully!");
    return {};
  }
  VIRGA_CHECK(app.use_remote(from));
  VIRGA_TRY(copy.source, app.api());
  VIRGA_TRY(const auto fingerprint, resolve_image(app, name, args.has("vm")));
  VIRGA_TRY(copy.image, copy.source->object(copy.source_url("/1.0/images").segment(fingerprint)));
  const auto mode = args.text("mode");
  if (mode == "pull") {
    VIRGA_CHECK(pull(copy));
  } else if (mode == "push") {
    VIRGA_CHECK(push(copy));
  } else if (mode == "relay") {
    VIRGA_CHECK(relay(copy));
  } else {
    return fail(ErrorKind::invalid, fmt::format("Invalid mode \"{}\": it is pull, push or relay", mode));
  }
  app.note("Image copied successfully!");
  return {};
}

}  // namespace

Command image_copy_command() {
  return {
      .use = "copy [<remote>:]<image> <remote>:",
      .summary = "Copy images between servers",
      .aliases = {"cp"},
      .description =
          "Modes:\n  - pull: the target fetches the image from the source (default)\n"
          "  - push: the source sends it to the target\n  - relay: it comes through this machine",
      .examples = "virga image copy tiny lab: --copy-aliases\n\nvirga image copy lab:tiny local: --alias=tiny-of-lab --mode=relay",
      .flags = {{"alias", 0, Flag::list, "New aliases to add to the image"},
                {"auto-update", 0, Flag::boolean, "Keep the image up to date after initial copy"},
                {"copy-aliases", 0, Flag::boolean, "Copy aliases from source"},
                {"mode", 0, Flag::text, "Transfer mode. One of pull, push or relay", "pull"},
                {"profile", 'p', Flag::list, "Profile to apply to the new image"},
                {"public", 0, Flag::boolean, "Make image public"},
                {"target-project", 0, Flag::text, "Copy to a project different from the source"},
                {"vm", 0, Flag::boolean, "Copy virtual machine images"}},
      .least = 2,
      .most = 2,
      .run = run_copy,
      .own_remotes = true};
}

}  // namespace virga::cli
