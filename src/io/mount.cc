#include "io/mount.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>

#include "io/fd.h"
#include "io/file.h"

namespace virga::io {
namespace {

/// mountinfo writes blanks, tabs, line ends and backslashes as \ooo.
std::string unescape(std::string_view text) {
  auto octal = [](char c) { return c >= '0' && c <= '7'; };
  std::string out;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '\\' && i + 3 < text.size() && octal(text[i + 1]) && octal(text[i + 2]) && octal(text[i + 3])) {
      out += static_cast<char>((text[i + 1] - '0') * 64 + (text[i + 2] - '0') * 8 + (text[i + 3] - '0'));
      i += 3;
    } else {
      out += text[i];
    }
  }
  return out;
}

std::vector<std::string_view> words(std::string_view line) {
  std::vector<std::string_view> out;
  while (!line.empty()) {
    const auto space = std::min(line.find(' '), line.size());
    if (space > 0) out.push_back(line.substr(0, space));
    line.remove_prefix(std::min(space + 1, line.size()));
  }
  return out;
}

/// Moves a detached mount to its place.
Result<> place(int mount, const std::string& target) {
  if (::move_mount(mount, "", AT_FDCWD, target.c_str(), MOVE_MOUNT_F_EMPTY_PATH) != 0)
    return fail_errno(errno, fmt::format("mount at '{}'", target));
  return {};
}

/// A file system that is being configured, and the kernel's own words when it refuses.
class Context {
 public:
  static Result<Context> open(const char* type) {
    UniqueFd fd(::fsopen(type, FSOPEN_CLOEXEC));
    if (!fd && errno == ENODEV)
      return fail(Error(ErrorKind::unsupported, fmt::format("this kernel has no file system '{}'", type))
                      .with_hint(fmt::format("try 'modprobe {}'", type)));
    if (!fd) return fail_errno(errno, fmt::format("open file system type '{}'", type));
    return Context(std::move(fd));
  }
  Result<> set(const char* key, const std::string& value) {
    if (::fsconfig(fd_.get(), FSCONFIG_SET_STRING, key, value.c_str(), 0) != 0)
      return refused(fmt::format("mount option '{}={}'", key, value));
    return {};
  }
  Result<> set_flag(const char* key) {
    if (::fsconfig(fd_.get(), FSCONFIG_SET_FLAG, key, nullptr, 0) != 0) return refused(fmt::format("mount option '{}'", key));
    return {};
  }
  Result<UniqueFd> make(unsigned attributes) {
    if (::fsconfig(fd_.get(), FSCONFIG_CMD_CREATE, nullptr, nullptr, 0) != 0) return refused("make the file system");
    UniqueFd mount(::fsmount(fd_.get(), FSMOUNT_CLOEXEC, attributes));
    if (!mount) return refused("make the mount");
    return mount;
  }

 private:
  explicit Context(UniqueFd fd) : fd_(std::move(fd)) {}
  tl::unexpected<Error> refused(std::string what) {
    const int error = errno;
    char line[512];
    const auto n = ::read(fd_.get(), line, sizeof line - 1);  // "e overlay: ...", one message a read
    if (n > 2) what += fmt::format(": {}", std::string_view(line + 2, static_cast<std::size_t>(n) - 2));
    while (what.ends_with('\n')) what.pop_back();
    return fail_errno(error, std::move(what));
  }
  UniqueFd fd_;
};

/// Said rather than left to the kernel's build: redirects let a directory of the image be renamed; no index, as whole volumes are
/// moved about; no metacopy, which would keep a chown cheap but tie data to names in the lower layer.
Result<> set_features(Context& overlay, const char* redirects) {
  VIRGA_CHECK(overlay.set("redirect_dir", redirects));
  VIRGA_CHECK(overlay.set("index", "off"));
  VIRGA_CHECK(overlay.set("metacopy", "off"));
  return overlay.set("xino", "off");
}

}  // namespace

Result<bool> is_mounted(const std::string& path) {
  struct statx st{};
  if (::statx(AT_FDCWD, path.c_str(), AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT, STATX_TYPE, &st) != 0) {
    if (errno == ENOENT || errno == ENOTDIR) return false;
    return fail_errno(errno, fmt::format("stat '{}'", path));
  }
  if ((st.stx_attributes_mask & STATX_ATTR_MOUNT_ROOT) == 0)
    return fail(ErrorKind::unsupported, "this kernel does not tell mount points (Linux 5.8 does)");
  return (st.stx_attributes & STATX_ATTR_MOUNT_ROOT) != 0;
}

std::vector<Mount> parse_mountinfo(std::string_view text) {
  std::vector<Mount> out;
  while (!text.empty()) {
    const auto end = std::min(text.find('\n'), text.size());
    const auto fields = words(text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
    // id parent major:minor root mount-point options optional-fields... - type source super-options
    const auto dash = std::find(fields.begin(), fields.end(), "-");
    if (dash - fields.begin() < 6 || fields.end() - dash < 3) continue;
    Mount m;
    if (std::from_chars(fields[0].data(), fields[0].data() + fields[0].size(), m.id).ec != std::errc()) continue;
    m.mount_point = unescape(fields[4]);
    m.type = unescape(dash[1]);
    m.source = unescape(dash[2]);
    out.push_back(std::move(m));
  }
  return out;
}

Result<std::vector<Mount>> mounts_below(const std::string& path) {
  VIRGA_TRY(auto text, read_file("/proc/self/mountinfo", 64u << 20));
  auto all = parse_mountinfo(text);
  const std::string inside = path.ends_with('/') ? path : path + "/";
  std::erase_if(all, [&](const Mount& m) { return m.mount_point != path && !m.mount_point.starts_with(inside); });
  std::sort(all.begin(), all.end(), [](const Mount& a, const Mount& b) { return a.id < b.id; });
  return all;
}

Result<> bind_mount(const std::string& source, const std::string& target, BindOptions options) {
  UniqueFd tree(::open_tree(AT_FDCWD, source.c_str(), OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_SYMLINK_NOFOLLOW));
  if (!tree) return fail_errno(errno, fmt::format("open tree '{}'", source));
  struct mount_attr attributes{};
  if (options.readonly) attributes.attr_set |= MOUNT_ATTR_RDONLY;
  if (options.nodev) attributes.attr_set |= MOUNT_ATTR_NODEV;
  if (options.user_namespace >= 0) {
    attributes.attr_set |= MOUNT_ATTR_IDMAP;
    attributes.userns_fd = static_cast<__u64>(options.user_namespace);
  }
  if (attributes.attr_set != 0 && ::mount_setattr(tree.get(), "", AT_EMPTY_PATH, &attributes, sizeof attributes) != 0) {
    const int error = errno;
    if (options.user_namespace >= 0 && (error == EINVAL || error == ENOSYS))
      return fail(Error(ErrorKind::unsupported, fmt::format("the file system of '{}' cannot show ids shifted", source))
                      .with_hint("ext4, xfs and btrfs can from Linux 5.15 on, tmpfs from 6.3 on"));
    return fail_errno(error, fmt::format("set up the bind mount of '{}'", source));
  }
  return place(tree.get(), target);
}

bool overlay_path_ok(std::string_view path) noexcept {
  return path.find_first_of(",:\\") == std::string_view::npos;
}

Result<> mount_overlay(const OverlayOptions& options, const std::string& target) {
  for (const auto* path : {&options.lower, &options.upper, &options.work})
    if (!overlay_path_ok(*path))
      return fail(ErrorKind::invalid, fmt::format("'{}': a path with ',', ':' or a backslash cannot be an overlay's", *path));
  VIRGA_TRY(auto context, Context::open("overlay"));
  VIRGA_CHECK(context.set("source", options.source));
  VIRGA_CHECK(context.set("lowerdir", options.lower));
  VIRGA_CHECK(context.set("upperdir", options.upper));
  VIRGA_CHECK(context.set("workdir", options.work));
  VIRGA_CHECK(set_features(context, "on"));
  VIRGA_TRY(auto mount, context.make(options.nodev ? MOUNT_ATTR_NODEV : 0));
  return place(mount.get(), target);
}

Result<> mount_readonly_overlay(const std::vector<std::string>& layers, const std::string& source, bool nodev,
                                const std::string& target) {
  // By descriptors: an option's value is at most 255 bytes long, less than two paths may be.
  std::vector<UniqueFd> opened;
  std::string lower;
  for (const auto& layer : layers) {
    VIRGA_TRY(auto fd, open_path(layer, O_PATH | O_DIRECTORY));
    lower += fmt::format("{}/proc/self/fd/{}", lower.empty() ? "" : ":", fd.get());
    opened.push_back(std::move(fd));
  }
  VIRGA_TRY(auto context, Context::open("overlay"));
  VIRGA_CHECK(context.set("source", source));
  VIRGA_CHECK(context.set("lowerdir", lower));
  VIRGA_CHECK(set_features(context, "follow"));
  VIRGA_TRY(auto mount, context.make(MOUNT_ATTR_RDONLY | (nodev ? MOUNT_ATTR_NODEV : 0)));
  return place(mount.get(), target);
}

Result<> unmount(const std::string& path) {
  for (int stacked = 0; stacked < 64; ++stacked) {
    if (::umount2(path.c_str(), UMOUNT_NOFOLLOW) == 0) continue;
    if (errno == EBUSY && ::umount2(path.c_str(), UMOUNT_NOFOLLOW | MNT_DETACH) == 0) continue;
    if (errno == EINVAL || errno == ENOENT || errno == ENOTDIR) return {};  // nothing (left) to unmount
    return fail_errno(errno, fmt::format("unmount '{}'", path));
  }
  return fail(ErrorKind::busy, fmt::format("'{}' keeps being mounted", path));
}

Result<> unmount_below(const std::string& path) {
  VIRGA_TRY(auto mounts, mounts_below(path));
  for (auto m = mounts.rbegin(); m != mounts.rend(); ++m) VIRGA_CHECK(unmount(m->mount_point));
  return {};
}

}  // namespace virga::io
