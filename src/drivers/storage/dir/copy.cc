// Volumes made like others. A container's changes are copied, shifted into the new range, over the same image. Of a disk only the
// layer that is written to is copied: those below it never change, and are linked where the file system is the same. As everything
// here they are made beside and renamed into place.
#include "io/copy.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <set>

#include "base/random.h"
#include "drivers/storage/dir/layers.h"
#include "drivers/storage/dir/layout.h"
#include "drivers/storage/dir/qcow2.h"
#include "io/file.h"
#include "io/mount.h"

namespace virga::storage::dir {
namespace {

constexpr const char* variables_file = "qemu.nvram";

/// One copy under way, from directory to directory.
struct Work {
  std::string from, to;
  std::string earlier;   ///< the volume whose place it takes, empty: none
  std::string snapshot;  ///< of the source, empty: the volume itself
  bool with_snapshots = false;
  bool same_pool = true;
  std::optional<IdShift> shift;
  TransferControl& control;
};

std::string snapshot_at(const std::string& volume, const std::string& name) {
  return volume + "/snapshots/" + name;
}

// --- disks

/// The firmware's variables: what the guest has told it to boot. A disk that was never started has none.
Result<> copy_variables(const std::string& from, const std::string& to, TransferControl& control) {
  const auto source = from + "/" + variables_file;
  return is_regular(source) ? io::copy_file(source, to + "/" + variables_file, 0600, control) : Result<>{};
}

Result<> link_layer(const Work& work, const std::string& name) {
  const auto from = work.from + "/" + name, to = work.to + "/" + name;
  if (::link(from.c_str(), to.c_str()) == 0) return {};
  if (errno != EXDEV && errno != EMLINK) return fail_errno(errno, fmt::format("link '{}'", from));
  return io::copy_file(from, to, 0600, work.control);
}

Result<> copy_disk(const Work& work, const VolumeSpec& spec) {
  VIRGA_TRY(const auto source, read_layers(work.from));
  Layers layers{.active = source.active, .snapshots = {}};
  if (!work.snapshot.empty()) {
    const auto found = source.snapshots.find(work.snapshot);
    if (found == source.snapshots.end())
      return fail(ErrorKind::not_found, fmt::format("the volume has no snapshot '{}'", work.snapshot));
    layers.active = found->second;
  }
  if (work.with_snapshots) layers.snapshots = source.snapshots;
  if (spec.size) {
    VIRGA_TRY(const auto size, qcow2_size(work.from + "/" + layers.active.front()));
    if (size != (*spec.size + 511) / 512 * 512)
      return fail(
          Error(ErrorKind::unsupported, fmt::format("the size of a copied disk cannot change yet: it has {}, asked for are {}",
                                                    format_bytes(size), format_bytes(*spec.size)))
              .with_field("size"));
  }
  std::set<std::string> kept(layers.active.begin(), layers.active.end());
  for (const auto& [name, chain] : layers.snapshots) kept.insert(chain.begin(), chain.end());
  const auto written = work.snapshot.empty() ? layers.active.front() : std::string();
  for (const auto& name : kept)
    VIRGA_CHECK(name == written ? io::copy_file(work.from + "/" + name, work.to + "/" + name, 0600, work.control)
                                : link_layer(work, name));
  if (written.empty()) {
    VIRGA_TRY(auto fresh, add_layer(work.to, layers.active.front()));
    layers.active.insert(layers.active.begin(), std::move(fresh));
  }
  VIRGA_CHECK(copy_variables(work.snapshot.empty() ? work.from : snapshot_at(work.from, work.snapshot), work.to, work.control));
  for (const auto& [name, chain] : layers.snapshots) {
    if (!is_directory(snapshot_at(work.from, name))) continue;
    VIRGA_CHECK(io::make_directory(work.to + "/snapshots", 0700));
    VIRGA_CHECK(io::make_directory(snapshot_at(work.to, name), 0100));
    VIRGA_CHECK(copy_variables(snapshot_at(work.from, name), snapshot_at(work.to, name), work.control));
  }
  if (layers.active.size() == 1 && layers.snapshots.empty() && layers.active.front() == "root.qcow2") return {};
  return write_layers(work.to, layers);
}

// --- trees

/// A tree from one directory into another, each a volume's or a snapshot's. Changes over an image are stored shifted, and the
/// directory's owner tells how; a tree of its own has plain ids. One that was never attached belongs to nobody yet.
Result<> copy_changes(const Work& work, const std::string& from, const std::string& to, const std::string& earlier) {
  struct stat st{};
  if (::lstat(from.c_str(), &st) != 0) return fail_errno(errno, fmt::format("stat '{}'", from));
  const bool on_image = is_directory(from + "/upper");
  const std::string tree = on_image ? "/upper" : "/data";
  io::CopyTreeOptions options;
  options.same_lower = work.same_pool;
  if (!earlier.empty() && is_directory(earlier + tree)) options.earlier = earlier + tree;
  uid_t owner = 0;
  if (on_image && st.st_uid != 0) {
    if (!work.shift || work.shift->base == 0) return fail(ErrorKind::internal, fmt::format("copy '{}': no range of ids", from));
    options.ids = io::IdMove{.from = st.st_uid, .to = work.shift->base, .count = work.shift->count};
    owner = work.shift->base;
  }
  VIRGA_CHECK(io::copy_tree(from + tree, to + tree, options, work.control));
  if (on_image) VIRGA_CHECK(io::make_directory(to + "/lower", 0700));
  VIRGA_CHECK(io::make_directory(to + "/rootfs", 0700));
  if (::chown(to.c_str(), owner, 0) != 0) return fail_errno(errno, fmt::format("set the owner of '{}'", to));
  return {};
}

Result<> copy_container(const Work& work) {
  const auto from = work.snapshot.empty() ? work.from : snapshot_at(work.from, work.snapshot);
  if (!is_directory(from)) return fail(ErrorKind::not_found, fmt::format("the volume has no snapshot '{}'", work.snapshot));
  VIRGA_CHECK(copy_changes(work, from, work.to, work.earlier));
  if (is_directory(work.to + "/upper")) VIRGA_CHECK(io::make_directory(work.to + "/work", 0700));
  if (!work.with_snapshots || !is_directory(work.from + "/snapshots")) return {};
  VIRGA_CHECK(io::make_directory(work.to + "/snapshots", 0700));
  VIRGA_TRY(const auto names, io::list_directory(work.from + "/snapshots"));
  for (const auto& name : names) {
    if (name.starts_with('.')) continue;
    VIRGA_CHECK(io::make_directory(snapshot_at(work.to, name), 0100));
    const auto earlier =
        work.earlier.empty() || !is_directory(snapshot_at(work.earlier, name)) ? "" : snapshot_at(work.earlier, name);
    VIRGA_CHECK(copy_changes(work, snapshot_at(work.from, name), snapshot_at(work.to, name), earlier));
  }
  return io::sync_directory(work.to + "/snapshots");
}

Result<> copy_content(const Work& work, const VolumeSpec& spec) {
  VIRGA_TRY(const auto image, backing_of(work.from));
  VIRGA_CHECK(io::make_directory(work.to, 0100));
  if (!image.empty()) {
    const auto target = fmt::format("../../{}/{}", folder_of(VolumeKind::image), image);
    if (::symlink(target.c_str(), (work.to + "/backing").c_str()) != 0)
      return fail_errno(errno, fmt::format("make '{}/backing'", work.to));
  }
  const bool block = is_disk(work.from);
  if (block != (spec.content == ContentType::block)) return fail(ErrorKind::invalid, "they are of different kinds");
  VIRGA_CHECK(block ? copy_disk(work, spec) : copy_container(work));
  return io::sync_directory(work.to);
}

}  // namespace

Result<> copy_volume(const Layout& layout, const VolumeSpec& spec, const Layout& source, const CopySource& from,
                     std::optional<IdShift> shift, bool over, TransferControl& control) {
  const auto path = layout.volume(spec.id), origin = source.volume(from.id), folder = layout.folder(spec.id.kind);
  if (!is_directory(origin)) return fail(ErrorKind::not_found, fmt::format("{} does not exist", to_string(from.id)));
  const bool there = is_directory(path);
  if (there && !over) return fail(ErrorKind::exists, fmt::format("{} exists already", to_string(spec.id)));
  if (!there && over) return fail(ErrorKind::not_found, fmt::format("{} does not exist", to_string(spec.id)));
  if (over) {
    VIRGA_TRY(const auto mounts, io::mounts_below(path));
    if (!mounts.empty()) return fail(ErrorKind::busy, fmt::format("{} is attached", to_string(spec.id)));
  }
  const auto beside = fmt::format("{}/.new-{}", folder, path.substr(folder.size() + 1));
  VIRGA_CHECK(io::remove_tree(beside));
  const Work work{.from = origin,
                  .to = beside,
                  .earlier = over ? path : std::string(),
                  .snapshot = from.snapshot,
                  .with_snapshots = from.with_snapshots,
                  .same_pool = layout.root() == source.root(),
                  .shift = shift,
                  .control = control};
  auto made = copy_content(work, spec);
  if (made && control.stop) made = fail(ErrorKind::cancelled, "cancelled");
  if (made && ::renameat2(AT_FDCWD, beside.c_str(), AT_FDCWD, path.c_str(), over ? RENAME_EXCHANGE : RENAME_NOREPLACE) != 0)
    made = fail_errno(errno, fmt::format("rename to '{}'", path));
  if (!made || over) (void)io::remove_tree(beside);
  if (!made) return fail(std::move(made).error().wrap(fmt::format("copy {} to {}", to_string(from.id), to_string(spec.id))));
  return io::sync_directory(folder);
}

Result<> copy_image(const Layout& layout, const Layout& source, const std::string& fingerprint, TransferControl& control) {
  const auto path = layout.image(fingerprint);
  if (is_directory(path)) return {};
  const auto beside = fmt::format("{}/.copy-{}", layout.folder(VolumeKind::image), random_hex(8));
  auto made = io::copy_tree(source.image(fingerprint), beside, {}, control);
  if (made) made = io::open_path(beside + "/.deleted", O_WRONLY | O_CREAT).map([](const auto&) {});
  if (made && ::renameat2(AT_FDCWD, beside.c_str(), AT_FDCWD, path.c_str(), RENAME_NOREPLACE) != 0 && errno != EEXIST)
    made = fail_errno(errno, fmt::format("rename to '{}'", path));
  if (io::exists(beside)) (void)io::remove_tree(beside);
  if (!made) return fail(std::move(made).error().wrap(fmt::format("copy image '{}' to this pool", fingerprint)));
  return io::sync_directory(layout.folder(VolumeKind::image));
}

}  // namespace virga::storage::dir
