// Snapshots. Of a disk: its active layer is left as it is and a new one laid over it, which takes no time whatever its size. Of a
// tree: its changes are copied, with blocks shared where the file system can.
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>

#include "base/random.h"
#include "drivers/storage/dir/layers.h"
#include "drivers/storage/dir/layout.h"
#include "io/copy.h"
#include "io/file.h"
#include "io/idmap.h"
#include "io/mount.h"

namespace virga::storage::dir {
namespace {

constexpr const char* variables_file = "qemu.nvram";

std::string snapshots_of(const std::string& volume) {
  return volume + "/snapshots";
}
std::string snapshot_at(const std::string& volume, const std::string& name) {
  return snapshots_of(volume) + "/" + name;
}

tl::unexpected<Error> no_snapshot(const VolumeId& id, const std::string& name) {
  return fail(ErrorKind::not_found, fmt::format("{} has no snapshot '{}'", to_string(id), name));
}
Result<std::string> volume_of(const Layout& layout, const VolumeId& id) {
  auto volume = layout.volume(id);
  if (!is_directory(volume)) return fail(ErrorKind::not_found, fmt::format("{} does not exist", to_string(id)));
  return volume;
}

/// The directory that holds a volume's changes: "upper" on an image, "data" otherwise.
std::string tree_of(const std::string& at) {
  return is_directory(at + "/upper") ? "upper" : "data";
}

Result<> discard_in(const std::string& directory, const std::string& path) {
  const auto away = fmt::format("{}/.gone-{}", directory, random_hex(8));
  if (::rename(path.c_str(), away.c_str()) != 0)
    return errno == ENOENT ? Result<>{} : fail_errno(errno, fmt::format("remove '{}'", path));
  VIRGA_CHECK(io::sync_directory(directory));
  return io::remove_tree(away);
}

/// What a crash left; nothing refers to it.
Result<> sweep(const std::string& snapshots) {
  auto names = io::list_directory(snapshots);
  if (!names) return names.error().kind() == ErrorKind::not_found ? Result<>{} : fail(std::move(names).error());
  for (const auto& name : *names)
    if (name.starts_with('.')) VIRGA_CHECK(io::remove_tree(snapshots + "/" + name));
  return {};
}

/// Fills a directory that appears under its name when it is whole.
template <class F>
Result<> make_directory_of(const std::string& volume, const std::string& name, F fill) {
  const auto snapshots = snapshots_of(volume), beside = snapshots + "/.new-" + name;
  VIRGA_CHECK(io::make_directory(snapshots, 0700));
  VIRGA_CHECK(sweep(snapshots));
  VIRGA_CHECK(io::make_directory(beside, 0100));
  auto made = fill(beside);
  if (made) made = io::sync_directory(beside);
  if (made && ::rename(beside.c_str(), snapshot_at(volume, name).c_str()) != 0)
    made = fail_errno(errno, fmt::format("rename to '{}'", snapshot_at(volume, name)));
  if (!made) {
    (void)io::remove_tree(beside);
    return made;
  }
  return io::sync_directory(snapshots);
}

Result<> copy_file(const std::string& from, const std::string& to) {
  TransferControl control;
  return io::copy_file(from, to, 0600, control);
}

// --- disks

Result<> make_of_disk(const std::string& volume, const std::string& name) {
  VIRGA_TRY(auto layers, read_layers(volume));
  if (layers.snapshots.contains(name)) return {};
  VIRGA_CHECK(sweep_layers(volume, layers));
  if (layers.active.size() >= most_layers)
    return fail(Error(ErrorKind::unavailable, fmt::format("the disk has {} layers already", layers.active.size()))
                    .with_hint("delete snapshots first"));
  if (is_regular(volume + "/" + variables_file)) {
    VIRGA_CHECK(discard_in(snapshots_of(volume), snapshot_at(volume, name)));
    auto fill = [&](const std::string& at) { return copy_file(volume + "/" + variables_file, at + "/" + variables_file); };
    VIRGA_CHECK(make_directory_of(volume, name, fill));
  }
  VIRGA_TRY(auto fresh, add_layer(volume, layers.active.front()));
  layers.snapshots[name] = layers.active;
  layers.active.insert(layers.active.begin(), std::move(fresh));
  return write_layers(volume, layers);
}

Result<> restore_disk(const VolumeId& id, const std::string& volume, const std::string& name) {
  VIRGA_TRY(auto layers, read_layers(volume));
  auto found = layers.snapshots.find(name);
  if (found == layers.snapshots.end()) return no_snapshot(id, name);
  VIRGA_CHECK(sweep_layers(volume, layers));
  VIRGA_TRY(auto fresh, add_layer(volume, found->second.front()));
  const auto kept = snapshot_at(volume, name) + "/" + variables_file, now = volume + "/" + variables_file;
  if (is_regular(kept)) {
    const auto beside = now + ".new";
    VIRGA_CHECK(io::remove_tree(beside));
    VIRGA_CHECK(copy_file(kept, beside));
    if (::rename(beside.c_str(), now.c_str()) != 0) return fail_errno(errno, fmt::format("rename to '{}'", now));
  } else {
    VIRGA_CHECK(io::remove_tree(now));  // it had not been started yet
  }
  layers.active = found->second;
  layers.active.insert(layers.active.begin(), std::move(fresh));
  VIRGA_CHECK(write_layers(volume, layers));
  return sweep_layers(volume, layers);
}

// --- trees

Result<> make_of_tree(const std::string& volume, const std::string& name) {
  if (is_directory(snapshot_at(volume, name))) return {};
  struct stat st{};
  if (::lstat(volume.c_str(), &st) != 0) return fail_errno(errno, fmt::format("stat '{}'", volume));
  const auto tree = tree_of(volume);
  auto fill = [&](const std::string& at) -> Result<> {
    TransferControl control;
    VIRGA_CHECK(io::copy_tree(volume + "/" + tree, at + "/" + tree, {}, control));
    VIRGA_CHECK(io::make_directory(at + "/rootfs", 0700));
    if (tree == "upper") VIRGA_CHECK(io::make_directory(at + "/lower", 0700));
    if (::chown(at.c_str(), st.st_uid, 0) != 0) return fail_errno(errno, fmt::format("set the owner of '{}'", at));
    return {};
  };
  return make_directory_of(volume, name, fill);
}

/// A snapshot from before the volume was shown for the first time holds a root that is not in the volume's range yet.
Result<> match_range(const std::string& snapshot, const std::string& volume, const std::string& tree) {
  struct stat from{}, to{}, root{};
  if (::lstat(snapshot.c_str(), &from) != 0 || ::lstat(volume.c_str(), &to) != 0 || ::lstat(tree.c_str(), &root) != 0)
    return fail_errno(errno, fmt::format("stat '{}'", tree));
  if (from.st_uid == to.st_uid || from.st_uid != 0 || root.st_uid >= to.st_uid) return {};
  if (::chown(tree.c_str(), to.st_uid + root.st_uid, to.st_uid + root.st_gid) != 0 ||
      ::chmod(tree.c_str(), root.st_mode & 07777) != 0)
    return fail_errno(errno, fmt::format("shift '{}'", tree));
  return {};
}

Result<> restore_tree(const VolumeId& id, const std::string& volume, const std::string& name) {
  const auto snapshot = snapshot_at(volume, name);
  if (!is_directory(snapshot)) return no_snapshot(id, name);
  VIRGA_TRY(bool attached, io::is_mounted(volume + "/rootfs"));
  if (attached) return fail(ErrorKind::busy, fmt::format("{} is attached", to_string(id)));
  const auto tree = tree_of(snapshot);
  const auto beside = snapshots_of(volume) + "/.restored", now = volume + "/" + tree;
  VIRGA_CHECK(sweep(snapshots_of(volume)));
  TransferControl control;
  auto made = io::copy_tree(snapshot + "/" + tree, beside, {}, control);
  if (made && tree == "upper") made = match_range(snapshot, volume, beside);
  if (made && ::renameat2(AT_FDCWD, beside.c_str(), AT_FDCWD, now.c_str(), RENAME_EXCHANGE) != 0)
    made = fail_errno(errno, fmt::format("put '{}' in place", now));
  if (made) made = io::sync_directory(volume);
  if (made) made = io::sync_directory(snapshots_of(volume));
  // What was there before, or what was made in vain.
  auto swept = io::remove_tree(beside);
  return made ? swept : made;
}

Result<io::UniqueFd> range_of(std::optional<IdShift> shift) {
  if (!shift) return io::UniqueFd();
  return io::open_id_range(shift->base, shift->count);
}

Result<Attachment> attach_tree(const Layout& layout, const VolumeId& id, const std::string& volume, const std::string& name,
                               std::optional<IdShift> shift) {
  const auto at = snapshot_at(volume, name), root = at + "/rootfs";
  if (!is_directory(at)) return no_snapshot(id, name);
  VIRGA_TRY(auto image, backing_of(volume));
  const Attachment out{.path = root, .image = image.empty() ? "" : layout.image(image)};
  struct stat st{};
  if (::lstat(at.c_str(), &st) != 0) return fail_errno(errno, fmt::format("stat '{}'", at));
  const uid_t base = shift ? shift->base : 0;
  VIRGA_TRY(bool attached, io::is_mounted(root));
  if (attached) {
    if (st.st_uid != base) return fail(ErrorKind::busy, fmt::format("snapshot '{}' is attached with other ids", name));
    return out;
  }
  if (st.st_uid != base) {
    if (st.st_uid != 0 && !image.empty())
      return fail(ErrorKind::unsupported,
                  fmt::format("snapshot '{}' is stored for ids from {} on and cannot be shown from {} on", name, st.st_uid, base));
    // Taken before the volume was shown for the first time: its root belongs to the range from now on.
    struct stat tree{};
    if (!image.empty() && ::lstat((at + "/upper").c_str(), &tree) == 0 && tree.st_uid < base &&
        (::chown((at + "/upper").c_str(), base + tree.st_uid, base + tree.st_gid) != 0 ||
         ::chmod((at + "/upper").c_str(), tree.st_mode & 07777) != 0))
      return fail_errno(errno, fmt::format("shift '{}/upper'", at));
    if (::chown(at.c_str(), base, 0) != 0) return fail_errno(errno, fmt::format("set the owner of '{}'", at));
  }
  VIRGA_TRY(auto range, range_of(shift));
  const io::BindOptions options{.user_namespace = range.get(), .readonly = true, .nodev = shift.has_value()};
  if (image.empty()) {
    VIRGA_CHECK(io::bind_mount(at + "/data", root, options));
    return out;
  }
  VIRGA_CHECK(io::unmount(at + "/lower"));
  VIRGA_CHECK(io::bind_mount(layout.image(image) + "/rootfs", at + "/lower", options));
  auto mounted = io::mount_readonly_overlay({at + "/upper", at + "/lower"}, "virga", shift.has_value(), root);
  VIRGA_CHECK(io::unmount(at + "/lower"));
  if (!mounted) return fail(std::move(mounted).error());
  return out;
}

SnapshotOps::Merge with_paths(const Layout& layout, const std::string& volume, const std::string& image, const LayerMerge& merge) {
  SnapshotOps::Merge out{.lower = volume + "/" + merge.lower, .upper = volume + "/" + merge.upper, .below = {}};
  for (const auto& name : merge.below) out.below.push_back(volume + "/" + name);
  if (!image.empty()) out.below.push_back(layout.image(image) + "/disk.qcow2");
  return out;
}

Result<std::vector<std::string>> shared_layers(const std::string& volume, const Layers& layers) {
  std::vector<std::string> out;
  auto look = [&](const Chain& chain) -> Result<> {
    for (const auto& name : chain) {
      struct stat st{};
      if (::lstat((volume + "/" + name).c_str(), &st) != 0) return fail_errno(errno, fmt::format("stat '{}/{}'", volume, name));
      if (st.st_nlink > 1) out.push_back(name);
    }
    return {};
  };
  VIRGA_CHECK(look(layers.active));
  for (const auto& [name, chain] : layers.snapshots) VIRGA_CHECK(look(chain));
  return out;
}

}  // namespace

Result<> make_snapshot(const Layout& layout, const VolumeId& id, const std::string& name) {
  VIRGA_TRY(auto volume, volume_of(layout, id));
  auto made = is_disk(volume) ? make_of_disk(volume, name) : make_of_tree(volume, name);
  if (!made) return fail(std::move(made).error().wrap(fmt::format("make a snapshot of {}", to_string(id))));
  return {};
}

Result<> remove_snapshot(const Layout& layout, const VolumeId& id, const std::string& name) {
  const auto volume = layout.volume(id);
  if (!is_directory(volume)) return {};
  VIRGA_CHECK(detach_snapshot(layout, id, name));
  if (is_disk(volume)) {
    VIRGA_TRY(auto layers, read_layers(volume));
    if (layers.snapshots.erase(name) > 0) VIRGA_CHECK(write_layers(volume, layers));
    VIRGA_CHECK(sweep_layers(volume, layers));
  }
  if (!is_directory(snapshots_of(volume))) return {};
  VIRGA_CHECK(discard_in(snapshots_of(volume), snapshot_at(volume, name)));
  return sweep(snapshots_of(volume));
}

Result<> rename_snapshot(const Layout& layout, const VolumeId& id, const std::string& from, const std::string& to) {
  VIRGA_TRY(auto volume, volume_of(layout, id));
  const auto old_path = snapshot_at(volume, from), new_path = snapshot_at(volume, to);
  auto exists = [&] { return fail(ErrorKind::exists, fmt::format("{} has a snapshot '{}' already", to_string(id), to)); };
  VIRGA_TRY(bool attached, io::is_mounted(old_path + "/rootfs"));
  if (attached) return fail(ErrorKind::busy, fmt::format("snapshot '{}' is attached", from));
  const bool disk = is_disk(volume);
  Layers layers;
  bool there = is_directory(old_path), taken = is_directory(new_path);
  if (disk) {
    VIRGA_TRY(layers, read_layers(volume));
    there = layers.snapshots.contains(from);
    taken = layers.snapshots.contains(to);
  }
  if (!there) return taken ? Result<>{} : no_snapshot(id, from);
  if (taken) return exists();
  // A disk's directory first: after a crash the name in disk.json is still the old one, and the rename is done again.
  if (is_directory(old_path)) {
    if (disk && is_directory(new_path)) VIRGA_CHECK(discard_in(snapshots_of(volume), new_path));
    if (::renameat2(AT_FDCWD, old_path.c_str(), AT_FDCWD, new_path.c_str(), RENAME_NOREPLACE) != 0)
      return fail_errno(errno, fmt::format("rename snapshot '{}'", from));
    VIRGA_CHECK(io::sync_directory(snapshots_of(volume)));
  }
  if (!disk) return {};
  auto node = layers.snapshots.extract(from);
  node.key() = to;
  layers.snapshots.insert(std::move(node));
  return write_layers(volume, layers);
}

Result<> restore_snapshot(const Layout& layout, const VolumeId& id, const std::string& name) {
  VIRGA_TRY(auto volume, volume_of(layout, id));
  auto done = is_disk(volume) ? restore_disk(id, volume, name) : restore_tree(id, volume, name);
  if (!done) return fail(std::move(done).error().wrap(fmt::format("restore {}", to_string(id))));
  return {};
}

Result<std::vector<std::string>> list_snapshots(const Layout& layout, const VolumeId& id) {
  VIRGA_TRY(auto volume, volume_of(layout, id));
  std::vector<std::string> out;
  if (is_disk(volume)) {
    VIRGA_TRY(auto layers, read_layers(volume));
    for (const auto& [name, chain] : layers.snapshots) out.push_back(name);
    return out;
  }
  if (!is_directory(snapshots_of(volume))) return out;
  VIRGA_TRY(out, io::list_directory(snapshots_of(volume)));
  std::erase_if(out, [](const std::string& name) { return name.starts_with('.'); });
  return out;
}

Result<Attachment> attach_snapshot(const Layout& layout, const VolumeId& id, const std::string& name,
                                   std::optional<IdShift> shift) {
  VIRGA_TRY(auto volume, volume_of(layout, id));
  if (is_disk(volume)) {
    VIRGA_TRY(auto layers, read_layers(volume));
    auto found = layers.snapshots.find(name);
    if (found == layers.snapshots.end()) return no_snapshot(id, name);
    return attach_disk(layout, volume, found->second);
  }
  auto attached = attach_tree(layout, id, volume, name, shift);
  if (!attached) return fail(std::move(attached).error().wrap(fmt::format("attach snapshot '{}' of {}", name, to_string(id))));
  return attached;
}

Result<> detach_snapshot(const Layout& layout, const VolumeId& id, const std::string& name) {
  const auto at = snapshot_at(layout.volume(id), name);
  VIRGA_CHECK(io::unmount(at + "/rootfs"));
  return io::unmount(at + "/lower");
}

Result<std::optional<SnapshotOps::Merge>> next_merge(const Layout& layout, const VolumeId& id) {
  VIRGA_TRY(auto volume, volume_of(layout, id));
  if (!is_regular(volume + "/disk.json")) return std::optional<SnapshotOps::Merge>();
  VIRGA_TRY(auto layers, read_layers(volume));
  VIRGA_TRY(auto shared, shared_layers(volume, layers));
  VIRGA_TRY(auto image, backing_of(volume));
  auto found = find_merge(layers, shared);
  if (!found) return std::optional<SnapshotOps::Merge>();
  return std::optional(with_paths(layout, volume, image, *found));
}

Result<> record_merge(const Layout& layout, const VolumeId& id, const SnapshotOps::Merge& merge) {
  VIRGA_TRY(auto volume, volume_of(layout, id));
  VIRGA_TRY(auto layers, read_layers(volume));
  if (!names_layer(layers, merge.upper.substr(merge.upper.rfind('/') + 1))) return sweep_layers(volume, layers);
  VIRGA_TRY(auto shared, shared_layers(volume, layers));
  VIRGA_TRY(auto image, backing_of(volume));
  auto found = find_merge(layers, shared);
  if (!found) return fail(ErrorKind::conflict, fmt::format("the layers of {} have changed meanwhile", to_string(id)));
  const auto known = with_paths(layout, volume, image, *found);
  if (known.lower != merge.lower || known.upper != merge.upper)
    return fail(ErrorKind::conflict, fmt::format("the layers of {} have changed meanwhile", to_string(id)));
  layers = after_merge(std::move(layers), *found);
  VIRGA_CHECK(write_layers(volume, layers));
  return sweep_layers(volume, layers);
}

}  // namespace virga::storage::dir
