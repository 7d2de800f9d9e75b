// Templates of files, rendered into the root of a container each time it starts: those of the start, and before them those of what
// happened to it since (volatile.apply_template: create, copy, rename).
#include <fmt/format.h>

#include <algorithm>

#include "base/log.h"
#include "engine/instances/impl.h"
#include "engine/instances/metadata_document.h"
#include "engine/templates/render.h"

namespace virga::engine {
namespace {

using templates::Context;
using templates::List;
using templates::Map;
using templates::Value;

Context context_of(const Instance& instance, const std::string& trigger) {
  Context out;
  const Value about = Map{{"name", instance.name},
                          {"architecture", instance.architecture},
                          {"type", std::string(to_string(instance.type))},
                          {"ephemeral", instance.ephemeral},
                          {"privileged", false}};
  Map devices;
  for (const auto& [name, device] : instance.expanded_devices) devices.emplace(name, Value::map_of(device));
  out.variables["instance"] = about;
  out.variables["container"] = about;  // as images from before virtual machines call it
  out.variables["trigger"] = trigger;
  out.variables["config"] = Value::map_of(instance.expanded_config);
  out.variables["devices"] = std::move(devices);
  out.functions["config_get"] = [config = instance.expanded_config](const List& arguments) -> Value {
    if (arguments.empty()) return {};
    auto found = config.find(arguments[0].text());
    if (found != config.end()) return Value(found->second);
    return arguments.size() > 1 ? arguments[1] : Value();
  };
  return out;
}

Result<compute::NewFile> render_one(const InstanceMetadata& metadata, const std::string& path, const image::Template& one,
                                    Context& context) {
  auto source = metadata.files.find(one.template_file);
  if (source == metadata.files.end())
    return fail(ErrorKind::not_found, fmt::format("there is no template '{}'", one.template_file));
  context.variables["path"] = path;
  context.variables["properties"] = Value::map_of(one.properties);
  auto text = templates::render(source->second, context);
  if (!text) return fail(std::move(text).error().wrap(fmt::format("template '{}'", one.template_file)));
  VIRGA_TRY(const auto permissions, permissions_of(one));
  compute::NewFile file;
  file.path = path.front() == '/' ? path : "/" + path;
  file.text = std::move(*text);
  file.uid = permissions.uid;
  file.gid = permissions.gid;
  file.mode = permissions.mode;
  file.only_if_missing = one.create_only;
  return file;
}

Result<std::vector<compute::NewFile>> render_all(const Instance& instance, const std::vector<std::string>& triggers,
                                                 const InstanceMetadata& metadata) {
  std::vector<compute::NewFile> files;
  for (const auto& now : triggers) {
    auto context = context_of(instance, now);
    for (const auto& [path, one] : metadata.image.templates) {
      if (std::find(one.when.begin(), one.when.end(), now) == one.when.end()) continue;
      VIRGA_TRY(auto file, render_one(metadata, path, one, context));
      files.push_back(std::move(file));
    }
  }
  return files;
}

}  // namespace

Task<Result<>> Instances::Impl::apply_templates(Ptr instance, std::string trigger, std::string root) {
  VIRGA_CO_TRY(auto document, co_await parts.store.get(metadata_key(instance->uuid)));
  if (!document) co_return Result<>{};
  VIRGA_CO_TRY(auto object, parse_json_object(document->value));
  VIRGA_CO_TRY(auto metadata, decode_metadata(object));
  std::vector<std::string> triggers;
  if (!trigger.empty()) triggers.push_back(trigger);
  triggers.emplace_back("start");
  // Not on the event loop: however little each step takes, an image brings the templates and there may be many.
  auto work = [&] { return render_all(*instance, triggers, metadata); };
  if (!rendering) rendering = std::make_unique<BlockingPool>("templates", 2);
  VIRGA_CO_TRY(auto files, co_await rendering->run(work));
  if (files.empty()) co_return Result<>{};
  auto* ops = driver(instance->type).files();
  if (ops == nullptr) co_return fail(ErrorKind::unsupported, "templates cannot be written into this kind of instance");
  co_return co_await ops->write_files(std::move(root), {instance->id_base, ids_per_guest}, std::move(files));
}

}  // namespace virga::engine
