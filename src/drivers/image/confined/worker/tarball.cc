#include "drivers/image/confined/worker/tarball.h"

#include <archive.h>
#include <archive_entry.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "drivers/image/confined/worker/entry_name.h"

namespace virga::image {
namespace {

constexpr Bytes told_every = Bytes(16) << 20;

int add_filter(archive* a, Compression compression) {
  switch (compression) {
    case Compression::none:
      return ::archive_write_add_filter_none(a);
    case Compression::bzip2:
      return ::archive_write_add_filter_bzip2(a);
    case Compression::gzip:
      // Without the time of packing: the same root makes the same bytes.
      if (int r = ::archive_write_add_filter_gzip(a); r != ARCHIVE_OK) return r;
      if (int r = ::archive_write_set_filter_option(a, "gzip", "compression-level", "4"); r != ARCHIVE_OK) return r;
      return ::archive_write_set_filter_option(a, "gzip", "timestamp", nullptr);
    case Compression::xz:
      if (int r = ::archive_write_add_filter_xz(a); r != ARCHIVE_OK) return r;
      return ::archive_write_set_filter_option(a, "xz", "compression-level", "3");
    case Compression::zstd:
      if (int r = ::archive_write_add_filter_zstd(a); r != ARCHIVE_OK) return r;
      return ::archive_write_set_filter_option(a, "zstd", "compression-level", "3");
  }
  return ARCHIVE_FATAL;
}

}  // namespace

Tarball::Tarball(archive* a, Bytes limit, std::function<void(Bytes)> progress)
    : archive_(a), limit_(limit), progress_(std::move(progress)), buffer_(256u << 10, '\0') {}

Tarball::Tarball(Tarball&& other) noexcept
    : archive_(std::exchange(other.archive_, nullptr)),
      limit_(other.limit_),
      read_(other.read_),
      told_(other.told_),
      progress_(std::move(other.progress_)),
      buffer_(std::move(other.buffer_)) {}

Tarball::~Tarball() {
  if (archive_ != nullptr) ::archive_write_free(archive_);
}

Result<Tarball> Tarball::create(int fd, Compression compression, Bytes limit, std::function<void(Bytes)> progress) {
  Tarball t(::archive_write_new(), limit, std::move(progress));
  if (t.archive_ == nullptr) return fail(ErrorKind::unavailable, "no memory for an archive writer");
  auto* a = t.archive_;
  if (::archive_write_set_format_pax_restricted(a) != ARCHIVE_OK || add_filter(a, compression) != ARCHIVE_OK ||
      ::archive_write_set_bytes_in_last_block(a, 1) != ARCHIVE_OK || ::archive_write_open_fd(a, fd) != ARCHIVE_OK)
    return t.failed("begin");
  return t;
}

tl::unexpected<Error> Tarball::failed(std::string_view path) {
  const int e = ::archive_errno(archive_);
  if (e == ENOSPC || e == EDQUOT || e == EFBIG) return fail(ErrorKind::unavailable, "no space is left for the image");
  const char* words = ::archive_error_string(archive_);
  return fail(ErrorKind::invalid,
              fmt::format("'{}' cannot be packed: {}", printable(path), printable(words != nullptr ? words : "unknown reason")));
}

Result<> Tarball::begin(const Entry& from) {
  struct Free {
    void operator()(archive_entry* e) const { ::archive_entry_free(e); }
  };
  std::unique_ptr<archive_entry, Free> entry(::archive_entry_new());
  if (!entry) return fail(ErrorKind::unavailable, "no memory for an archive writer");
  auto* e = entry.get();
  ::archive_entry_set_pathname(e, from.path.c_str());
  ::archive_entry_set_mode(e, static_cast<::mode_t>(from.mode));
  ::archive_entry_set_uid(e, from.uid);
  ::archive_entry_set_gid(e, from.gid);
  ::archive_entry_set_mtime(e, from.modified.tv_sec, from.modified.tv_nsec);
  if (!from.hardlink.empty()) {
    ::archive_entry_set_hardlink(e, from.hardlink.c_str());
    ::archive_entry_unset_size(e);
  } else if (S_ISLNK(from.mode)) {
    ::archive_entry_set_symlink(e, from.symlink.c_str());
  } else if (S_ISREG(from.mode)) {
    ::archive_entry_set_size(e, static_cast<std::int64_t>(from.size));
    for (const auto& [offset, length] : from.data)
      ::archive_entry_sparse_add_entry(e, static_cast<std::int64_t>(offset), static_cast<std::int64_t>(length));
  }
  for (const auto& [name, value] : from.xattrs) ::archive_entry_xattr_add_entry(e, name.c_str(), value.data(), value.size());
  if (::archive_write_header(archive_, e) < ARCHIVE_WARN) return failed(from.path);
  return {};
}

Result<> Tarball::write(const char* data, std::size_t size) {
  read_ += size;
  if (read_ > limit_)
    return fail(ErrorKind::invalid, fmt::format("the root holds more than the {} that an image may have", format_bytes(limit_)));
  while (size > 0) {
    const auto n = ::archive_write_data(archive_, data, size);
    if (n <= 0) return failed("data");
    data += n;
    size -= static_cast<std::size_t>(n);
  }
  if (progress_ && read_ - told_ >= told_every) progress_(told_ = read_);
  return {};
}

/// The writer of sparse entries wants the holes too, and passes over them.
Result<> Tarball::zeros(Bytes count) {
  static const std::string nothing(64u << 10, '\0');
  while (count > 0) {
    const auto piece = std::min<Bytes>(count, nothing.size());
    const auto n = ::archive_write_data(archive_, nothing.data(), piece);
    if (n <= 0) return failed("data");
    count -= static_cast<Bytes>(n);
  }
  return {};
}

Result<> Tarball::file(const Entry& entry, int fd) {
  VIRGA_CHECK(begin(entry));
  Bytes at = 0;
  auto copy = [&](Bytes offset, Bytes length) -> Result<> {
    VIRGA_CHECK(zeros(offset - at));
    for (at = offset; at < offset + length;) {
      const auto want = std::min<Bytes>(buffer_.size(), offset + length - at);
      const auto n = ::pread(fd, buffer_.data(), want, static_cast<off_t>(at));
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) return fail_errno(errno, fmt::format("read '{}'", printable(entry.path)));
      if (n == 0) return fail(ErrorKind::invalid, fmt::format("'{}' became shorter while it was packed", printable(entry.path)));
      VIRGA_CHECK(write(buffer_.data(), static_cast<std::size_t>(n)));
      at += static_cast<Bytes>(n);
    }
    return {};
  };
  if (entry.data.empty()) return copy(0, entry.size);
  for (const auto& [offset, length] : entry.data) VIRGA_CHECK(copy(offset, length));
  return zeros(entry.size - at);
}

Result<> Tarball::text(std::string path, std::string_view content, std::time_t modified) {
  Entry entry;
  entry.path = std::move(path);
  entry.mode = S_IFREG | 0644;
  entry.modified.tv_sec = modified;
  entry.size = content.size();
  VIRGA_CHECK(begin(entry));
  return write(content.data(), content.size());
}

Result<> Tarball::finish() {
  if (::archive_write_close(archive_) != ARCHIVE_OK) return failed("end");
  if (progress_) progress_(read_);
  return {};
}

}  // namespace virga::image
