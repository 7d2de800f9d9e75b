// Unpacking into a pool: once, however many instances want the image at the same time. The work is a task of its own, so that one
// instance whose creation is cancelled does not take it away from the others; when nobody waits any more, it stops.
#include <fmt/format.h>

#include "base/fault.h"
#include "base/log.h"
#include "drivers/storage/driver.h"
#include "engine/images/impl.h"

namespace virga::engine {

Task<Result<>> Images::ensure_unpacked(storage::Driver& pool, std::string fingerprint) {
  auto& impl = *impl_;
  auto* ops = pool.images();
  if (ops == nullptr) co_return fail(ErrorKind::unsupported, fmt::format("storage driver '{}' keeps no images", pool.info().name));
  const Impl::UnpackKey key{&pool, fingerprint};
  for (;;) {
    if (ops->path(fingerprint)) co_return Result<>();
    auto it = impl.unpacking.find(key);
    auto job = it == impl.unpacking.end() ? nullptr : it->second;
    if (!job) {
      if (impl.removing.contains(fingerprint)) co_return fail(ErrorKind::busy, "the image is being removed");
      job = impl.unpacking[key] = std::make_shared<Impl::Unpacking>(impl.executor);
      job->task = impl.tasks.spawn("unpack image " + fingerprint.substr(0, 12), impl.unpack(pool, fingerprint, job));
    }
    ++job->waiting;
    bool cancelled = false;
    while (!job->result && !cancelled) cancelled = !co_await job->done.wait();
    --job->waiting;
    if (job->result && !job->abandoned) co_return *job->result;
    if (cancelled) {
      if (job->waiting == 0 && !job->result) {
        job->abandoned = true;
        impl.tasks.cancel(job->task);
      }
      co_return fail(ErrorKind::cancelled, "cancelled while unpacking the image");
    }
    // The others had given up just before: begin again.
  }
}

Task<Result<image::Metadata>> Images::metadata_of(std::string fingerprint) {
  auto& impl = *impl_;
  const auto image = impl.any(fingerprint);
  if (!image) co_return fail(ErrorKind::not_found, fmt::format("no image '{}'", fingerprint));
  auto& files = impl.parts.files;
  VIRGA_CO_TRY(auto inspection, co_await impl.parts.reader.inspect(files.metadata_path(fingerprint),
                                                                   image->split ? files.rootfs_path(fingerprint) : std::string()));
  co_return std::move(inspection.metadata);
}

Task<> Images::Impl::unpack(storage::Driver& pool, std::string fingerprint, std::shared_ptr<Unpacking> job) {
  auto* ops = pool.images();
  auto done = co_await unpack_staged(*ops, fingerprint);
  if (!done) {
    co_await shield();
    if (auto r = co_await ops->discard_stage(fingerprint); !r) log::warn("discard a half unpacked image: {}", r.error().text());
    done = fail(std::move(done).error().wrap(fmt::format("unpack image '{}'", fingerprint.substr(0, 12))));
  }
  job->result = std::move(done);
  unpacking.erase({&pool, fingerprint});
  job->done.notify();
}

Task<Result<>> Images::Impl::unpack_staged(storage::ImageOps& ops, std::string fingerprint) {
  const auto image = any(fingerprint);
  if (!image) co_return fail(ErrorKind::not_found, fmt::format("no image '{}'", fingerprint));
  auto stage = co_await ops.stage(fingerprint);
  if (!stage) co_return fail(std::move(stage).error());
  VIRGA_CO_CHECK(fault_point("image-unpack.staged"));
  image::UnpackRequest request;
  request.metadata_file = parts.files.metadata_path(fingerprint);
  if (image->split) request.rootfs_file = parts.files.rootfs_path(fingerprint);
  request.into = *stage;
  request.limits = parts.limits;
  auto inspection = co_await parts.reader.unpack(std::move(request));
  if (!inspection) co_return fail(std::move(inspection).error());
  VIRGA_CO_CHECK(fault_point("image-unpack.unpacked"));
  const auto content = inspection->type == image::Type::container ? storage::ContentType::filesystem : storage::ContentType::block;
  auto published = co_await ops.publish(fingerprint, content);
  if (!published) co_return fail(std::move(published).error());
  VIRGA_CO_CHECK(fault_point("image-unpack.published"));
  co_return Result<>();
}

}  // namespace virga::engine
