// What virga asks of something that keeps volumes. Idempotent calls on the event loop; a driver works below its pool's directory or
// device only and never sees the store or the engine.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "base/task.h"
#include "base/transfer.h"
#include "base/units.h"

namespace virga::storage {

enum class VolumeKind { container, virtual_machine, image, custom };
enum class ContentType { filesystem, block };

struct VolumeId {
  VolumeKind kind = VolumeKind::container;
  std::string project;  ///< "default" is not part of paths; others appear as PROJECT_NAME
  std::string name;     ///< instance name, image fingerprint or custom volume name; already validated
  friend auto operator<=>(const VolumeId&, const VolumeId&) = default;
};
std::string to_string(const VolumeId& id);
/// "containers/web", "virtual-machines/lab_db1", "images/<fingerprint>", "custom/default_data": below the pool's root.
std::string relative_path(const VolumeId& id);
/// "containers": the folder of a kind in a pool.
std::string_view folder_of(VolumeKind kind) noexcept;
/// The inverse of relative_path's last part; nothing where it is no volume's name.
std::optional<VolumeId> parse_entry(VolumeKind kind, std::string_view entry);
/// Errors: invalid (a name that could be more than one path component). Drivers ask again what the engine has checked before.
Result<> check_id(const VolumeId& id);

struct VolumeSpec {
  VolumeId id;
  ContentType content = ContentType::filesystem;
  std::optional<Bytes> size;  ///< block: virtual size; filesystem: quota, where the driver can
};

struct VolumeInfo {
  VolumeId id;
  ContentType content = ContentType::filesystem;
};

struct Usage {
  Bytes used = 0;
  std::optional<Bytes> total;
};

struct IdShift {  ///< show the volume's ids 0.. as base.. (a container's own range)
  std::uint32_t base = 0;
  std::uint32_t count = 0;
};

struct DirectBoot {          ///< a kernel that the image brings along
  std::string kernel;        ///< path
  std::string initrd;        ///< path, empty: none
  std::string command_line;  ///< one line of printable ASCII
};

struct Attachment {
  std::string path;    ///< filesystem: where the root is mounted; block: the file or device
  bool qcow2 = false;  ///< block: qcow2 rather than raw
  /// Block: the read-only qcow2 layers below `path`, the nearest first. Given so that nobody follows a name in a header.
  std::vector<std::string> backing = {};
  std::optional<DirectBoot> boot = {};  ///< block: where its image has a kernel; also when the image itself was deleted meanwhile
  std::string image = {};  ///< directory of the image that the volume was made from (templates, metadata.yaml), empty: none
};

/// Image volumes hold an unpacked image that many instance volumes share: a tree, or a disk.
class ImageOps {
 public:
  virtual ~ImageOps() = default;
  /// A private directory inside the pool to unpack into: files made there can be moved into place by publish(). Made fresh each
  /// time.
  virtual Task<Result<std::string>> stage(std::string fingerprint) = 0;
  /// Moves what was staged into place as the image volume: DIR/rootfs/ (a tree with the image's own ids) or DIR/disk.qcow2.
  virtual Task<Result<>> publish(std::string fingerprint, ContentType content) = 0;
  /// Absent is success.
  virtual Task<Result<>> discard_stage(std::string fingerprint) = 0;
  /// Path of the published image volume's directory. Errors: not_found.
  virtual Result<std::string> path(const std::string& fingerprint) const = 0;
  /// The templates that the image brought along, name to text; mostly none. Reads files: not for the event loop's hot paths.
  virtual Result<std::map<std::string, std::string>> templates(const std::string& /*fingerprint*/) const {
    return std::map<std::string, std::string>();
  }
};

/// Volumes made from another at no cost in data.
class CloneOps {
 public:
  virtual ~CloneOps() = default;
  /// Makes `spec.id` from a published image volume. Equal call again: success. Errors: not_found, invalid (size below the image's).
  virtual Task<Result<>> from_image(VolumeSpec spec, std::string fingerprint) = 0;
};

/// States of a volume that are kept, by names of the engine's ('/' and a '.' in front are in none). They move and go with their
/// volume. For one volume these calls, and those of the Driver, come one after the other.
///
/// A snapshot of a volume that is in use holds what has reached the volume by then: who wants more has its writers write out and
/// wait first. A disk that QEMU has open goes on in a new layer: after create() the answer of attach() names it, and QEMU is told
/// to write there from now on. Until it has been told, and when it never is, what it writes is in the volume all the same, and the
/// snapshot is worth nothing: remove() it then.
class SnapshotOps {
 public:
  virtual ~SnapshotOps() = default;
  /// A second equal call succeeds. Errors: not_found (the volume), unavailable (no space).
  virtual Task<Result<>> create(VolumeId id, std::string snapshot) = 0;
  /// Absent is success; detaches first. What the volume or other snapshots need of its data stays, see next_merge().
  virtual Task<Result<>> remove(VolumeId id, std::string snapshot) = 0;
  /// Done already is success; must be detached. Errors: not_found, exists, busy.
  virtual Task<Result<>> rename(VolumeId id, std::string from, std::string to) = 0;
  /// The volume, which is not in use, becomes what the snapshot holds. All snapshots stay. Errors: not_found, busy.
  virtual Task<Result<>> restore(VolumeId id, std::string snapshot) = 0;
  /// In order of names. Errors: not_found (the volume).
  virtual Task<Result<std::vector<std::string>>> list(VolumeId id) = 0;
  /// Shows it, for reading only, with the volume's ids as attach() of the volume does it. Attached already is success with the same
  /// answer. A disk's layers are never written to as long as the snapshot is there. Errors: not_found, busy.
  virtual Task<Result<Attachment>> attach(VolumeId id, std::string snapshot, std::optional<IdShift> shift) = 0;
  /// Not attached is success.
  virtual Task<Result<>> detach(VolumeId id, std::string snapshot) = 0;
  /// What the snapshot alone takes, as far as the driver can tell.
  virtual Task<Result<Usage>> usage(VolumeId id, std::string snapshot) = 0;

  /// Two layers of a disk of which nobody needs the lower one by itself any more: what `upper` holds belongs into `lower`.
  struct Merge {
    std::string lower;               ///< path
    std::string upper;               ///< path
    std::vector<std::string> below;  ///< what is below `lower`, the nearest first
  };
  /// Space of removed snapshots comes back by merges. Empty: there is nothing to merge.
  virtual Task<Result<std::optional<Merge>>> next_merge(VolumeId /*id*/) { co_return std::optional<Merge>(); }
  /// Merges layers of a disk that is not in use. Interrupted at any point, the disk shows what it did before. Errors: unsupported
  /// (a program is missing), unavailable (no space), busy (the disk is in use).
  virtual Task<Result<>> merge(VolumeId /*id*/, Merge /*merge*/) { co_return fail(ErrorKind::unsupported, "no layers here"); }
  /// Somebody else (QEMU, of a disk that it has open) has done so: `upper` is not needed any more.
  virtual Task<Result<>> merged(VolumeId /*id*/, Merge /*merge*/) { co_return fail(ErrorKind::unsupported, "no layers here"); }
};
/// Errors: invalid (a name that could be more than one path component, or hides).
Result<> check_snapshot_name(std::string_view name);
class Driver;

/// What a volume is made like.
struct CopySource {
  Driver* driver = nullptr;  ///< of the pool that it is in
  VolumeId id;
  std::string snapshot = {};    ///< of it; empty: as it is now
  bool with_snapshots = false;  ///< its snapshots are copied, too
};

/// Volumes made from another that is in use or not, with all its data.
class CopyOps {
 public:
  virtual ~CopyOps() = default;
  /// Makes `spec.id` like a volume of this driver or of one of its kind, to which nobody may write meanwhile. `shift`: the range
  /// that a container's new volume is stored for. What was half made is removed where it fails. Errors: exists, not_found,
  /// unsupported (another kind of driver; another size), cancelled.
  virtual Task<Result<>> copy(VolumeSpec spec, CopySource from, std::optional<IdShift> shift,
                              std::shared_ptr<TransferControl> control) = 0;
  /// The same over a volume that is there and detached, with its snapshots: what is the same in both is kept, and the old content
  /// is there until the new one is complete.
  virtual Task<Result<>> refresh(VolumeSpec spec, CopySource from, std::optional<IdShift> shift,
                                 std::shared_ptr<TransferControl> control) = 0;
};

struct DriverInfo {
  std::string name;  ///< "dir"
  std::string version;
  bool remote = false;
};

class Driver {
 public:
  virtual ~Driver() = default;
  virtual const DriverInfo& info() const noexcept = 0;
  /// Makes the pool's layout, or checks one that is there. Idempotent.
  virtual Task<Result<>> open() = 0;
  /// Takes the pool's layout away. Errors: busy (volumes are in it).
  virtual Task<Result<>> destroy() = 0;
  virtual Task<Result<>> create(VolumeSpec spec) = 0;             // a second equal call succeeds
  virtual Task<Result<>> remove(VolumeId id) = 0;                 // absent is success; detaches first
  virtual Task<Result<>> rename(VolumeId from, VolumeId to) = 0;  // done already is success; must be detached
  virtual Task<Result<std::vector<VolumeInfo>>> list() = 0;
  /// Makes the volume usable on this host. Attached already is success with the same answer.
  virtual Task<Result<Attachment>> attach(VolumeId id, std::optional<IdShift> shift) = 0;
  /// Not attached is success. Errors: busy.
  virtual Task<Result<>> detach(VolumeId id) = 0;
  virtual Task<Result<Usage>> usage(VolumeId id) = 0;
  virtual Task<Result<Usage>> pool_usage() = 0;
  virtual ImageOps* images() noexcept { return nullptr; }
  virtual CloneOps* clones() noexcept { return nullptr; }
  virtual SnapshotOps* snapshots() noexcept { return nullptr; }
  virtual CopyOps* copies() noexcept { return nullptr; }
};

}  // namespace virga::storage
