// How a pool of driver `dir` looks on disk, and the blocking work on it. Everything here runs on the driver's BlockingPool and is
// idempotent; what is made appears under its name by one rename, so a crash leaves only names that begin with '.', which prepare()
// sweeps.
//
//   ROOT/                                    0711
//     containers/NAME/                       owner: the container's root, 0100: nobody else gets in
//       backing                              symlink to ../../images/FINGERPRINT
//       upper/ work/                         the container's changes, stored shifted
//       lower/                               where the image is shown shifted while rootfs is being mounted
//       rootfs/                              where the overlay is mounted
//     containers/NAME/ custom/PROJECT_NAME/  made without an image: data/ with plain ids, shown at rootfs/
//     virtual-machines/NAME/                 root.qcow2, backing; with snapshots: disk.json, layer-*.qcow2 (layers.h)
//     custom/PROJECT_NAME/                   block: as those of virtual machines
//     KIND/NAME/snapshots/SNAPSHOT/          0100, owned as the volume: upper/ or data/ as it was, rootfs/ and lower/ to show it;
//                                            of a disk, whose data is in its layers: qemu.nvram
//     images/FINGERPRINT/                    rootfs/ or disk.qcow2, and what the image reader unpacked beside it; .deleted: kept
//     for clones
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "drivers/storage/driver.h"

namespace virga::storage::dir {

class Layout {
 public:
  explicit Layout(std::string root) : root_(std::move(root)) {}
  const std::string& root() const noexcept { return root_; }
  std::string folder(VolumeKind kind) const { return root_ + "/" + std::string(folder_of(kind)); }
  std::string volume(const VolumeId& id) const { return root_ + "/" + relative_path(id); }
  std::string image(const std::string& fingerprint) const { return folder(VolumeKind::image) + "/" + fingerprint; }
  std::string stage(const std::string& fingerprint) const { return folder(VolumeKind::image) + "/.stage-" + fingerprint; }

 private:
  std::string root_;
};

/// What is in a pool.
struct Scan {
  struct Image {
    ContentType content = ContentType::filesystem;
    bool deleted = false;
  };
  struct Volume {
    VolumeInfo info;
    std::string image;  ///< fingerprint it was cloned from, empty: none
  };
  std::map<std::string, Image> images;
  std::vector<Volume> volumes;
  bool damaged = false;  ///< some volume does not tell its image: none can be removed
};

// layout.cc
/// Makes the folders and takes away what a crash left. Errors: invalid (a path that cannot be a pool's), exists (other things are
/// there).
Result<> prepare(const Layout& layout);
Result<Scan> scan(const Layout& layout);
/// Removes the folders, which must be empty, and the root where it is nobody's mount point.
Result<> take_away(const Layout& layout);

// volumes.cc
Result<> make_volume(const Layout& layout, const VolumeSpec& spec, const std::string& image_fingerprint);
Result<> remove_volume(const Layout& layout, const VolumeId& id);
Result<> rename_volume(const Layout& layout, const VolumeId& from, const VolumeId& to);
/// The fingerprint in `backing`; empty where the volume was made without an image. Errors: unavailable (unreadable).
Result<std::string> backing_of(const std::string& volume);

// copy.cc
/// Makes `spec.id` like what `from` names in another layout, or in this one; with `over` in place of what is there.
Result<> copy_volume(const Layout& layout, const VolumeSpec& spec, const Layout& source, const CopySource& from,
                     std::optional<IdShift> shift, bool over, TransferControl& control);
/// Brings an image that another pool's volume needs here, out of lists as one that was deleted. There already is success.
Result<> copy_image(const Layout& layout, const Layout& source, const std::string& fingerprint, TransferControl& control);

// attach.cc
Result<Attachment> attach_volume(const Layout& layout, const VolumeId& id, std::optional<IdShift> shift);
Result<> detach_volume(const Layout& layout, const VolumeId& id);

/// The range that a volume or snapshot is stored in is told by its directory's owner.
Result<Attachment> attach_disk(const Layout& layout, const std::string& volume, const std::vector<std::string>& chain);

// snapshots.cc
Result<> make_snapshot(const Layout& layout, const VolumeId& id, const std::string& name);
Result<> remove_snapshot(const Layout& layout, const VolumeId& id, const std::string& name);
Result<> rename_snapshot(const Layout& layout, const VolumeId& id, const std::string& from, const std::string& to);
Result<> restore_snapshot(const Layout& layout, const VolumeId& id, const std::string& name);
Result<std::vector<std::string>> list_snapshots(const Layout& layout, const VolumeId& id);
Result<Attachment> attach_snapshot(const Layout& layout, const VolumeId& id, const std::string& name, std::optional<IdShift> shift);
Result<> detach_snapshot(const Layout& layout, const VolumeId& id, const std::string& name);
Result<std::optional<SnapshotOps::Merge>> next_merge(const Layout& layout, const VolumeId& id);
/// The upper layer goes. Done already is success.
Result<> record_merge(const Layout& layout, const VolumeId& id, const SnapshotOps::Merge& merge);

// images.cc
Result<> stage_image(const Layout& layout, const std::string& fingerprint);
Result<> publish_image(const Layout& layout, const std::string& fingerprint, ContentType content);
/// Keeps the image's data for its clones but takes it out of lists.
Result<> mark_deleted(const Layout& layout, const std::string& fingerprint);

// usage.cc
Result<Usage> volume_usage(const Layout& layout, const VolumeId& id);
Result<Usage> snapshot_usage(const Layout& layout, const VolumeId& id, const std::string& name);
Result<Usage> file_system_usage(const std::string& path);

// layout.cc, small things the others need
/// A directory that is there and is one, not a symlink.
bool is_directory(const std::string& path);
bool is_regular(const std::string& path);
/// Renames to a name that is swept after a crash, then removes the tree. Absent is success.
Result<> discard(const Layout& layout, VolumeKind kind, const std::string& path);

}  // namespace virga::storage::dir
