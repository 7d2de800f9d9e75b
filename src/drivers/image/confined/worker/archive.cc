#include "drivers/image/confined/worker/archive.h"

#include <archive.h>
#include <archive_entry.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include <cerrno>
#include <limits>

#include "drivers/image/confined/worker/entry_name.h"

namespace virga::image {
namespace {

tl::unexpected<Error> refuse(std::string_view path, std::string_view why) {
  return fail(ErrorKind::invalid, fmt::format("entry '{}': {}", printable(path), why));
}

/// Trees made by debootstrap hold these in /dev; a container's /dev is made by us, so they are left out rather than refused.
/// Everything else that is a device is an attack or a mistake (a character device 0:0 would hide files from the container's
/// overlay).
bool standard_device(std::string_view path, unsigned type, dev_t rdev) {
  if (type != AE_IFCHR) return false;
  if (path.starts_with("rootfs/")) path.remove_prefix(7);
  if (!path.starts_with("dev/")) return false;
  path.remove_prefix(4);
  struct Known {
    std::string_view name;
    unsigned major_, minor_;
  };
  static constexpr Known known[] = {{"null", 1, 3},    {"zero", 1, 5}, {"full", 1, 7},    {"random", 1, 8},
                                    {"urandom", 1, 9}, {"tty", 5, 0},  {"console", 5, 1}, {"ptmx", 5, 2}};
  for (const auto& k : known)
    if (path == k.name && ::major(rdev) == k.major_ && ::minor(rdev) == k.minor_) return true;
  return false;
}

}  // namespace

Result<std::unique_ptr<Archive>> Archive::open(int fd, Budget& budget, Dropped& dropped, bool trusted_end) {
  auto* a = ::archive_read_new();
  if (a == nullptr) return fail(ErrorKind::unavailable, "no memory for an archive reader");
  std::unique_ptr<Archive> self(new Archive(a, budget, dropped));
  self->trusted_end_ = trusted_end;
  // Only what image builders use; each further format is more code that strangers reach.
  ::archive_read_support_format_tar(a);
  ::archive_read_support_filter_gzip(a);
  ::archive_read_support_filter_bzip2(a);
  ::archive_read_support_filter_xz(a);
  ::archive_read_support_filter_zstd(a);
  if (::archive_read_open_fd(a, fd, 128u << 10) != ARCHIVE_OK) return self->failed("open");
  if (::archive_filter_count(a) > 2) return fail(ErrorKind::invalid, "the archive is packed more than once");
  return self;
}

Archive::~Archive() {
  ::archive_read_free(archive_);
}

tl::unexpected<Error> Archive::failed(std::string_view what) {
  const char* words = ::archive_error_string(archive_);
  const int e = ::archive_errno(archive_);
  if (e == ENOMEM) return fail(ErrorKind::invalid, "the archive needs more memory to read than is allowed");
  return fail(ErrorKind::invalid,
              fmt::format("malformed archive ({}): {}", what, printable(words != nullptr ? words : "unreadable")));
}

Result<std::optional<Node>> Archive::next() {
  for (;;) {
    archive_entry* entry = nullptr;
    const int r = ::archive_read_next_header(archive_, &entry);
    if (r == ARCHIVE_EOF) {
      // A tarball that was cut between two entries looks like a shorter one; a whole one has an end mark behind its last entry.
      if (!trusted_end_ && ::archive_filter_bytes(archive_, 0) <= entry_end_)
        return fail(ErrorKind::invalid, "the archive ends too early");
      return std::nullopt;
    }
    if (r != ARCHIVE_OK && r != ARCHIVE_WARN) return failed("header");
    if (budget_.entries == 0) return fail(ErrorKind::invalid, "the archive has more entries than allowed");
    --budget_.entries;
    VIRGA_TRY(auto node, convert(entry));
    if (!node) {
      if (::archive_read_data_skip(archive_) != ARCHIVE_OK) return failed("skip");
      entry_end_ = ::archive_filter_bytes(archive_, 0);
      continue;
    }
    current_ = *node;
    if (current_.kind != NodeKind::file || current_.size == 0) {
      if (::archive_read_data_skip(archive_) != ARCHIVE_OK) return failed("skip");
      entry_end_ = ::archive_filter_bytes(archive_, 0);
    }
    return node;
  }
}

Result<std::optional<Node>> Archive::convert(archive_entry* entry) {
  const char* raw = ::archive_entry_pathname(entry);
  if (raw == nullptr) return fail(ErrorKind::invalid, "malformed archive: an entry without a name that can be read");
  Node node;
  VIRGA_TRY(node.path, clean_name(raw));
  node.mode = static_cast<unsigned>(::archive_entry_perm(entry)) & 07777;
  const auto uid = ::archive_entry_uid(entry), gid = ::archive_entry_gid(entry);
  constexpr std::int64_t max_id = std::numeric_limits<std::int32_t>::max();
  if (uid < 0 || uid > max_id || gid < 0 || gid > max_id) return refuse(raw, "its owner is out of range");
  node.uid = static_cast<std::uint32_t>(uid);
  node.gid = static_cast<std::uint32_t>(gid);
  if (::archive_entry_mtime_is_set(entry)) {
    node.modified.tv_sec = ::archive_entry_mtime(entry);
    node.modified.tv_nsec = ::archive_entry_mtime_nsec(entry);
    if (node.modified.tv_nsec < 0 || node.modified.tv_nsec > 999'999'999) node.modified.tv_nsec = 0;
  }
  if (const char* target = ::archive_entry_hardlink(entry)) {
    node.kind = NodeKind::hardlink;
    VIRGA_TRY(node.target, clean_name(target));
    if (node.target.empty()) return refuse(raw, "a hard link to a directory");
    return node;
  }
  const auto type = ::archive_entry_filetype(entry);
  switch (type) {
    case AE_IFREG: {
      node.kind = NodeKind::file;
      const auto size = ::archive_entry_size(entry);
      if (size < 0 || static_cast<Bytes>(size) > budget_.bytes) return refuse(raw, "the image unpacks to more than allowed");
      node.size = static_cast<Bytes>(size);
      budget_.bytes -= node.size;
      break;
    }
    case AE_IFDIR:
      node.kind = NodeKind::directory;
      break;
    case AE_IFLNK: {
      node.kind = NodeKind::symlink;
      const char* target = ::archive_entry_symlink(entry);
      if (target == nullptr || *target == '\0') return refuse(raw, "a symbolic link to nothing");
      node.target = target;
      if (node.target.size() > 4095) return refuse(raw, "the target of a symbolic link is too long");
      break;
    }
    case AE_IFIFO:
      node.kind = NodeKind::fifo;
      break;
    case AE_IFCHR:
    case AE_IFBLK:
      if (standard_device(node.path, type, ::archive_entry_rdev(entry))) {
        ++dropped_.devices;
        return std::nullopt;
      }
      return refuse(raw, "device nodes are not accepted");
    case AE_IFSOCK:
      return refuse(raw, "sockets are not accepted");
    default:
      return refuse(raw, "it is of an unknown type");
  }
  collect_xattrs(entry, node);
  return node;
}

/// user.* is what programs may set without privilege. trusted.* and security.* steer the kernel (overlayfs, file capabilities,
/// labels) and user.overlay.* steers an overlay mounted with "userxattr", so they are left out.
void Archive::collect_xattrs(archive_entry* entry, Node& node) {
  constexpr std::size_t max_size = 64u << 10, max_count = 64;
  if (::archive_entry_acl_count(entry, ARCHIVE_ENTRY_ACL_TYPE_ACCESS | ARCHIVE_ENTRY_ACL_TYPE_DEFAULT) > 3) ++dropped_.xattrs;
  ::archive_entry_xattr_reset(entry);
  const char* name = nullptr;
  const void* value = nullptr;
  std::size_t size = 0;
  while (::archive_entry_xattr_next(entry, &name, &value, &size) == ARCHIVE_OK) {
    const std::string_view n(name != nullptr ? name : "");
    const bool may_have = node.kind == NodeKind::file || node.kind == NodeKind::directory;
    if (!may_have || !n.starts_with("user.") || n.size() == 5 || n.size() > 255 || n.starts_with("user.overlay.") ||
        size > max_size || node.xattrs.size() >= max_count) {
      ++dropped_.xattrs;
      continue;
    }
    node.xattrs.emplace_back(n, std::string(static_cast<const char*>(value), size));
  }
}

Result<> Archive::data(const std::function<Result<>(Bytes, std::span<const char>)>& sink) {
  if (current_.kind != NodeKind::file || current_.size == 0) return {};
  for (;;) {
    const void* block = nullptr;
    std::size_t size = 0;
    la_int64_t offset = 0;
    const int r = ::archive_read_data_block(archive_, &block, &size, &offset);
    if (r == ARCHIVE_EOF) break;
    if (r != ARCHIVE_OK) return failed("data");
    if (offset < 0 || static_cast<Bytes>(offset) > current_.size || size > current_.size - static_cast<Bytes>(offset))
      return refuse(current_.path, "its data reaches beyond its size");
    VIRGA_CHECK(sink(static_cast<Bytes>(offset), {static_cast<const char*>(block), size}));
  }
  entry_end_ = ::archive_filter_bytes(archive_, 0);
  // What pads the data to the next block has not been read yet; an end mark is two whole blocks behind it.
  entry_end_ = (entry_end_ + 511) / 512 * 512;
  return {};
}

}  // namespace virga::image
