// publish: an image made of an instance.
#include <fmt/format.h>

#include <algorithm>

#include "apps/virga/images/images.h"
#include "apps/virga/instances/instances.h"
#include "apps/virga/values.h"

namespace virga::cli {
namespace {

constexpr std::int64_t stopped = 102;

Result<json::object> request_of(const Args& args, const std::string& name) {
  json::object body{{"source", {{"type", name.find('/') == std::string::npos ? "instance" : "snapshot"}, {"name", name}}},
                    {"public", args.has("public")}};
  if (auto compression = args.text("compression"); !compression.empty()) body["compression_algorithm"] = compression;
  if (auto expires = args.text("expire"); !expires.empty()) body["expires_at"] = expires;
  json::object properties;
  for (std::size_t i = 1; i < args.size(); ++i) {
    if (i == 1 && args[i].ends_with(':')) {
      VIRGA_CHECK(local_name(args[i]));
      continue;
    }
    VIRGA_TRY(auto pairs, parse_key_values({args[i]}));
    for (const auto& [key, value] : pairs) properties[key] = value;
  }
  // Without any, the image keeps those of the image that the instance was made from.
  if (!properties.empty()) body["properties"] = std::move(properties);
  return body;
}

Result<std::string> make_image(App& app, Api& api, const json::object& body) {
  auto progress = app.progress("Publishing instance");
  VIRGA_TRY(auto operation, api.run("POST", app.url("/1.0/images"), body, &progress));
  auto fingerprint = text_of(object_of(operation, "metadata"), "fingerprint");
  if (fingerprint.empty()) return fail(ErrorKind::internal, "the server did not say the image's fingerprint");
  return fingerprint;
}

Result<> publish(App& app, const Args& args) {
  VIRGA_TRY(auto name, local_name(args[0]));
  VIRGA_TRY(auto body, request_of(args, name));
  VIRGA_TRY(auto* api, app.api());
  const auto instance_name = name.substr(0, name.find('/'));
  VIRGA_TRY(auto instance, api->object(instance_url(app, instance_name)));
  const bool runs = instance_name == name && integer_of(instance, "status_code") != stopped;
  if (runs && !args.has("force"))
    return fail(
        Error(ErrorKind::invalid, "The instance is currently running").with_hint("Use --force to have it stopped and restarted"));
  const auto aliases = args.list("alias");
  if (!args.has("reuse")) {
    VIRGA_TRY(auto existing, api->array(app.url("/1.0/images/aliases").query("recursion", "1")));
    for (const auto& alias : objects_of(existing))
      if (std::find(aliases.begin(), aliases.end(), text_of(alias, "name")) != aliases.end() &&
          text_of(alias, "type") == text_of(instance, "type"))
        return fail(Error(ErrorKind::exists, fmt::format("Image alias \"{}\" exists already", text_of(alias, "name")))
                        .with_hint("--reuse lets it stand for the new image"));
  }
  if (runs) VIRGA_CHECK(change_state(app, name, "stop", -1, true));
  auto fingerprint = make_image(app, *api, body);
  // It comes back whatever became of the image.
  if (runs) {
    auto back = change_state(app, name, "start", -1, false);
    if (fingerprint) VIRGA_CHECK(back);
  }
  if (!fingerprint) return fail(std::move(fingerprint).error());
  for (const auto& alias : aliases) VIRGA_CHECK(set_alias(app, alias, *fingerprint, true));
  app.note(fmt::format("Instance published with fingerprint: {}", *fingerprint));
  return {};
}

}  // namespace

Command publish_command() {
  return {.use = "publish [<remote>:]<instance>[/<snapshot>] [<remote>:] [key=value...]",
          .summary = "Publish instances as images",
          .description = "Makes an image of an instance's root disk. It must be stopped, or --force stops it and starts it again.",
          .examples = "virga publish web --alias web-1\n\nvirga publish web --force --compression zstd --alias web-1 --reuse",
          .flags = {{"alias", 0, Flag::list, "New alias to define at target"},
                    {"compression", 0, Flag::text, "Compression algorithm to use: bzip2, gzip, xz, zstd or none"},
                    {"expire", 0, Flag::text, "Image expiration date (format: rfc3339)"},
                    {"force", 'f', Flag::boolean, "Stop the instance if currently running"},
                    {"public", 0, Flag::boolean, "Make the image public"},
                    {"reuse", 0, Flag::boolean, "If the image alias already exists, delete and create a new one"}},
          .least = 1,
          .most = any_number,
          .run = publish};
}

}  // namespace virga::cli
