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
  std::string backing =
      {};  ///< block: the read-only qcow2 image below `path`, empty: none. Given so that nobody follows a name in a header
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
};

}  // namespace virga::storage
