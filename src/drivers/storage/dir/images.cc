// Image volumes: unpacked into a stage by the image reader, checked, made durable and renamed into place.
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <string_view>

#include "drivers/storage/dir/layout.h"
#include "io/file.h"

namespace virga::storage::dir {
namespace {

/// The archive chose what lies in the stage: at its top are plain files and directories, those with a meaning of the right type.
Result<> check_stage(int stage, ContentType content) {
  static constexpr std::array<std::string_view, 2> directories = {"rootfs", "templates"};
  static constexpr std::array<std::string_view, 5> files = {"disk.qcow2", "kernel", "initrd", "cmdline", "metadata.yaml"};
  bool root = false;
  Result<> verdict;
  auto look = [&](const char* entry) {
    const std::string_view name = entry;
    struct stat st{};
    if (::fstatat(stage, entry, &st, AT_SYMLINK_NOFOLLOW) != 0) verdict = fail_errno(errno, "stat in the unpacked image");
    const bool want_directory = std::find(directories.begin(), directories.end(), name) != directories.end();
    const bool want_file = std::find(files.begin(), files.end(), name) != files.end();
    const bool right = want_directory ? S_ISDIR(st.st_mode)
                       : want_file    ? S_ISREG(st.st_mode)
                                      : S_ISDIR(st.st_mode) || S_ISREG(st.st_mode);
    if (verdict && (name.starts_with('.') || !right))
      verdict = fail(ErrorKind::invalid, "the image holds a top-level entry of a wrong type or name");
    root |= name == (content == ContentType::block ? "disk.qcow2" : "rootfs");
    // QEMU's own user reads these through descriptors; the folder above keeps everybody else out.
    if (verdict && (name == "kernel" || name == "initrd")) (void)::fchmodat(stage, entry, 0644, 0);
    return verdict.has_value();
  };
  VIRGA_CHECK(io::each_entry(stage, look));
  if (verdict && !root)
    verdict =
        fail(ErrorKind::invalid, content == ContentType::block ? "the image holds no 'disk.qcow2'" : "the image holds no 'rootfs'");
  return verdict;
}

}  // namespace

Result<> stage_image(const Layout& layout, const std::string& fingerprint) {
  const auto path = layout.stage(fingerprint);
  VIRGA_CHECK(io::remove_tree(path));
  return io::make_directory(path, 0700);
}

Result<> publish_image(const Layout& layout, const std::string& fingerprint, ContentType content) {
  const auto path = layout.image(fingerprint), stage = layout.stage(fingerprint);
  const auto mark = path + "/.deleted";
  if (is_directory(path)) {  // a fingerprint names its content: what is there is the same image
    if (::unlink(mark.c_str()) != 0 && errno != ENOENT) return fail_errno(errno, fmt::format("bring image '{}' back", fingerprint));
    VIRGA_CHECK(io::sync_directory(path));
    return io::remove_tree(stage);
  }
  VIRGA_TRY(auto fd, io::open_path(stage, O_RDONLY | O_DIRECTORY));
  VIRGA_CHECK(check_stage(fd.get(), content));
  if (::fchmod(fd.get(), 0700) != 0 || ::fchown(fd.get(), 0, 0) != 0)
    return fail_errno(errno, fmt::format("set the mode of image '{}'", fingerprint));
  // The reader wrote many files without waiting for the disk; one call makes them all durable.
  if (::syncfs(fd.get()) != 0) return fail_errno(errno, fmt::format("sync image '{}'", fingerprint));
  if (::rename(stage.c_str(), path.c_str()) != 0) return fail_errno(errno, fmt::format("publish image '{}'", fingerprint));
  return io::sync_directory(layout.folder(VolumeKind::image));
}

Result<> mark_deleted(const Layout& layout, const std::string& fingerprint) {
  const auto path = layout.image(fingerprint) + "/.deleted";
  VIRGA_CHECK(io::open_path(path, O_WRONLY | O_CREAT));
  return io::sync_directory(layout.image(fingerprint));
}

}  // namespace virga::storage::dir
