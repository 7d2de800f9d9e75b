#include "drivers/storage/dir/layout.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>

#include "base/log.h"
#include "base/random.h"
#include "drivers/storage/dir/layers.h"
#include "io/fd.h"
#include "io/file.h"
#include "io/mount.h"

namespace virga::storage::dir {
namespace {

struct Folder {
  VolumeKind kind;
  unsigned mode;
};
// Containers' init reaches its root as the container's own user, so those folders let others pass, never list.
constexpr std::array folders = {Folder{VolumeKind::container, 0711}, Folder{VolumeKind::virtual_machine, 0700},
                                Folder{VolumeKind::image, 0700}, Folder{VolumeKind::custom, 0711}};

bool mode_is(const std::string& path, mode_t type) {
  struct stat st{};
  return ::lstat(path.c_str(), &st) == 0 && (st.st_mode & S_IFMT) == type;
}

/// Half-made volumes, half-removed ones, stages: nothing refers to them.
Result<> sweep(const Layout& layout, VolumeKind kind) {
  VIRGA_TRY(auto names, io::list_directory(layout.folder(kind)));
  for (const auto& name : names) {
    if (!name.starts_with('.')) continue;
    const auto path = layout.folder(kind) + "/" + name;
    log::info("pool at '{}': removing '{}/{}', left by an interrupted operation", layout.root(), folder_of(kind), name);
    VIRGA_CHECK(io::unmount_below(path));
    VIRGA_CHECK(io::remove_tree(path));
  }
  return {};
}

}  // namespace

bool is_directory(const std::string& path) {
  return mode_is(path, S_IFDIR);
}
bool is_regular(const std::string& path) {
  return mode_is(path, S_IFREG);
}

Result<> discard(const Layout& layout, VolumeKind kind, const std::string& path) {
  const auto away = fmt::format("{}/.gone-{}", layout.folder(kind), random_hex(8));
  if (::rename(path.c_str(), away.c_str()) != 0) {
    if (errno == ENOENT) return {};
    return fail_errno(errno, fmt::format("remove '{}'", path));
  }
  VIRGA_CHECK(io::sync_directory(layout.folder(kind)));
  return io::remove_tree(away);
}

Result<> prepare(const Layout& layout) {
  const auto& root = layout.root();
  if (!root.starts_with('/') || root.find("/../") != std::string::npos || root.ends_with('/') || !io::overlay_path_ok(root) ||
      root.find_first_of(std::string_view("\n\0", 2)) != std::string::npos)
    return invalid("source",
                   fmt::format("'{}' cannot hold a pool: an absolute path without ',', ':', backslash or '..' can", root));
  if (is_directory(root) && !is_directory(layout.folder(VolumeKind::container))) {
    VIRGA_TRY(auto names, io::list_directory(root));
    for (const auto& name : names)
      if (name != "lost+found" &&
          std::none_of(folders.begin(), folders.end(), [&](const Folder& f) { return folder_of(f.kind) == name; }))
        return fail(Error(ErrorKind::exists, fmt::format("source '{}' holds other things: '{}'", root, name))
                        .with_hint("name an empty directory"));
  }
  VIRGA_CHECK(io::make_directory(root, 0711));
  for (auto f : folders) {
    VIRGA_CHECK(io::make_directory(layout.folder(f.kind), f.mode));
    VIRGA_CHECK(sweep(layout, f.kind));
  }
  return io::sync_directory(root);
}

Result<> take_away(const Layout& layout) {
  for (auto f : folders) {
    const auto path = layout.folder(f.kind);
    if (::rmdir(path.c_str()) != 0 && errno != ENOENT)
      return fail_errno(errno == ENOTEMPTY ? EBUSY : errno, fmt::format("remove '{}'", path));
  }
  ::rmdir(layout.root().c_str());  // stays where it is a file system of its own
  return {};
}

Result<Scan> scan(const Layout& layout) {
  Scan out;
  for (auto f : folders) {
    VIRGA_TRY(auto names, io::list_directory(layout.folder(f.kind)));
    for (const auto& name : names) {
      const auto id = parse_entry(f.kind, name);
      const auto path = layout.folder(f.kind) + "/" + name;
      if (!id || !is_directory(path)) continue;
      if (f.kind == VolumeKind::image) {
        const auto content = is_regular(path + "/disk.qcow2") ? ContentType::block : ContentType::filesystem;
        out.images[name] = {.content = content, .deleted = io::exists(path + "/.deleted")};
        continue;
      }
      const auto content = is_disk(path) ? ContentType::block : ContentType::filesystem;
      auto image = backing_of(path);
      if (!image) {
        log::error("pool at '{}': {}: {}", layout.root(), to_string(*id), image.error().text());
        out.damaged = true;
      }
      out.volumes.push_back({.info = {.id = *id, .content = content}, .image = image.value_or("")});
    }
  }
  return out;
}

}  // namespace virga::storage::dir
