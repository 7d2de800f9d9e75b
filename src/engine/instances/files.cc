// The files of a guest: a stream that speaks SFTP, from the guest's own kernel or namespaces while it runs. The root of a container
// that does not run is attached for the moment in which the serving process takes a mount of its own.
#include <fmt/format.h>

#include <iterator>

#include "base/random.h"
#include "engine/instances/impl.h"
#include "engine/pools/service.h"

namespace virga::engine {
namespace {

/// Each session is a process on the host, or a program in the guest that may answer what it likes: an instance has so many at once.
constexpr std::size_t most_readers = 32;

/// A session that its instance may end, whoever holds it; counted as long as it lives.
class EndableStream final : public ByteStream {
 public:
  EndableStream(std::shared_ptr<ByteStream> stream, std::shared_ptr<int> counted)
      : stream_(std::move(stream)), counted_(std::move(counted)) {}
  Task<Result<std::string>> read() override { return stream_->read(); }
  Task<Result<>> write(std::string bytes) override { return stream_->write(std::move(bytes)); }
  void abort() noexcept override { stream_->abort(); }

 private:
  std::shared_ptr<ByteStream> stream_;
  std::shared_ptr<int> counted_;
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

/// Counted from the request on: what is being opened costs as much as what is open. Errors: busy.
Result<std::shared_ptr<int>> Instances::Impl::admit_file_reader(const Instance& instance) {
  if (file_readers.size() > 1024) std::erase_if(file_readers, [](const auto& entry) { return entry.second.expired(); });
  auto [from, to] = file_readers.equal_range(instance.uuid);
  std::size_t open = 0;
  while (from != to) {
    const bool gone = from->second.expired();
    open += gone ? 0 : 1;
    from = gone ? file_readers.erase(from) : std::next(from);
  }
  if (open >= most_readers)
    return fail(Error(ErrorKind::busy, fmt::format("{} clients are at the files of instance '{}' already", open, instance.name))
                    .with_hint("wait for some to end and try again"));
  auto counted = std::make_shared<int>();
  file_readers.emplace(instance.uuid, counted);
  return counted;
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
  VIRGA_CO_TRY(auto counted, self->admit_file_reader(*instance));
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
      co_return std::make_unique<EndableStream>(std::move(stream), std::move(counted));
    }
  }
  VIRGA_CO_TRY(std::shared_ptr<ByteStream> stream, co_await self->driver(instance->type).files()->open_files(instance->uuid));
  co_return std::make_unique<EndableStream>(std::move(stream), std::move(counted));
}

void Instances::file_event(const Caller& caller, const Instance& instance, const std::string& action, const std::string& path) {
  impl_->lifecycle("instance-file-" + action, instance, caller, {{"path", path}});
}

}  // namespace virga::engine
