// Attaching a container's root: the image is shown shifted into the container's range (overlayfs itself cannot be), the changes are
// stored shifted, and an overlay joins them.
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

#include "drivers/storage/dir/layers.h"
#include "drivers/storage/dir/layout.h"
#include "io/file.h"
#include "io/idmap.h"
#include "io/mount.h"

namespace virga::storage::dir {
namespace {

/// The volume's directory belongs to the container's root, who alone may pass: its owner also tells which range the volume is
/// stored in.
Result<> claim(const std::string& volume, const VolumeId& id, std::optional<IdShift> shift, const std::string& stored_shifted) {
  struct stat st{};
  if (::lstat(volume.c_str(), &st) != 0) return fail_errno(errno, fmt::format("stat '{}'", volume));
  const uid_t base = shift ? shift->base : 0;
  if (st.st_uid == base) return {};
  if (st.st_uid != 0) {
    if (!stored_shifted.empty())
      return fail(ErrorKind::unsupported,
                  fmt::format("{} is stored for ids from {} on and cannot be shown from {} on", to_string(id), st.st_uid, base));
  } else if (!stored_shifted.empty()) {
    struct stat tree{};
    if (::lstat(stored_shifted.c_str(), &tree) != 0) return fail_errno(errno, fmt::format("stat '{}'", stored_shifted));
    // A crash between this and the last step finds the tree shifted already.
    if (tree.st_uid < base && (::chown(stored_shifted.c_str(), base + tree.st_uid, base + tree.st_gid) != 0 ||
                               ::chmod(stored_shifted.c_str(), tree.st_mode & 07777) != 0))
      return fail_errno(errno, fmt::format("shift '{}'", stored_shifted));
  }
  if (::chown(volume.c_str(), base, 0) != 0) return fail_errno(errno, fmt::format("set the owner of '{}'", volume));
  return {};
}

Result<io::UniqueFd> range_of(std::optional<IdShift> shift) {
  if (!shift) return io::UniqueFd();
  return io::open_id_range(shift->base, shift->count);
}

Result<> mount_root(const Layout& layout, const std::string& volume, const std::string& image, std::optional<IdShift> shift) {
  VIRGA_TRY(auto range, range_of(shift));
  const bool nodev = shift.has_value();
  if (image.empty()) return io::bind_mount(volume + "/data", volume + "/rootfs", {.user_namespace = range.get(), .nodev = nodev});
  const auto lower = volume + "/lower";
  VIRGA_CHECK(io::unmount(lower));
  VIRGA_CHECK(
      io::bind_mount(layout.image(image) + "/rootfs", lower, {.user_namespace = range.get(), .readonly = true, .nodev = nodev}));
  auto mounted =
      io::mount_overlay({.lower = lower, .upper = volume + "/upper", .work = volume + "/work", .source = "virga", .nodev = nodev},
                        volume + "/rootfs");
  // The overlay keeps its own copy of the lower mount: one mount a container is left in the tables.
  auto away = io::unmount(lower);
  if (!mounted) return mounted;
  return away;
}

/// What an image boots with, whatever it says made into one line of printable text.
Result<std::optional<DirectBoot>> direct_boot(const std::string& image) {
  if (!is_regular(image + "/kernel")) return std::optional<DirectBoot>();
  DirectBoot boot{
      .kernel = image + "/kernel", .initrd = is_regular(image + "/initrd") ? image + "/initrd" : "", .command_line = {}};
  auto text = is_regular(image + "/cmdline") ? io::read_file(image + "/cmdline", 4096) : std::string();
  if (!text) return fail(std::move(text).error());
  for (char c : text->substr(0, text->find('\n')))
    if (c >= 0x20 && c < 0x7f) boot.command_line += c;
  return boot;
}

}  // namespace

Result<Attachment> attach_disk(const Layout& layout, const std::string& volume, const std::vector<std::string>& chain) {
  Attachment disk{.path = volume + "/" + chain.front(), .qcow2 = true};
  for (std::size_t i = 1; i < chain.size(); ++i) disk.backing.push_back(volume + "/" + chain[i]);
  VIRGA_TRY(auto image, backing_of(volume));
  if (image.empty()) return disk;
  disk.backing.push_back(layout.image(image) + "/disk.qcow2");
  disk.image = layout.image(image);
  VIRGA_TRY(disk.boot, direct_boot(disk.image));
  return disk;
}

Result<Attachment> attach_volume(const Layout& layout, const VolumeId& id, std::optional<IdShift> shift) {
  const auto volume = layout.volume(id);
  if (!is_directory(volume)) return fail(ErrorKind::not_found, fmt::format("{} does not exist", to_string(id)));
  if (is_disk(volume)) {
    VIRGA_TRY(auto layers, read_layers(volume));
    return attach_disk(layout, volume, layers.active);
  }
  VIRGA_TRY(auto image, backing_of(volume));
  const auto root = volume + "/rootfs";
  VIRGA_TRY(bool attached, io::is_mounted(root));
  if (attached) {
    struct stat st{};
    if (::lstat(volume.c_str(), &st) != 0) return fail_errno(errno, fmt::format("stat '{}'", volume));
    if (st.st_uid != (shift ? shift->base : 0))
      return fail(ErrorKind::busy, fmt::format("{} is attached with other ids", to_string(id)));
    return Attachment{.path = root, .image = image.empty() ? "" : layout.image(image)};
  }
  if (shift && (shift->base == 0 || shift->count == 0))
    return fail(ErrorKind::invalid, fmt::format("attach {}: an empty range of ids", to_string(id)));
  VIRGA_CHECK(claim(volume, id, shift, image.empty() ? "" : volume + "/upper"));
  auto mounted = mount_root(layout, volume, image, shift);
  if (!mounted) return fail(std::move(mounted).error().wrap(fmt::format("attach {}", to_string(id))));
  return Attachment{.path = root, .image = image.empty() ? "" : layout.image(image)};
}

Result<> detach_volume(const Layout& layout, const VolumeId& id) {
  const auto volume = layout.volume(id);
  VIRGA_CHECK(io::unmount(volume + "/rootfs"));
  return io::unmount(volume + "/lower");
}

}  // namespace virga::storage::dir
