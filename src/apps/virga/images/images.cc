// image: show, edit, delete and properties; the longer verbs have files of their own.
#include "apps/virga/images/images.h"

#include <fmt/format.h>

#include "apps/virga/commands.h"
#include "apps/virga/document.h"
#include "apps/virga/images/servers.h"
#include "apps/virga/resource.h"
#include "apps/virga/values.h"

namespace virga::cli {
namespace {

const Resource& image_resource() {
  static const Resource resource{.noun = "image",
                                 .word = "image",
                                 .group = "image",
                                 .base = "/1.0/images",
                                 .editable = {"auto_update", "properties", "public", "expires_at", "profiles"},
                                 .shown = {"auto_update", "properties", "public", "expires_at", "profiles"}};
  return resource;
}

Result<json::object> image(App& app, const Args& args) {
  VIRGA_TRY(auto name, local_name(args[0]));
  return find_image(app, name, args.has("vm"));
}

Result<> show(App& app, const Args& args) {
  VIRGA_TRY(auto object, image(app, args));
  app.print(as_yaml(editable_part(image_resource(), object)));
  return {};
}

Result<> edit(App& app, const Args& args) {
  VIRGA_TRY(auto object, image(app, args));
  VIRGA_TRY(auto* api, app.api());
  const auto url = image_resource().url(app, text_of(object, "fingerprint"));
  return edit_document(app, editable_part(image_resource(), object),
                       "This is a YAML representation of the image properties.\nLines that begin with '#' are ignored.",
                       [&](json::object document) -> Result<> {
                         VIRGA_CHECK(api->send("PUT", url, editable_part(image_resource(), document)));
                         return {};
                       });
}

struct OfAlias {
  std::string container, vm;  ///< fingerprints; empty: there is none
};

OfAlias images_of_alias(const json::array& aliases, std::string_view name) {
  OfAlias out;
  for (const auto& alias : objects_of(aliases))
    if (text_of(alias, "name") == name)
      (text_of(alias, "type") == "virtual-machine" ? out.vm : out.container) = text_of(alias, "target");
  return out;
}

Result<> remove(App& app, const Args& args) {
  VIRGA_TRY(auto* api, app.api());
  VIRGA_TRY(auto aliases, api->array(app.url("/1.0/images/aliases").query("recursion", "1")));
  for (const auto& word : args.words) {
    VIRGA_TRY(auto name, local_name(word));
    const auto of = images_of_alias(aliases, name);
    if (!of.container.empty() && !of.vm.empty() && !args.has("vm"))
      return fail(Error(ErrorKind::invalid, fmt::format("'{}' names two images, one of each kind", name))
                      .with_hint(fmt::format("virga image delete {}/container, or {}/vm, or both", name, name)));
    VIRGA_TRY(auto fingerprint, resolve_image(app, name, args.has("vm")));
    VIRGA_CHECK(api->run("DELETE", image_resource().url(app, fingerprint)));
  }
  return {};
}

Result<> refresh(App& app, const Args& args) {
  VIRGA_TRY(auto* api, app.api());
  for (const auto& word : args.words) {
    VIRGA_TRY(auto name, local_name(word));
    VIRGA_TRY(auto fingerprint, resolve_image(app, name, args.has("vm")));
    auto progress = app.progress("Refreshing the image");
    VIRGA_TRY(auto operation, api->run("POST", image_resource().url(app, fingerprint).segment("refresh"), {}, &progress));
    const bool newer = boolean_of(object_of(operation, "metadata"), "refreshed");
    app.note(newer ? "Image refreshed successfully!" : "Image already up to date.");
  }
  return {};
}

Result<> get_property(App& app, const Args& args) {
  VIRGA_TRY(auto object, image(app, args));
  const auto* value = object_of(object, "properties").if_contains(args[1]);
  if (value == nullptr || !value->is_string()) return fail(ErrorKind::not_found, "Property not found");
  app.print(std::string(value->get_string()) + "\n");
  return {};
}

Result<> change_properties(App& app, const Args& args, const std::function<Result<>(json::object&)>& change) {
  VIRGA_TRY(auto object, image(app, args));
  return update(app, image_resource(), text_of(object, "fingerprint"),
                [&](json::object& editable) { return change(map_in(editable, "properties")); });
}

Result<> set_property_of(App& app, const Args& args) {
  return change_properties(app, args, [&](json::object& properties) -> Result<> {
    properties[args[1]] = args[2];
    return {};
  });
}

Result<> unset_property_of(App& app, const Args& args) {
  return change_properties(app, args, [&](json::object& properties) -> Result<> {
    if (properties.erase(args[1]) == 0) return fail(ErrorKind::not_found, "Property not found");
    return {};
  });
}

Flag vm_flag() {
  return {"vm", 0, Flag::boolean, "Query virtual machine images"};
}

}  // namespace

Result<std::string> resolve_image(App& app, const std::string& name, bool vm) {
  VIRGA_TRY(auto* api, app.api());
  VIRGA_TRY(auto aliases, api->array(app.url("/1.0/images/aliases").query("recursion", "1")));
  const auto of = images_of_alias(aliases, name);
  if (!of.container.empty() || !of.vm.empty()) return (vm && !of.vm.empty()) || of.container.empty() ? of.vm : of.container;
  // One kind of a name that has both, as the server reads it.
  const auto slash = name.rfind('/');
  const auto kind = slash == std::string::npos ? std::string() : name.substr(slash + 1);
  if (kind != "vm" && kind != "container") return name;
  const auto base = images_of_alias(aliases, name.substr(0, slash));
  const auto& target = kind == "vm" ? base.vm : base.container;
  return target.empty() ? name : target;
}

Result<json::object> find_image(App& app, const std::string& name, bool vm) {
  VIRGA_TRY(const bool published, publishes_images(app, app.remote()));
  if (published) return published_image(app, app.remote(), name, vm);
  VIRGA_TRY(auto fingerprint, resolve_image(app, name, vm));
  VIRGA_TRY(auto* api, app.api());
  return api->object(image_resource().url(app, fingerprint));
}

Command image_command() {
  Command group{
      .use = "image",
      .summary = "Manage images",
      .description =
          "Instances are created from images.\n\n"
          "The image unique identifier is the hash (sha-256) of its representation\n"
          "as a compressed tarball (or for split images, the concatenation of the\n"
          "metadata and rootfs tarballs).\n\n"
          "Images can be referenced by their full hash, shortest unique partial\n"
          "hash or alias name (if one is set).",
      .examples =
          "virga image build tiny\n    Make a small image from packages of this machine, for containers and virtual machines\n\n"
          "virga image import debian.tar.xz --alias debian"};
  group.children = {
      image_copy_command(),
      image_list_command(),
      image_info_command(),
      image_import_command(),
      image_export_command(),
      image_build_command(),
      image_alias_command(),
      {.use = "show [<remote>:]<image>",
       .summary = "Show image properties",
       .flags = {vm_flag()},
       .least = 1,
       .most = 1,
       .run = show},
      {.use = "edit [<remote>:]<image>",
       .summary = "Edit image properties",
       .examples = "virga image edit <image>\n    Launch a text editor to edit the properties\n\nvirga image edit <image> < "
                   "image.yaml\n    Load the image properties from a YAML file",
       .flags = {vm_flag()},
       .least = 1,
       .most = 1,
       .run = edit},
      {.use = "delete [<remote>:]<image> [[<remote>:]<image>...]",
       .summary = "Delete images",
       .aliases = {"rm"},
       .flags = {vm_flag()},
       .least = 1,
       .most = any_number,
       .run = remove},
      {.use = "refresh [<remote>:]<image> [[<remote>:]<image>...]",
       .summary = "Refresh images",
       .description = "Asks the server that an image was fetched from for a newer one, which takes its place and its aliases.",
       .examples = "virga image refresh debian/12",
       .flags = {vm_flag()},
       .least = 1,
       .most = any_number,
       .run = refresh},
      {.use = "get-property [<remote>:]<image> <key>",
       .summary = "Get image properties",
       .flags = {vm_flag()},
       .least = 2,
       .most = 2,
       .run = get_property},
      {.use = "set-property [<remote>:]<image> <key> <value>",
       .summary = "Set image properties",
       .flags = {vm_flag()},
       .least = 3,
       .most = 3,
       .run = set_property_of},
      {.use = "unset-property [<remote>:]<image> <key>",
       .summary = "Unset image properties",
       .flags = {vm_flag()},
       .least = 2,
       .most = 2,
       .run = unset_property_of},
  };
  return group;
}

}  // namespace virga::cli
