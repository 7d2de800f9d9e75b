// Templates of files, rendered into the root of an instance each time it starts: those of the start, and before them those of what
// happened to it since (volatile.apply_template: create, copy, rename). A container gets them before its first program runs, a
// virtual machine as soon as its agent answers (volatile.templates.due until then).
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

Task<Result<std::vector<compute::NewFile>>> Instances::Impl::render_templates(Ptr instance) {
  VIRGA_CO_TRY(auto metadata, co_await kept_metadata(instance->uuid));
  if (!metadata) co_return std::vector<compute::NewFile>();
  std::vector<std::string> triggers;
  if (auto happened = instance->config.find("volatile.apply_template"); happened != instance->config.end())
    triggers.push_back(happened->second);
  triggers.emplace_back("start");
  // Not on the event loop: however little each step takes, an image brings the templates and there may be many.
  auto work = [&] { return render_all(*instance, triggers, *metadata); };
  if (!rendering) rendering = std::make_unique<BlockingPool>("templates", 2);
  co_return co_await rendering->run(work);
}

Task<Result<>> Instances::Impl::apply_templates(Ptr instance, std::string root) {
  VIRGA_CO_TRY(auto files, co_await render_templates(instance));
  if (files.empty()) co_return Result<>{};
  auto* ops = driver(instance->type).files();
  if (ops == nullptr) co_return fail(ErrorKind::unsupported, "templates cannot be written into this kind of instance");
  co_return co_await ops->write_files(std::move(root), {instance->id_base, ids_per_guest}, std::move(files));
}

// --- virtual machines: their agent writes the files, so that they come when it does

namespace {

constexpr Milliseconds first_pause{1'000}, longest_pause{60'000}, claim_patience{30'000};

bool gives_up(const Error& error) {
  return error.kind() != ErrorKind::unavailable && error.kind() != ErrorKind::timeout && error.kind() != ErrorKind::busy;
}

}  // namespace

Task<> Instances::Impl::deliver_templates(std::string uuid) {
  for (auto pause = first_pause;; pause = std::min(pause * 2, longest_pause)) {
    const auto key = by_uuid.find(uuid);
    if (key == by_uuid.end()) co_return;
    auto instance = get(key->second.first, key->second.second);
    if (!instance || !templates_due(**instance) || live_status(**instance) == InstanceStatus::stopped) co_return;
    auto done = co_await deliver_templates_now(*instance);
    if (done) co_return;
    if (stopping || co_await is_cancelled()) co_return;
    if (gives_up(done.error())) {
      log::error("instance '{}': its templates cannot be written: {}", (*instance)->name, done.error().text());
      co_return;
    }
    if (!co_await sleep_for(pause)) co_return;
  }
}

Task<Result<>> Instances::Impl::deliver_templates_now(Ptr instance) {
  VIRGA_CO_TRY(auto files, co_await render_templates(instance));
  VIRGA_CO_CHECK(co_await driver(instance->type).files()->write_running(instance->uuid, std::move(files)));
  auto claim = co_await parts.operations.claim_when_free(instance_url(instance->project, instance->name), "Writing its templates",
                                                         claim_patience);
  if (!claim) co_return fail(std::move(claim).error());
  VIRGA_CO_TRY(auto current, get(instance->project, instance->name));
  if (current->uuid != instance->uuid) co_return Result<>{};
  Instance changed = *current;
  for (const char* key : {"volatile.templates.due", "volatile.apply_template"}) {
    changed.config.erase(key);
    changed.expanded_config.erase(key);
  }
  Transaction t;
  t.put(document_key(changed.project, changed.name), json::serialize(encode(changed)));
  auto written = co_await parts.store.commit(std::move(t));
  if (!written) co_return fail(std::move(written).error());
  put(std::move(changed));
  co_return Result<>{};
}

bool templates_due(const Instance& instance) {
  return instance.config.contains("volatile.templates.due");
}

}  // namespace virga::engine
