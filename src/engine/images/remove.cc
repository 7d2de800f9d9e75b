// Deleting an image: its unpacked copies in the pools, its files, its aliases and document. Instances made from it stay: their pool
// keeps what they stand on.
#include <fmt/format.h>

#include "base/random.h"
#include "engine/images/impl.h"

namespace virga::engine {

Procedure Images::Impl::remove_procedure(std::string id, std::string project, std::string fingerprint) {
  Procedure p;
  p.kind = "image-delete";
  p.id = std::move(id);
  p.arguments = {{"project", project}, {"fingerprint", fingerprint}};
  p.on_recovery = OnRecovery::finish;
  auto volumes = [this, project, fingerprint]() -> Task<Result<>> {
    if (shared(project, fingerprint)) co_return Result<>();
    for (auto* pool : parts.pools()) {
      if (pool->images() == nullptr) continue;
      storage::VolumeId volume{.kind = storage::VolumeKind::image, .project = {}, .name = fingerprint};
      VIRGA_CO_CHECK(co_await pool->remove(std::move(volume)));
    }
    co_return Result<>();
  };
  auto files = [this, project, fingerprint]() -> Task<Result<>> {
    if (shared(project, fingerprint)) co_return Result<>();
    co_return co_await parts.files.remove(fingerprint);
  };
  p.steps.push_back({.name = "pools", .run = std::move(volumes), .undo = {}});
  p.steps.push_back({.name = "files", .run = std::move(files), .undo = {}});
  p.outcome = [this, project, fingerprint]() -> Result<Transaction> {
    Transaction t;
    t.erase(key(project, fingerprint));
    for (const auto& a : aliases.list("/image-aliases/" + project + "/"))
      if (a->target == fingerprint) t.erase(alias_key(a->project, a->type, a->name));
    return t;
  };
  return p;
}

Task<Result<>> Images::Impl::remove_now(Operation& operation, Ptr image) {
  const auto resource = image_url(image->project, image->fingerprint);
  VIRGA_CO_TRY(auto claim, parts.operations.claim(resource, operation));
  if (!this->image(image->project, image->fingerprint))
    co_return fail(ErrorKind::not_found, fmt::format("no image '{}'", image->fingerprint));
  for (const auto& [where, job] : unpacking)
    if (where.second == image->fingerprint) co_return fail(ErrorKind::busy, "the image is being unpacked for an instance");
  if (importing.contains(image->fingerprint))
    co_return fail(ErrorKind::busy, "the same image is being imported into another project");
  if (!removing.insert(image->fingerprint).second)
    co_return fail(ErrorKind::busy, "the same image is being removed in another project");
  // Not named after the operation: a refresh imports under that name.
  auto done = co_await parts.journal.execute(remove_procedure(random_uuid(), image->project, image->fingerprint));
  removing.erase(image->fingerprint);
  if (!done) co_return fail(std::move(done).error());
  parts.events.lifecycle("image-deleted", image->project, resource, operation.spec().caller);
  co_return Result<>();
}

Result<OperationPtr> Images::remove(const Caller& caller, const std::string& project, std::string_view fingerprint) {
  VIRGA_TRY(auto image, find(project, fingerprint));
  const auto resource = image_url(image->project, image->fingerprint);
  OperationSpec spec;
  spec.project = image->project;
  spec.description = "Deleting image";
  spec.resources = {{"images", {resource}}};
  spec.caller = caller;
  auto body = [impl = impl_.get(), image](Operation& operation) { return impl->remove_now(operation, image); };
  return impl_->parts.operations.start(std::move(spec), std::move(body));
}

}  // namespace virga::engine
