// Mounts, by the kernel's new mount API (open_tree, fsopen, move_mount), which needs no text spliced into option strings. The calls
// block for up to some milliseconds: drivers make them on a BlockingPool. Paths are ours; a symlink as last component is refused.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"

namespace virga::io {

/// Whether `path` itself is where something is mounted. Absent is "no".
Result<bool> is_mounted(const std::string& path);

/// One line of /proc/self/mountinfo.
struct Mount {
  int id = 0;
  std::string mount_point;
  std::string type;
  std::string source;
};
/// Pure. Lines that make no sense are left out.
std::vector<Mount> parse_mountinfo(std::string_view text);
/// What is mounted at `path` and below it, in the order in which it was mounted.
Result<std::vector<Mount>> mounts_below(const std::string& path);

struct BindOptions {
  int user_namespace = -1;  ///< show the tree shifted by this user namespace (io/idmap.h)
  bool readonly = false;
  bool nodev = false;  ///< device nodes in the tree are inert
};
/// Shows the tree `source` (without what is mounted below it) at the directory or file `target`.
Result<> bind_mount(const std::string& source, const std::string& target, BindOptions options = {});

struct OverlayOptions {
  std::string lower;   ///< read-only tree; paths hold no ',', ':' or '\\' (see overlay_path_ok)
  std::string upper;   ///< receives the changes
  std::string work;    ///< empty directory on upper's file system
  std::string source;  ///< what /proc/mounts shows as the device
  bool nodev = false;
};
/// Mounts an overlay at `target`.
Result<> mount_overlay(const OverlayOptions& options, const std::string& target);
/// The same without a place for changes: `layers` are read-only trees, the topmost first, at least two, of any names.
Result<> mount_readonly_overlay(const std::vector<std::string>& layers, const std::string& source, bool nodev,
                                const std::string& target);
/// Older kernels take overlay paths as one option string: whether this one can stand in it.
bool overlay_path_ok(std::string_view path) noexcept;

/// Unmounts everything that is stacked at `path`; nothing there is success. Where it is in use the mount disappears from the tree
/// at once and ends when the last user lets go.
Result<> unmount(const std::string& path);
/// Unmounts everything at and below `path`, newest first.
Result<> unmount_below(const std::string& path);

}  // namespace virga::io
