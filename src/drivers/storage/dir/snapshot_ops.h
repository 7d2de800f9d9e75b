// Snapshots of a pool of driver `dir`, as the engine asks for them.
#pragma once

#include <string>

#include "base/task.h"
#include "drivers/storage/dir/layout.h"
#include "drivers/storage/dir/long_work.h"
#include "drivers/storage/driver.h"

namespace virga::storage::dir {

class Snapshots final : public SnapshotOps {
 public:
  Snapshots(const Layout& layout, BlockingPool& pool, LongWork& long_work, std::string worker)
      : layout_(layout), pool_(pool), long_work_(long_work), worker_(std::move(worker)) {}

  Task<Result<>> create(VolumeId id, std::string snapshot) override;
  Task<Result<>> remove(VolumeId id, std::string snapshot) override;
  Task<Result<>> rename(VolumeId id, std::string from, std::string to) override;
  Task<Result<>> restore(VolumeId id, std::string snapshot) override;
  Task<Result<std::vector<std::string>>> list(VolumeId id) override;
  Task<Result<Attachment>> attach(VolumeId id, std::string snapshot, std::optional<IdShift> shift) override;
  Task<Result<>> detach(VolumeId id, std::string snapshot) override;
  Task<Result<Usage>> usage(VolumeId id, std::string snapshot) override;
  Task<Result<std::optional<Merge>>> next_merge(VolumeId id) override;
  Task<Result<>> merge(VolumeId id, Merge merge) override;
  Task<Result<>> merged(VolumeId id, Merge merge) override;

 private:
  const Layout& layout_;
  BlockingPool& pool_;
  LongWork& long_work_;
  const std::string worker_;
};

}  // namespace virga::storage::dir
