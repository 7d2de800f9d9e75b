// copy: an instance made like another one.
#include <fmt/format.h>

#include "apps/virga/instances/instances.h"
#include "apps/virga/instances/request.h"
#include "apps/virga/instances/send.h"
#include "apps/virga/values.h"

namespace virga::cli {
namespace {

/// What a copy is of, and where it goes.
struct Copy {
  App& app;
  const Args& args;
  std::string from, to;  ///< remotes
  std::string source, target;
  std::string source_project, target_project;
  bool between() const { return from != to; }
};

Result<Copy> plan(App& app, const Args& args) {
  VIRGA_TRY(auto* config, app.config());
  Copy copy{.app = app, .args = args, .from = {}, .to = {}, .source = {}, .target = {}, .source_project = {}, .target_project = {}};
  auto [from, source] = client::split_remote(args[0]);
  auto [to, target] = client::split_remote(args.word(1));
  if (from.empty()) from = app.remote();
  if (to.empty()) to = app.remote();
  VIRGA_CHECK(config->find(from));
  VIRGA_CHECK(config->find(to));
  if (source.empty()) return fail(ErrorKind::invalid, "You must specify a source instance name");
  copy.from = std::move(from);
  copy.to = std::move(to);
  copy.source = std::move(source);
  copy.target = std::move(target);
  copy.source_project = app.project_of(copy.from);
  copy.target_project = args.text("target-project");
  if (copy.target_project.empty()) copy.target_project = copy.between() ? app.project_of(copy.to) : copy.source_project;
  // Without a name the copy has the source's, where that can be.
  if (copy.target.empty() && (copy.between() || copy.target_project != copy.source_project))
    copy.target = copy.source.substr(0, copy.source.find('/'));
  if (args.has("refresh") && copy.target.empty()) return fail(ErrorKind::invalid, "You must specify a destination instance name");
  return copy;
}

/// The devices that the source has, its profiles' too.
Result<json::object> request_of(const Copy& copy, const json::object& source) {
  const auto& args = copy.args;
  json::object document{{"description", text_of(source, "description")}, {"type", text_of(source, "type")}};
  VIRGA_TRY(auto request, instance_request(args, std::move(document), copy.target));
  VIRGA_CHECK(apply_device_flags(request, args, object_of(source, "expanded_devices")));
  request["source"] = json::object{{"type", "copy"},
                                   {"source", copy.source},
                                   {"project", copy.source_project},
                                   {"instance_only", args.has("instance-only")},
                                   {"refresh", args.has("refresh")},
                                   {"allow_inconsistent", args.has("allow-inconsistent")}};
  return request;
}

/// Nobody there knows the source: all that it has is said.
Result<> copy_between(const Copy& copy, const json::object& source, json::object request) {
  if (copy.args.has("refresh"))
    return fail(ErrorKind::unsupported, "copies on other servers cannot be refreshed yet: delete it there, and copy again");
  json::object config;
  for (const auto& [key, value] : object_of(source, "config"))
    if (!key.starts_with("volatile.") || key == "volatile.base_image") config[key] = value;
  for (const auto& [key, value] : object_of(request, "config")) config[key] = value;
  auto devices = object_of(source, "devices");
  for (const auto& [name, device] : object_of(request, "devices")) devices[name] = device;
  request["config"] = std::move(config);
  request["devices"] = std::move(devices);
  request["architecture"] = text_of(source, "architecture");
  if (!request.contains("profiles")) request["profiles"] = array_of(source, "profiles");
  auto& app = copy.app;
  VIRGA_TRY(auto* from, app.api_of(copy.from));
  VIRGA_TRY(auto* to, app.api_of(copy.to));
  const Sending sending{.app = app,
                        .from = copy.from,
                        .to = copy.to,
                        .source = from,
                        .target = to,
                        .source_url = Url("/1.0/instances").project(copy.source_project).segment(copy.source),
                        .target_url = Url("/1.0/instances").project(copy.target_project),
                        .request = std::move(request),
                        .instance_only = copy.args.has("instance-only")};
  return send_instance(sending, copy.args.text("mode"));
}

Result<> run_copy(App& app, const Args& args) {
  if (args.has("no-profiles") && !args.list("profile").empty())
    return fail(ErrorKind::invalid, "Can't use --no-profiles with --profile");
  VIRGA_TRY(const auto copy, plan(app, args));
  VIRGA_CHECK(app.use_remote(copy.from));
  VIRGA_TRY(auto* api, app.api());
  const auto name = copy.source.substr(0, copy.source.find('/'));
  VIRGA_TRY(const auto source, api->object(Url("/1.0/instances").project(copy.source_project).segment(name)));
  VIRGA_TRY(auto request, request_of(copy, source));
  if (copy.between()) return copy_between(copy, source, std::move(request));
  auto progress = app.progress("Transferring instance");
  VIRGA_TRY(auto operation, api->run("POST", Url("/1.0/instances").project(copy.target_project), std::move(request), &progress));
  if (!copy.target.empty()) return {};
  const auto made = strings_of(object_of(operation, "resources"), "instances");
  if (!made.empty()) app.note(fmt::format("Instance name is: {}", client::name_in_url(made[0])));
  return {};
}

}  // namespace

Command copy_command() {
  return {
      .use = "copy [<remote>:]<source>[/<snapshot>] [[<remote>:]<destination>]",
      .summary = "Copy instances within or in between servers",
      .aliases = {"cp"},
      .description =
          "The copy has the disk of the source as it is now, its configuration, devices and profiles, and addresses of its own. "
          "A source that runs is paused while its disk is read.\n\nModes of copies between servers:\n  - pull: the target fetches "
          "the "
          "instance from the source (default)\n  - push: the source sends it to the target\n  - relay: it comes through this "
          "machine",
      .examples =
          "virga copy web web2\n\nvirga copy web web2 -c limits.memory=1GiB -s fast\n    With another configuration, on another "
          "pool\n\nvirga copy web backup-of-web --refresh\n    Bring an earlier copy up to date",
      .flags = {{"allow-inconsistent", 0, Flag::boolean, "Ignore copy errors for volatile files"},
                {"config", 'c', Flag::list, "Config key/value to apply to the new instance"},
                {"device", 'd', Flag::list, "New key/value to apply to a specific device"},
                {"ephemeral", 'e', Flag::boolean, "Ephemeral instance"},
                {"instance-only", 0, Flag::boolean, "Copy the instance without its snapshots"},
                {"mode", 0, Flag::text, "Transfer mode. One of pull, push or relay", "pull"},
                {"no-profiles", 0, Flag::boolean, "Create the instance with no profiles applied"},
                {"profile", 'p', Flag::list, "Profile to apply to the new instance"},
                {"refresh", 0, Flag::boolean, "Perform an incremental copy"},
                {"storage", 's', Flag::text, "Storage pool name"},
                {"target-project", 0, Flag::text, "Copy to a project different from the source"}},
      .least = 1,
      .most = 2,
      .run = run_copy,
      .own_remotes = true};
}

}  // namespace virga::cli
