// Making an image of a stopped instance or of a snapshot: its root is shown, packed by a confined worker into the images'
// directory, and imported from there as if it had been uploaded.
#include "engine/instances/publish.h"

#include <fmt/format.h>

#include "base/log.h"
#include "drivers/image/packer.h"
#include "engine/instances/impl.h"
#include "engine/instances/metadata_document.h"

namespace virga::engine {

/// One packing under way.
struct Packing {
  image::PackRequest request;
  std::function<void(Bytes)> progress;
};

namespace {

/// `kept`: where the instance has metadata of its own.
image::Metadata metadata_of(const Instance& instance, const PublishInstance& request, WallTime now, const InstanceMetadata* kept) {
  image::Metadata m;
  if (kept != nullptr) {
    m.templates = kept->image.templates;
    m.properties = kept->image.properties;
  }
  m.architecture = instance.architecture;
  m.creation_date = std::chrono::system_clock::to_time_t(now);
  if (request.image.expires_at && *request.image.expires_at != WallTime{})
    m.expiry_date = std::chrono::system_clock::to_time_t(*request.image.expires_at);
  if (request.properties) {
    m.properties = *request.properties;
    return m;
  }
  if (kept != nullptr) return m;
  constexpr std::string_view prefix = "image.";
  for (const auto& [key, value] : instance.config)
    if (key.starts_with(prefix)) m.properties[key.substr(prefix.size())] = value;
  return m;
}

/// "Image pack: 512.00MiB": as clients show it.
json::value progress_text(Bytes read) {
  return json::string(fmt::format("Image pack: {}", format_bytes(read)));
}

}  // namespace

Procedure Instances::Impl::publish_procedure(std::string id, Ptr instance, std::string snapshot, std::shared_ptr<Packing> packing) {
  Procedure p;
  p.kind = "instance-publish";
  p.id = std::move(id);
  p.arguments = {{"uuid", instance->uuid}, {"snapshot", snapshot}};
  p.on_recovery = OnRecovery::undo;  // what was packed is removed with all uploads when the daemon starts
  auto detach = [this, instance, snapshot]() -> Task<Result<>> {
    if (!snapshot.empty()) {
      VIRGA_CO_TRY(auto* ops, snapshot_ops(*instance));
      co_return co_await ops->detach(volume_id(*instance), snapshot);
    }
    if (live_status(*instance) != InstanceStatus::stopped) co_return Result<>{};  // recovery: it was started since
    co_return co_await detach_root(instance);
  };
  auto attach = [this, instance, snapshot]() -> Task<Result<storage::Attachment>> {
    VIRGA_CO_TRY(auto* storage, storage_of(*instance));
    if (snapshot.empty()) co_return co_await storage->attach(volume_id(*instance), id_shift(*instance));
    VIRGA_CO_TRY(auto* ops, snapshot_ops(*instance));
    co_return co_await ops->attach(volume_id(*instance), snapshot, id_shift(*instance));
  };
  auto pack = [this, instance, attach, packing]() -> Task<Result<>> {
    auto attached = co_await attach();
    if (!attached) co_return fail(std::move(attached).error().wrap("attach the root volume"));
    co_return co_await pack_root(instance, std::move(*attached), packing->request, packing->progress, "published");
  };
  p.steps.push_back({"pack", std::move(pack), detach});
  p.steps.push_back({"detach", detach, {}});
  p.outcome = []() -> Result<Transaction> { return Transaction{}; };
  return p;
}

Task<Result<>> Instances::Impl::publish(Operation& operation, std::string project, std::string name, PublishInstance request) {
  VIRGA_CO_TRY(auto instance, get(project, name));
  Instance described = *instance;
  if (!request.snapshot.empty()) {
    VIRGA_CO_TRY(auto snapshot, snapshot_of(*instance, request.snapshot));
    described = snapshot->instance;
  } else if (instance->status != InstanceStatus::stopped)
    co_return fail(ErrorKind::busy, fmt::format("instance '{}' has been started meanwhile", name));
  operation.set_may_cancel(true);
  auto packing = std::make_shared<Packing>();
  // A snapshot has kept its own.
  VIRGA_CO_TRY(auto kept,
               co_await kept_metadata(request.snapshot.empty() ? instance->uuid : instance->uuid + "/" + request.snapshot));
  packing->request.metadata = metadata_of(described, request, parts.clock.now(), kept ? &*kept : nullptr);
  if (kept) packing->request.templates = std::move(kept->files);
  VIRGA_CO_TRY(packing->request.compression, image::parse_compression(request.compression));
  packing->request.into = parts.images.new_upload_path();
  packing->request.scratch = parts.images.new_upload_path();
  packing->request.limits.timeout = std::chrono::hours(4);
  packing->progress = [&operation](Bytes read) {
    operation.set_progress("create_image_from_container_pack_progress", progress_text(read));
  };
  auto packed = co_await parts.journal.execute(publish_procedure(operation.id(), instance, request.snapshot, packing));
  const bool cancelled = co_await is_cancelled();
  co_await parts.images.discard_upload(packing->request.scratch);
  if (packed && cancelled) packed = fail(ErrorKind::cancelled, "cancelled");
  if (!packed) {
    co_await parts.images.discard_upload(packing->request.into);
    co_return fail(std::move(packed).error().wrap(fmt::format("publish instance '{}'", name)));
  }
  auto image = std::move(request.image);
  image.metadata_file = packing->request.into;
  co_return co_await parts.images.import_within(operation, std::move(image));
}

Result<OperationPtr> Instances::publish(const Caller& caller, const std::string& project, const std::string& name,
                                        PublishInstance request) {
  VIRGA_TRY(auto instance, impl_->get(project, name));
  if (request.compression.empty()) request.compression = impl_->parts.images.default_compression();
  VIRGA_CHECK(image::parse_compression(request.compression));
  VIRGA_CHECK(impl_->parts.images.packer());
  VIRGA_CHECK(impl_->parts.images.check_import(request.image));
  Image wanted;
  if (request.properties) wanted.properties = *request.properties;
  VIRGA_CHECK(check(wanted));
  if (!request.snapshot.empty()) {
    VIRGA_CHECK(impl_->snapshot_of(*instance, request.snapshot));
  } else if (instance->status != InstanceStatus::stopped)
    return fail(Error(ErrorKind::invalid, fmt::format("instance '{}' is running", name))
                    .with_hint("stop it first; 'publish --force' does so and starts it again"));
  auto* self = impl_.get();
  auto body = [self, project, name, request = std::move(request)](Operation& o) {
    return self->publish(o, project, name, request);
  };
  return self->operate(caller, project, name, "Publishing instance", std::move(body));
}

}  // namespace virga::engine
