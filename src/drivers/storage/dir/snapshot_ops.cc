#include "drivers/storage/dir/snapshot_ops.h"

#include <fcntl.h>
#include <fmt/format.h>

#include "io/file.h"
#include "io/process.h"

namespace virga::storage::dir {
namespace {

Result<> check_both(const VolumeId& id, const std::string& snapshot) {
  VIRGA_CHECK(check_id(id));
  if (id.kind == VolumeKind::image) return fail(ErrorKind::unsupported, "images have no snapshots");
  return check_snapshot_name(snapshot);
}

/// A large layer on a slow disk.
constexpr Milliseconds merge_time = std::chrono::hours(12);

}  // namespace

Task<Result<>> Snapshots::create(VolumeId id, std::string snapshot) {
  VIRGA_CO_CHECK(check_both(id, snapshot));
  co_return co_await long_work_.run([this, id, snapshot] { return make_snapshot(layout_, id, snapshot); });
}
Task<Result<>> Snapshots::remove(VolumeId id, std::string snapshot) {
  VIRGA_CO_CHECK(check_both(id, snapshot));
  co_return co_await long_work_.run([this, id, snapshot] { return remove_snapshot(layout_, id, snapshot); });
}
Task<Result<>> Snapshots::rename(VolumeId id, std::string from, std::string to) {
  VIRGA_CO_CHECK(check_both(id, from));
  VIRGA_CO_CHECK(check_both(id, to));
  co_return co_await pool_.run([this, id, from, to] { return rename_snapshot(layout_, id, from, to); });
}
Task<Result<>> Snapshots::restore(VolumeId id, std::string snapshot) {
  VIRGA_CO_CHECK(check_both(id, snapshot));
  co_return co_await long_work_.run([this, id, snapshot] { return restore_snapshot(layout_, id, snapshot); });
}
Task<Result<std::vector<std::string>>> Snapshots::list(VolumeId id) {
  VIRGA_CO_CHECK(check_id(id));
  co_return co_await pool_.run([this, id] { return list_snapshots(layout_, id); });
}
Task<Result<Attachment>> Snapshots::attach(VolumeId id, std::string snapshot, std::optional<IdShift> shift) {
  VIRGA_CO_CHECK(check_both(id, snapshot));
  co_return co_await pool_.run([this, id, snapshot, shift] { return attach_snapshot(layout_, id, snapshot, shift); });
}
Task<Result<>> Snapshots::detach(VolumeId id, std::string snapshot) {
  VIRGA_CO_CHECK(check_both(id, snapshot));
  co_return co_await pool_.run([this, id, snapshot] { return detach_snapshot(layout_, id, snapshot); });
}
Task<Result<Usage>> Snapshots::usage(VolumeId id, std::string snapshot) {
  VIRGA_CO_CHECK(check_both(id, snapshot));
  co_return co_await long_work_.run([this, id, snapshot] { return snapshot_usage(layout_, id, snapshot); });
}

Task<Result<std::optional<SnapshotOps::Merge>>> Snapshots::next_merge(VolumeId id) {
  VIRGA_CO_CHECK(check_id(id));
  co_return co_await pool_.run([this, id] { return dir::next_merge(layout_, id); });
}

Task<Result<>> Snapshots::merge(VolumeId id, Merge merge) {
  VIRGA_CO_CHECK(check_id(id));
  if (worker_.empty()) co_return fail(ErrorKind::unsupported, "nothing here merges layers");
  // In the sandbox of images: a guest that has taken over its QEMU has written what is read here. It gets descriptors, the topmost
  // layer first, and names no file.
  io::ProcessSpec spec;
  spec.argv = {worker_, "merge-layers", std::to_string(merge.below.size()), std::to_string(merge_time.count() / 1000)};
  std::vector<io::UniqueFd> opened;
  auto pass = [&](const std::string& path, int flags) -> Result<> {
    VIRGA_TRY(auto fd, io::open_path(path, flags));
    spec.fds.emplace_back(fd.get(), static_cast<int>(3 + opened.size()));
    opened.push_back(std::move(fd));
    return {};
  };
  VIRGA_CO_CHECK(pass(merge.upper, O_RDWR));
  VIRGA_CO_CHECK(pass(merge.lower, O_RDWR));
  for (const auto& path : merge.below) VIRGA_CO_CHECK(pass(path, O_RDONLY));
  auto output = co_await io::run_process(std::move(spec), {.timeout = merge_time, .max_output = 64u << 10});
  if (!output) co_return fail(std::move(output).error().wrap(fmt::format("merge layers of {}", to_string(id))));
  constexpr int no_such_program = 127;
  if (output->status.code == no_such_program)
    co_return fail(Error(ErrorKind::unsupported, "'qemu-img' is not installed").with_hint("install the package qemu-utils"));
  if (output->status.code != 0) {
    const bool full = output->err.find("No space left") != std::string::npos;
    const bool busy = output->err.find("lock") != std::string::npos;
    co_return fail(full   ? ErrorKind::unavailable
                   : busy ? ErrorKind::busy
                          : ErrorKind::internal,
                   fmt::format("merge layers of {}: qemu-img ended with code {}{}", to_string(id), output->status.code,
                               full   ? ": no space left"
                               : busy ? ": the disk is in use"
                                      : ""));
  }
  co_return co_await merged(std::move(id), std::move(merge));
}

Task<Result<>> Snapshots::merged(VolumeId id, Merge merge) {
  VIRGA_CO_CHECK(check_id(id));
  co_return co_await long_work_.run([this, id, merge] { return record_merge(layout_, id, merge); });
}

}  // namespace virga::storage::dir
