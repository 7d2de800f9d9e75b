// Volumes are made under a name that begins with '.', completed, and renamed into place.
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>

#include "drivers/storage/dir/layers.h"
#include "drivers/storage/dir/layout.h"
#include "drivers/storage/dir/qcow2.h"
#include "io/file.h"
#include "io/mount.h"

namespace virga::storage::dir {
namespace {

constexpr Bytes default_disk_size = Bytes(10) << 30;

/// An image as seen from a volume's directory: pools can be moved.
std::string image_link(const std::string& fingerprint) {
  return fmt::format("../../{}/{}", folder_of(VolumeKind::image), fingerprint);
}

/// What a volume shall be, decided before anything is made.
struct Plan {
  ContentType content = ContentType::filesystem;
  std::string image;        ///< fingerprint, empty: none
  Bytes size = 0;           ///< block only
  mode_t root_mode = 0755;  ///< filesystem: of the volume's root directory
  uid_t root_uid = 0;
  gid_t root_gid = 0;
};

Result<Plan> plan_volume(const Layout& layout, const VolumeSpec& spec, const std::string& image) {
  Plan plan{.content = spec.content, .image = image};
  const bool block = spec.content == ContentType::block;
  if (spec.id.kind == VolumeKind::image) return fail(ErrorKind::internal, "image volumes are published, not created");
  if (spec.id.kind == VolumeKind::container && block)
    return fail(ErrorKind::invalid, fmt::format("{}: a container's root is a file system", to_string(spec.id)));
  if (spec.id.kind == VolumeKind::virtual_machine && !block)
    return fail(ErrorKind::invalid, fmt::format("{}: a virtual machine's root is a disk", to_string(spec.id)));
  if (!block && spec.size)
    return fail(Error(ErrorKind::unsupported,
                      fmt::format("{}: key 'size': driver 'dir' cannot limit the size of a file system", to_string(spec.id)))
                    .with_field("size")
                    .with_hint("unset 'size'"));
  Bytes image_size = 0;
  if (!image.empty()) {
    const auto base = layout.image(image);
    if (!is_directory(base) || io::exists(base + "/.deleted"))
      return fail(ErrorKind::not_found, fmt::format("image '{}' is not in this pool", image));
    struct stat st{};
    if (block) {
      if (!is_regular(base + "/disk.qcow2")) return fail(ErrorKind::invalid, fmt::format("image '{}' holds no disk", image));
      VIRGA_TRY(image_size, qcow2_size(base + "/disk.qcow2"));
    } else {
      if (::lstat((base + "/rootfs").c_str(), &st) != 0 || !S_ISDIR(st.st_mode))
        return fail(ErrorKind::invalid, fmt::format("image '{}' holds no file tree", image));
      plan.root_mode = st.st_mode & 07777;
      plan.root_uid = st.st_uid;
      plan.root_gid = st.st_gid;
    }
  }
  if (block) {
    if (spec.size && *spec.size < image_size)
      return invalid("size", fmt::format("{}: {} is less than the image's {}", to_string(spec.id), format_bytes(*spec.size),
                                         format_bytes(image_size)));
    plan.size = spec.size.value_or(std::max(default_disk_size, image_size));
    plan.size = (plan.size + 511) / 512 * 512;
  }
  return plan;
}

/// Whether what is there is what the plan would make.
Result<> check_same(const std::string& path, const Plan& plan, const VolumeId& id) {
  VIRGA_TRY(auto image, backing_of(path));
  const bool block = is_disk(path);
  bool same = image == plan.image && block == (plan.content == ContentType::block);
  if (same && block) {
    VIRGA_TRY(auto layers, read_layers(path));
    VIRGA_TRY(auto size, qcow2_size(path + "/" + layers.active.front()));
    same = size == plan.size;
  }
  if (!same) return fail(ErrorKind::exists, fmt::format("{} exists already", to_string(id)));
  return {};
}

Result<> fill(const std::string& at, const Plan& plan) {
  VIRGA_CHECK(io::make_directory(at, 0100));
  // A symlink rather than a file: its text needs no fsync of its own.
  if (!plan.image.empty() && ::symlink(image_link(plan.image).c_str(), (at + "/backing").c_str()) != 0)
    return fail_errno(errno, fmt::format("make '{}/backing'", at));
  if (plan.content == ContentType::block) {
    const auto backing = plan.image.empty() ? std::string() : image_link(plan.image) + "/disk.qcow2";
    VIRGA_CHECK(create_qcow2(at + "/root.qcow2", {.size = plan.size, .backing = backing}));
    return io::sync_directory(at);
  }
  const auto tree = at + (plan.image.empty() ? "/data" : "/upper");
  VIRGA_CHECK(io::make_directory(tree, 0700));
  if (::chown(tree.c_str(), plan.root_uid, plan.root_gid) != 0 || ::chmod(tree.c_str(), plan.root_mode) != 0)
    return fail_errno(errno, fmt::format("set the owner of '{}'", tree));
  if (!plan.image.empty()) {
    VIRGA_CHECK(io::make_directory(at + "/work", 0700));
    VIRGA_CHECK(io::make_directory(at + "/lower", 0700));
  }
  VIRGA_CHECK(io::make_directory(at + "/rootfs", 0700));
  return io::sync_directory(at);
}

}  // namespace

Result<std::string> backing_of(const std::string& volume) {
  char target[512];
  const auto n = ::readlink((volume + "/backing").c_str(), target, sizeof target);
  if (n < 0 && errno == ENOENT) return std::string();
  std::string_view text(target, n < 0 ? 0 : static_cast<std::size_t>(n));
  const auto prefix = image_link("");
  if (text.starts_with(prefix)) {
    std::string image(text.substr(prefix.size()));
    if (check_id({.kind = VolumeKind::image, .project = {}, .name = image})) return image;
  }
  return fail(ErrorKind::unavailable, fmt::format("'{}/backing' is damaged", volume));
}

Result<> make_volume(const Layout& layout, const VolumeSpec& spec, const std::string& image) {
  VIRGA_TRY(auto plan, plan_volume(layout, spec, image));
  const auto path = layout.volume(spec.id);
  if (is_directory(path)) return check_same(path, plan, spec.id);
  const auto folder = layout.folder(spec.id.kind);
  const auto beside = fmt::format("{}/.new-{}", folder, path.substr(folder.size() + 1));
  VIRGA_CHECK(io::remove_tree(beside));
  auto made = fill(beside, plan);
  if (made && ::renameat2(AT_FDCWD, beside.c_str(), AT_FDCWD, path.c_str(), RENAME_NOREPLACE) != 0)
    made = fail_errno(errno, fmt::format("rename to '{}'", path));
  if (!made) {
    (void)io::remove_tree(beside);
    return fail(std::move(made).error().wrap(fmt::format("make {}", to_string(spec.id))));
  }
  return io::sync_directory(folder);
}

Result<> remove_volume(const Layout& layout, const VolumeId& id) {
  VIRGA_CHECK(detach_volume(layout, id));
  VIRGA_CHECK(io::unmount_below(layout.volume(id)));
  return discard(layout, id.kind, layout.volume(id));
}

Result<> rename_volume(const Layout& layout, const VolumeId& from, const VolumeId& to) {
  if (from.kind != to.kind || from.kind == VolumeKind::image)
    return fail(ErrorKind::internal, fmt::format("{} cannot become {}", to_string(from), to_string(to)));
  const auto old_path = layout.volume(from), new_path = layout.volume(to);
  if (!is_directory(old_path))
    return is_directory(new_path) ? Result<>{} : fail(ErrorKind::not_found, fmt::format("{} does not exist", to_string(from)));
  VIRGA_TRY(auto mounts, io::mounts_below(old_path));
  if (!mounts.empty()) return fail(ErrorKind::busy, fmt::format("{} is attached", to_string(from)));
  if (::renameat2(AT_FDCWD, old_path.c_str(), AT_FDCWD, new_path.c_str(), RENAME_NOREPLACE) != 0)
    return fail_errno(errno, fmt::format("rename {}", to_string(from)));
  return io::sync_directory(layout.folder(from.kind));
}

}  // namespace virga::storage::dir
