// A storage driver in memory, for engine tests and benchmarks. It obeys the contract, can be told to fail, and mounts nothing.
#pragma once

#include <map>
#include <set>
#include <string>
#include <vector>

#include "drivers/storage/driver.h"

namespace virga::storage {

class FakeDriver final : public Driver, public ImageOps, public CloneOps, public CopyOps, private SnapshotOps {
 public:
  /// Paths in answers are below `root`. Where it names a directory that exists, stage() makes real directories in it.
  explicit FakeDriver(std::string root = "/nonexistent/pool") : root_(std::move(root)) {}

  /// The next call of that name ("create", "attach", "publish", ...) fails with this error, once.
  void fail_next(std::string call, Error error) { failures_.insert_or_assign(std::move(call), std::move(error)); }
  bool attached(const VolumeId& id) const { return attached_.contains(id); }
  const std::vector<std::string>& calls() const noexcept { return calls_; }

  const DriverInfo& info() const noexcept override { return info_; }
  ImageOps* images() noexcept override { return this; }
  CloneOps* clones() noexcept override { return this; }
  SnapshotOps* snapshots() noexcept override { return this; }
  CopyOps* copies() noexcept override { return this; }

  Task<Result<>> open() override;
  Task<Result<>> destroy() override;
  Task<Result<>> create(VolumeSpec spec) override;
  Task<Result<>> remove(VolumeId id) override;
  Task<Result<>> rename(VolumeId from, VolumeId to) override;
  Task<Result<std::vector<VolumeInfo>>> list() override;
  Task<Result<Attachment>> attach(VolumeId id, std::optional<IdShift> shift) override;
  Task<Result<>> detach(VolumeId id) override;
  Task<Result<Usage>> usage(VolumeId id) override;
  Task<Result<Usage>> pool_usage() override;

  Task<Result<std::string>> stage(std::string fingerprint) override;
  Task<Result<>> publish(std::string fingerprint, ContentType content) override;
  Task<Result<>> discard_stage(std::string fingerprint) override;
  Result<std::string> path(const std::string& fingerprint) const override;
  Task<Result<>> from_image(VolumeSpec spec, std::string fingerprint) override;
  Task<Result<>> copy(VolumeSpec spec, CopySource from, std::optional<IdShift> shift,
                      std::shared_ptr<TransferControl> control) override;
  Task<Result<>> refresh(VolumeSpec spec, CopySource from, std::optional<IdShift> shift,
                         std::shared_ptr<TransferControl> control) override;

  Task<Result<>> create(VolumeId id, std::string snapshot) override;
  Task<Result<>> remove(VolumeId id, std::string snapshot) override;
  Task<Result<>> rename(VolumeId id, std::string from, std::string to) override;
  Task<Result<>> restore(VolumeId id, std::string snapshot) override;
  Task<Result<std::vector<std::string>>> list(VolumeId id) override;
  Task<Result<Attachment>> attach(VolumeId id, std::string snapshot, std::optional<IdShift> shift) override;
  Task<Result<>> detach(VolumeId id, std::string snapshot) override;
  Task<Result<Usage>> usage(VolumeId id, std::string snapshot) override;

 private:
  struct Volume {
    ContentType content = ContentType::filesystem;
    std::optional<Bytes> size;
    std::string image;
    std::set<std::string> snapshots = {};
    bool same_as(const Volume& other) const { return content == other.content && size == other.size && image == other.image; }
  };
  Result<Volume*> enter_snapshot(const std::string& call, const VolumeId& id, const std::string& snapshot);
  struct Image {
    ContentType content = ContentType::filesystem;
    bool deleted = false;
  };
  Result<> enter(const std::string& call, const VolumeId& id);
  Result<> make(const VolumeSpec& spec, std::string image);
  void reap();

  const DriverInfo info_{.name = "fake", .version = "1", .remote = false};
  std::string root_;
  std::map<VolumeId, Volume> volumes_;
  std::map<VolumeId, std::uint32_t> attached_;  // to the base of the shift
  std::set<std::pair<VolumeId, std::string>> attached_snapshots_;
  std::map<std::string, Image> images_;
  std::set<std::string> stages_;
  std::map<std::string, Error> failures_;
  std::vector<std::string> calls_;
};

}  // namespace virga::storage
