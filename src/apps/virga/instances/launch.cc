// launch and create.
#include <fmt/format.h>

#include <tuple>

#include "apps/virga/document.h"
#include "apps/virga/images/servers.h"
#include "apps/virga/instances/instances.h"
#include "apps/virga/instances/request.h"
#include "apps/virga/values.h"

namespace virga::cli {
namespace {

std::vector<Flag> create_flags() {
  return {{"config", 'c', Flag::list, "Config key/value to apply to the new instance"},
          {"description", 0, Flag::text, "Instance description"},
          {"device", 'd', Flag::list, "New key/value to apply to a specific device"},
          {"empty", 0, Flag::boolean, "Create an empty instance"},
          {"environment-file", 0, Flag::text, "Include environment variables from file"},
          {"ephemeral", 'e', Flag::boolean, "Ephemeral instance"},
          {"network", 'n', Flag::text, "Network name"},
          {"no-profiles", 0, Flag::boolean, "Create the instance with no profiles applied"},
          {"profile", 'p', Flag::list, "Profile to apply to the new instance"},
          {"storage", 's', Flag::text, "Storage pool name"},
          {"type", 't', Flag::text, "Instance type"},
          {"vm", 0, Flag::boolean, "Create a virtual machine"}};
}

/// The devices that the profiles of the request give, the last profile over the first.
Result<json::object> profile_devices(App& app, Api& api, const json::object& request) {
  std::vector<std::string> names = {"default"};
  if (request.contains("profiles")) names = strings_of(request, "profiles");
  json::object merged;
  for (const auto& name : names) {
    auto profile = api.object(app.url("/1.0/profiles").segment(name));
    if (!profile) return fail(std::move(profile).error().wrap(fmt::format("Failed loading profile \"{}\"", name)));
    for (const auto& [key, device] : object_of(*profile, "devices")) merged[key] = device;
  }
  return merged;
}

/// An alias is left to the server, which knows one for each kind of guest; anything else must be a fingerprint or the start of one.
Result<json::object> image_source(App& app, Api& api, const std::string& image) {
  auto alias = api.object(app.url("/1.0/images/aliases").segment(image));
  if (alias) return json::object{{"type", "image"}, {"alias", image}};
  if (alias.error().kind() != ErrorKind::not_found) return fail(std::move(alias).error());
  auto found = api.object(app.url("/1.0/images").segment(image));
  const bool buildable = image == "tiny" || image.starts_with("debian/");
  if (!found) {
    if (found.error().kind() != ErrorKind::not_found) return fail(std::move(found).error());
    return fail(Error(ErrorKind::not_found, fmt::format("Image \"{}\" not found", image))
                    .with_hint(buildable
                                   ? fmt::format("it can be made here: sudo virga image build {}", image)
                                   : "virga image list shows the images that are here; virga image build tiny makes a small one"));
  }
  return json::object{{"type", "image"}, {"fingerprint", text_of(*found, "fingerprint")}};
}

/// A name that does not exist is told in terms of the flag, before anything is made.
Result<> check_exists(App& app, Api& api, std::string_view base, std::string_view noun, const std::string& name) {
  if (name.empty()) return {};
  auto found = api.object(app.url(base).segment(name));
  if (!found) return fail(std::move(found).error().wrap(fmt::format("Failed loading {} \"{}\"", noun, name)));
  return {};
}

struct Names {
  std::string image_remote, image;  ///< the remote is empty where it is the instance's
  std::string instance;
};

/// "lab:tiny c1" makes an instance of this machine, or of the default remote, from an image of lab; "lab:c1" says where it is to
/// be.
Result<Names> names_of(App& app, const Args& args) {
  Names names;
  const bool empty = args.has("empty");
  if (empty && args.size() > 1) return fail(Error(ErrorKind::invalid, "--empty cannot be combined with an image name"));
  if (!empty && args.size() == 0)
    return fail(Error(ErrorKind::invalid, "Missing image name")
                    .with_hint("virga launch <image> [<name>], or --empty for an instance without an image"));
  if (!empty) {
    std::tie(names.image_remote, names.image) = client::split_remote(args[0]);
    if (names.image.empty()) return fail(Error(ErrorKind::invalid, "Missing image name"));
  }
  auto [remote, instance] = client::split_remote(args.word(empty ? 0 : 1));
  names.instance = std::move(instance);
  VIRGA_CHECK(app.use_remote(remote.empty() ? app.remote() : remote));
  if (names.image_remote == app.remote()) names.image_remote.clear();
  return names;
}

void warn_without_network(App& app, Api& api, const std::string& name) {
  auto instance = api.object(instance_url(app, name));
  if (!instance) return;
  for (const auto& [key, device] : object_of(*instance, "expanded_devices"))
    if (device.is_object() && text_of(device.get_object(), "type") == "nic") return;
  app.warn(
      "\nThe instance you are starting doesn't have any network attached to it.\n"
      "  To create a new network, use: virga network create\n"
      "  To attach a network to an instance, use: virga config device add <instance> eth0 nic network=<network>\n");
}

/// The first source that can be reached: a server may have several addresses.
Result<json::object> create_from(App& app, Api& api, json::object request, std::vector<json::object> sources) {
  auto progress = app.progress("Retrieving image");
  Error last(ErrorKind::unavailable, "no address");
  for (auto& source : sources) {
    request["source"] = std::move(source);
    auto made = api.run("POST", app.url("/1.0/instances"), request, &progress);
    if (made || made.error().kind() == ErrorKind::cancelled) return made;
    last = std::move(made).error();
  }
  return fail(std::move(last));
}

/// Returns the new instance's name.
Result<std::string> create(App& app, const Args& args, bool launch) {
  VIRGA_TRY(auto names, names_of(app, args));
  VIRGA_TRY(auto document, piped_document());
  VIRGA_TRY(auto* api, app.api());
  const std::string doing = launch ? "Launching" : "Creating";
  app.note(names.instance.empty() ? doing + " the instance" : fmt::format("{} {}", doing, names.instance));

  VIRGA_TRY(auto request, instance_request(args, std::move(document), names.instance));
  json::object inherited;
  if (needs_profile_devices(args)) {
    VIRGA_TRY(inherited, profile_devices(app, *api, request));
  }
  VIRGA_CHECK(check_exists(app, *api, "/1.0/networks", "network", args.text("network")));
  VIRGA_CHECK(check_exists(app, *api, "/1.0/storage-pools", "storage pool", args.text("storage")));
  VIRGA_CHECK(apply_device_flags(request, args, inherited));
  std::vector<json::object> sources;
  if (args.has("empty")) {
    sources.push_back({{"type", "none"}});
  } else if (names.image_remote.empty()) {
    VIRGA_TRY(auto here, image_source(app, *api, names.image));
    sources.push_back(std::move(here));
  } else {
    VIRGA_TRY(sources, remote_sources(app, names.image_remote, names.image, text_of(request, "type") == "virtual-machine"));
  }
  VIRGA_TRY(auto operation, create_from(app, *api, std::move(request), std::move(sources)));
  std::string name = names.instance;
  if (name.empty()) {
    auto made = strings_of(object_of(operation, "resources"), "instances");
    if (made.empty()) return fail(ErrorKind::internal, "Failed to get the new instance name");
    name = client::name_in_url(made[0]);
    app.note(fmt::format("Instance name is: {}", name));
  }
  warn_without_network(app, *api, name);
  return name;
}

Result<> run_create(App& app, const Args& args) {
  VIRGA_CHECK(create(app, args, false));
  return {};
}

Result<> run_launch(App& app, const Args& args) {
  VIRGA_TRY(auto name, create(app, args, true));
  auto started = change_state(app, name, "start", -1, false);
  if (!started) return fail(with_log_hint(std::move(started).error(), name));
  return {};
}

}  // namespace

Command create_command() {
  return {.use = "create [<remote>:]<image> [<remote>:][<name>]",
          .summary = "Create instances from images",
          .aliases = {"init"},
          .examples =
              "virga create tiny c1\n\n"
              "virga create tiny c1 < config.yaml\n    Create the instance with configuration from config.yaml\n\n"
              "virga create tiny v1 --vm -d root,size=2GiB\n    Create a virtual machine with a larger disk",
          .flags = create_flags(),
          .most = 2,
          .run = [](App& app, const Args& args) -> Result<> {
            if (args.size() == 0 && !args.has("empty")) {
              VIRGA_TRY(auto path, find_command(app.root(), {"create"}));
              app.print(help_text(path));
              return {};
            }
            return run_create(app, args);
          },
          .own_remotes = true};
}

Command launch_command() {
  return {.use = "launch [<remote>:]<image> [<remote>:][<name>]",
          .summary = "Create and start instances from images",
          .examples =
              "virga launch tiny c1\n\n"
              "virga launch tiny c1 < config.yaml\n    Create and start a container with configuration from config.yaml\n\n"
              "virga launch tiny v1 --vm -c limits.cpu=4 -c limits.memory=4GiB\n    Create and start a virtual machine with 4 "
              "vCPUs and 4GiB of RAM\n\n"
              "virga launch tiny v2 --vm -d root,size=50GiB -n virgabr0 -s default\n    Create and start a virtual machine with a "
              "larger disk on a network and pool of choice",
          .flags = create_flags(),
          .most = 2,
          .run = [](App& app, const Args& args) -> Result<> {
            if (args.size() == 0 && !args.has("empty")) {
              VIRGA_TRY(auto path, find_command(app.root(), {"launch"}));
              app.print(help_text(path));
              return {};
            }
            return run_launch(app, args);
          },
          .own_remotes = true};
}

}  // namespace virga::cli
