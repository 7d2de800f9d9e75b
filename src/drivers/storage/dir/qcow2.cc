#include "drivers/storage/dir/qcow2.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <concepts>
#include <cstdint>
#include <string_view>

#include "io/file.h"

namespace virga::storage::dir {
namespace {

constexpr unsigned cluster_bits = 16;
constexpr Bytes cluster = Bytes(1) << cluster_bits;
constexpr Bytes bytes_per_l1_entry = cluster * (cluster / 8);  // one L2 table of 8-byte entries
constexpr std::string_view magic = "QFI\xfb";

template <std::unsigned_integral T>
void put(std::string& out, T value) {
  for (int shift = static_cast<int>(sizeof value) * 8 - 8; shift >= 0; shift -= 8) out += static_cast<char>(value >> shift & 0xff);
}

Result<> write_at(int fd, std::string_view text, Bytes offset, const std::string& path) {
  while (!text.empty()) {
    const auto n = ::pwrite(fd, text.data(), text.size(), static_cast<off_t>(offset));
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return fail_errno(n < 0 ? errno : ENOSPC, fmt::format("write '{}'", path));
    text.remove_prefix(static_cast<std::size_t>(n));
    offset += static_cast<Bytes>(n);
  }
  return {};
}

}  // namespace

// cluster 0: header | 1: refcount table, one entry | 2: refcount block | 3..: L1 table, all zero: every read goes to the backing
// file
Result<Qcow2Layout> plan_qcow2(const Qcow2Spec& spec) {
  if (spec.size == 0 || spec.size % 512 != 0 || spec.size > Bytes(1) << 50)
    return invalid("size", fmt::format("a disk of {} bytes cannot be made", spec.size));
  if (spec.backing.size() > 1023) return fail(ErrorKind::invalid, "the path of the image is too long for a disk header");
  const auto l1_entries = static_cast<std::uint32_t>((spec.size + bytes_per_l1_entry - 1) / bytes_per_l1_entry);
  const Bytes l1_clusters = (Bytes(l1_entries) * 8 + cluster - 1) / cluster;

  std::string extensions;
  if (!spec.backing.empty()) {
    put(extensions, std::uint32_t(0xE2792ACA));  // the backing file's format, so that nobody ever guesses it
    put(extensions, std::uint32_t(5));
    extensions += std::string_view("qcow2\0\0\0", 8);
  }
  put(extensions, std::uint64_t(0));
  constexpr std::uint32_t header_length = 104;
  const Bytes name_at = spec.backing.empty() ? 0 : header_length + extensions.size();

  Qcow2Layout out;
  auto& h = out.header;
  h = magic;
  put(h, std::uint32_t(3));
  put(h, std::uint64_t(name_at));
  put(h, static_cast<std::uint32_t>(spec.backing.size()));
  put(h, std::uint32_t(cluster_bits));
  put(h, std::uint64_t(spec.size));
  put(h, std::uint32_t(0));  // not encrypted
  put(h, l1_entries);
  put(h, std::uint64_t(3 * cluster));  // L1 table
  put(h, std::uint64_t(cluster));      // refcount table
  put(h, std::uint32_t(1));            // of one cluster
  put(h, std::uint32_t(0));            // no snapshots
  put(h, std::uint64_t(0));
  put(h, std::uint64_t(0));  // features: incompatible, compatible, autoclear
  put(h, std::uint64_t(0));
  put(h, std::uint64_t(0));
  put(h, std::uint32_t(4));  // 16-bit refcounts
  put(h, header_length);
  h += extensions;
  h += spec.backing;

  put(out.refcount_table, std::uint64_t(2 * cluster));
  for (Bytes n = 0; n < 3 + l1_clusters; ++n) put(out.refcount_block, std::uint16_t(1));
  out.length = (3 + l1_clusters) * cluster;
  return out;
}

Result<> create_qcow2(const std::string& path, const Qcow2Spec& spec) {
  VIRGA_TRY(auto plan, plan_qcow2(spec));
  VIRGA_TRY(auto fd, io::open_path(path, O_WRONLY | O_CREAT | O_EXCL));
  if (::ftruncate(fd.get(), static_cast<off_t>(plan.length)) != 0) return fail_errno(errno, fmt::format("size '{}'", path));
  VIRGA_CHECK(write_at(fd.get(), plan.header, 0, path));
  VIRGA_CHECK(write_at(fd.get(), plan.refcount_table, cluster, path));
  VIRGA_CHECK(write_at(fd.get(), plan.refcount_block, 2 * cluster, path));
  if (::fsync(fd.get()) != 0) return fail_errno(errno, fmt::format("fsync '{}'", path));
  return {};
}

Result<Bytes> qcow2_size(const std::string& path) {
  VIRGA_TRY(auto fd, io::open_path(path, O_RDONLY));
  char header[32] = {};
  if (::pread(fd.get(), header, sizeof header, 0) != sizeof header || std::string_view(header, 4) != magic)
    return fail(ErrorKind::invalid, fmt::format("'{}' is no qcow2 file", path));
  Bytes size = 0;
  for (int i = 24; i < 32; ++i) size = size << 8 | static_cast<unsigned char>(header[i]);
  return size;
}

}  // namespace virga::storage::dir
