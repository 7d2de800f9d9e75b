// What volumes take on disk. Guests decide how many files there are, so counting stops at a bound.
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "drivers/storage/dir/layers.h"
#include "drivers/storage/dir/layout.h"
#include "drivers/storage/dir/qcow2.h"
#include "io/file.h"

namespace virga::storage::dir {
namespace {

constexpr std::uint64_t most_entries = 500'000;
constexpr int most_levels = 256;

class Counter {
 public:
  Result<Bytes> count(const std::string& path) {
    VIRGA_TRY(auto fd, io::open_path(path, O_RDONLY | O_DIRECTORY));
    walk(fd.get(), 0);
    return blocks_ * 512;
  }

 private:
  /// What cannot be read, because it is gone meanwhile, counts as nothing.
  void walk(int directory, int level) {
    auto count_entry = [&](const char* name) {
      if (++entries_ > most_entries) return false;
      struct stat st{};
      if (::fstatat(directory, name, &st, AT_SYMLINK_NOFOLLOW) != 0) return true;
      blocks_ += static_cast<Bytes>(st.st_blocks) / (S_ISREG(st.st_mode) && st.st_nlink > 1 ? st.st_nlink : 1);
      if (!S_ISDIR(st.st_mode) || level >= most_levels) return true;
      if (auto sub = io::open_in(directory, name, O_RDONLY | O_DIRECTORY)) walk(sub->get(), level + 1);
      return true;
    };
    (void)io::each_entry(directory, count_entry);
  }
  Bytes blocks_ = 0;
  std::uint64_t entries_ = 0;
};

}  // namespace

namespace {

/// The layers' own blocks; what other volumes have, too, counts as their share.
Result<Usage> disk_usage(const std::string& directory, const std::vector<std::string>& files) {
  Usage out;
  for (const auto& file : files) {
    struct stat st{};
    const auto path = directory + "/" + file;
    if (::lstat(path.c_str(), &st) != 0) return fail_errno(errno, fmt::format("stat '{}'", path));
    out.used += static_cast<Bytes>(st.st_blocks) * 512 / std::max<Bytes>(st.st_nlink, 1);
  }
  VIRGA_TRY(out.total, qcow2_size(directory + "/" + files.front()));
  return out;
}

}  // namespace

Result<Usage> volume_usage(const Layout& layout, const VolumeId& id) {
  const auto volume = layout.volume(id);
  if (!is_directory(volume)) return fail(ErrorKind::not_found, fmt::format("{} does not exist", to_string(id)));
  if (id.kind == VolumeKind::image && is_regular(volume + "/disk.qcow2")) return disk_usage(volume, {"disk.qcow2"});
  if (id.kind != VolumeKind::image && is_disk(volume)) {
    VIRGA_TRY(auto layers, read_layers(volume));
    return disk_usage(volume, layers.active);
  }
  for (const auto* tree : {"/upper", "/data"})
    if (id.kind != VolumeKind::image && is_directory(volume + tree)) {
      VIRGA_TRY(auto used, Counter().count(volume + tree));
      return Usage{.used = used, .total = {}};
    }
  VIRGA_TRY(auto used, Counter().count(volume));
  return Usage{.used = used, .total = {}};
}

Result<Usage> snapshot_usage(const Layout& layout, const VolumeId& id, const std::string& name) {
  const auto volume = layout.volume(id);
  auto absent = [&] { return fail(ErrorKind::not_found, fmt::format("{} has no snapshot '{}'", to_string(id), name)); };
  if (is_disk(volume)) {
    VIRGA_TRY(auto layers, read_layers(volume));
    auto found = layers.snapshots.find(name);
    if (found == layers.snapshots.end()) return absent();
    return disk_usage(volume, {found->second.front()});
  }
  const auto at = volume + "/snapshots/" + name;
  if (!is_directory(at)) return absent();
  for (const auto* tree : {"/upper", "/data"})
    if (is_directory(at + tree)) {
      VIRGA_TRY(auto used, Counter().count(at + tree));
      return Usage{.used = used, .total = {}};
    }
  return absent();
}

Result<Usage> file_system_usage(const std::string& path) {
  struct statvfs st{};
  if (::statvfs(path.c_str(), &st) != 0) return fail_errno(errno, fmt::format("statvfs '{}'", path));
  return Usage{.used = (st.f_blocks - st.f_bfree) * st.f_frsize, .total = st.f_blocks * st.f_frsize};
}

}  // namespace virga::storage::dir
