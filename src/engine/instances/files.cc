// The files of a guest: a stream that speaks SFTP, from the guest's own kernel or namespaces while it runs. The root of a container
// that does not run is attached for the moment in which the serving process takes a mount of its own.
#include <fmt/format.h>

#include "base/random.h"
#include "engine/instances/impl.h"
#include "engine/pools/service.h"

namespace virga::engine {
namespace {

/// A session that its instance may end, whoever holds it.
class EndableStream final : public ByteStream {
 public:
  explicit EndableStream(std::shared_ptr<ByteStream> stream) : stream_(std::move(stream)) {}
  Task<Result<std::string>> read() override { return stream_->read(); }
  Task<Result<>> write(std::string bytes) override { return stream_->write(std::move(bytes)); }
  void abort() noexcept override { stream_->abort(); }

 private:
  std::shared_ptr<ByteStream> stream_;
};

bool lives(InstanceStatus status) {
  return status == InstanceStatus::running || status == InstanceStatus::frozen;
}

}  // namespace

Procedure Instances::Impl::files_procedure(std::string id, Ptr instance, std::shared_ptr<ByteStream>* opened) {
  auto mounted = std::make_shared<std::string>();
  Procedure p;
  p.kind = "instance-files";
  p.id = std::move(id);
  p.arguments = {{"uuid", instance->uuid}};
  p.on_recovery = OnRecovery::undo;
  p.steps.push_back({"root",
                     [this, instance, mounted]() -> Task<Result<>> {
                       VIRGA_CO_TRY(auto* storage, storage_of(*instance));
                       const storage::IdShift shift{instance->id_base, ids_per_guest};
                       VIRGA_CO_TRY(auto attached, co_await storage->attach(volume_id(*instance), shift));
                       *mounted = attached.path;
                       co_return Result<>{};
                     },
                     [this, instance] { return detach_root(instance); }});
  p.steps.push_back({"serve",
                     [this, instance, mounted, opened]() -> Task<Result<>> {
                       auto* files = driver(instance->type).files();
                       VIRGA_CO_TRY(auto stream, co_await files->open_root(*mounted, {instance->id_base, ids_per_guest}));
                       *opened = std::move(stream);
                       co_return Result<>{};
                     },
                     {}});
  p.steps.push_back({"detach", [this, instance] { return detach_root(instance); }, {}});
  return p;
}

Task<Result<std::shared_ptr<ByteStream>>> Instances::Impl::open_stopped(Ptr instance) {
  std::shared_ptr<ByteStream> stream;
  if (instance->type != InstanceType::container) {
    // Says why it cannot, in the driver's words.
    VIRGA_CO_TRY(stream, co_await driver(instance->type).files()->open_root({}, {}));
    co_return stream;
  }
  VIRGA_CO_CHECK(co_await parts.journal.execute(files_procedure(random_uuid(), instance, &stream)));
  std::erase_if(file_sessions, [](const auto& entry) { return entry.second.expired(); });
  file_sessions.emplace(instance->uuid, stream);
  co_return stream;
}

void Instances::Impl::end_file_sessions(const std::string& uuid) {
  const auto [from, to] = file_sessions.equal_range(uuid);
  for (auto it = from; it != to; ++it)
    if (auto stream = it->second.lock()) stream->abort();
  file_sessions.erase(from, to);
}

Task<Result<std::unique_ptr<ByteStream>>> Instances::open_files(std::string project, std::string name) {
  auto* self = impl_.get();
  VIRGA_CO_TRY(auto instance, self->get(project, name));
  if (self->driver(instance->type).files() == nullptr)
    co_return fail(ErrorKind::unsupported, fmt::format("the files of instance '{}' cannot be reached", name));
  if (!lives(instance->status)) {
    // Whoever changes the instance now decides what its root is: wait, and look again.
    auto claim =
        co_await self->parts.operations.claim_when_free(instance_url(project, name), "Reaching its files", Milliseconds(30'000));
    if (!claim) co_return fail(std::move(claim).error());
    VIRGA_CO_TRY(instance, self->get(project, name));
    if (!lives(instance->status)) {
      if (instance->status == InstanceStatus::error)
        co_return fail(ErrorKind::unavailable, fmt::format("instance '{}' is in an error state", name));
      VIRGA_CO_TRY(auto stream, co_await self->open_stopped(instance));
      co_return std::make_unique<EndableStream>(std::move(stream));
    }
  }
  co_return co_await self->driver(instance->type).files()->open_files(instance->uuid);
}

void Instances::file_event(const Caller& caller, const Instance& instance, const std::string& action, const std::string& path) {
  impl_->lifecycle("instance-file-" + action, instance, caller, {{"path", path}});
}

}  // namespace virga::engine
