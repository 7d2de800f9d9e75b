#include "drivers/image/confined/worker/disk_header.h"

#include <fmt/format.h>

#include <cstdint>
#include <optional>

namespace virga::image {
namespace {

using namespace std::string_view_literals;

/// Big-endian fields; reading beyond the end yields zero and is remembered.
class Header {
 public:
  explicit Header(std::string_view bytes) : bytes_(bytes) {}
  std::uint32_t u32(std::size_t at) { return static_cast<std::uint32_t>(number(at, 4)); }
  std::uint64_t u64(std::size_t at) { return number(at, 8); }
  std::uint8_t u8(std::size_t at) { return static_cast<std::uint8_t>(number(at, 1)); }
  bool short_read() const { return short_; }

 private:
  std::uint64_t number(std::size_t at, std::size_t n) {
    if (at > bytes_.size() || bytes_.size() - at < n) {
      short_ = true;
      return 0;
    }
    std::uint64_t v = 0;
    for (std::size_t i = 0; i < n; ++i) v = v << 8 | static_cast<unsigned char>(bytes_[at + i]);
    return v;
  }
  std::string_view bytes_;
  bool short_ = false;
};

/// The name of a disk format that we know and do not take.
std::optional<std::string_view> other_format(std::string_view head) {
  struct Magic {
    std::size_t at;
    std::string_view bytes, name;
  };
  static constexpr Magic magics[] = {
      {0, "KDMV"sv, "VMDK"},
      {0, "COWD"sv, "VMDK"},
      {0, "# Disk DescriptorFile"sv, "VMDK"},
      {0, "vhdxfile"sv, "VHDX"},
      {64, "\x7f\x10\xda\xbe"sv, "VDI"},
      {0, "conectix"sv, "VHD"},
      {0, "QED\0"sv, "QED"},
      {0, "LUKS\xba\xbe"sv, "LUKS"},
      {0, "WithoutFreeSpace"sv, "Parallels"},
      {0, "WithouFreSpacExt"sv, "Parallels"},
      {0, "OOOM"sv, "COW"},
  };
  for (const auto& m : magics)
    if (head.size() >= m.at && head.substr(m.at).starts_with(m.bytes)) return m.name;
  return std::nullopt;
}

tl::unexpected<Error> bad(std::string what) {
  return fail(ErrorKind::invalid, "qcow2 disk: " + std::move(what));
}

/// A table of `entries` times 8 bytes must begin at a cluster and end inside the file.
Result<> check_table(std::string_view name, std::uint64_t offset, std::uint64_t bytes, unsigned cluster_bits, Bytes file_size) {
  const std::uint64_t cluster = std::uint64_t(1) << cluster_bits;
  if (offset == 0 || offset % cluster != 0) return bad(fmt::format("its {} table is not where a table can be", name));
  if (offset > file_size || bytes > file_size - offset) return bad(fmt::format("its {} table lies outside the file", name));
  return {};
}

Result<> check_extensions(std::string_view head, std::size_t at, std::size_t end) {
  constexpr std::uint32_t backing_format = 0xe2792aca, data_file = 0x44415441, encryption = 0x0537be77, bitmaps = 0x23852875;
  Header h(head);
  for (;;) {
    if (at + 8 > end) return {};  // the area may end without the end mark
    const auto type = h.u32(at), length = h.u32(at + 4);
    if (h.short_read()) return bad("its header ends too early");
    if (type == 0) return {};
    if (length > end - at - 8) return bad("a header extension reaches beyond the header");
    if (type == data_file) return bad("it keeps its data in another file, which is refused");
    if (type == encryption) return bad("it is encrypted, which is refused");
    if (type == backing_format) return bad("it names the format of a backing file, which is refused");
    if (type == bitmaps) return bad("it carries dirty bitmaps, which are refused");
    at += 8 + (std::size_t(length) + 7) / 8 * 8;
  }
}

Result<> check_version_3(std::string_view head, unsigned cluster_bits, bool& wide_l2) {
  Header h(head);
  const auto incompatible = h.u64(72);
  const auto refcount_order = h.u32(96), length = h.u32(100);
  if (h.short_read()) return bad("its header ends too early");
  if (incompatible & 1) return bad("it was not closed cleanly; repair it with 'qemu-img check -r all'");
  if (incompatible & 2) return bad("it is marked as corrupt");
  if (incompatible & 4) return bad("it keeps its data in another file, which is refused");
  if (incompatible & ~std::uint64_t(0x1f))
    return bad(fmt::format("it needs features that are not known here ({:#x})", incompatible));
  wide_l2 = (incompatible & 16) != 0;
  if (wide_l2 && cluster_bits < 14) return bad("its clusters are too small for subclusters");
  if (refcount_order > 6) return bad("its reference counts are wider than 64 bits");
  if (length < 104 || length % 8 != 0 || length > (std::uint64_t(1) << cluster_bits))
    return bad("its header has an impossible length");
  if (length >= 112) {
    const auto compression = h.u8(104);
    if (compression > 1) return bad("it is compressed in a way that is not known here");
    if ((compression != 0) != ((incompatible & 8) != 0)) return bad("its header contradicts itself about compression");
  } else if (incompatible & 8) {
    return bad("its header contradicts itself about compression");
  }
  return check_extensions(head, length, std::size_t(1) << cluster_bits);
}

}  // namespace

Result<DiskHeader> inspect_qcow2(std::string_view head, Bytes file_size) {
  if (!head.starts_with("QFI\xfb"sv)) {
    if (auto name = other_format(head))
      return fail(Error(ErrorKind::unsupported, fmt::format("the disk is a {} image, which is not accepted", *name))
                      .with_hint("convert it first: qemu-img convert -O qcow2"));
    return fail(Error(ErrorKind::unsupported, "the disk is not a qcow2 image")
                    .with_hint("convert it first: qemu-img convert -f raw -O qcow2"));
  }
  Header h(head);
  const auto version = h.u32(4);
  if (version != 2 && version != 3) return bad(fmt::format("version {} is not known here", version));
  const auto backing_offset = h.u64(8);
  const auto backing_length = h.u32(16), cluster_bits = h.u32(20);
  const auto virtual_size = h.u64(24);
  const auto crypt = h.u32(32), l1_size = h.u32(36);
  const auto l1_offset = h.u64(40), refcount_offset = h.u64(48);
  const auto refcount_clusters = h.u32(56), snapshots = h.u32(60);
  const auto snapshots_offset = h.u64(64);
  if (h.short_read()) return bad("its header ends too early");
  if (backing_offset != 0 || backing_length != 0) return bad("it has a backing file, which is refused");
  if (cluster_bits < 9 || cluster_bits > 21) return bad("its clusters have an impossible size");
  if (crypt != 0) return bad("it is encrypted, which is refused");
  if (virtual_size == 0) return bad("it is empty");
  if (virtual_size > max_virtual_disk) return bad(fmt::format("its virtual size of {} is too large", format_bytes(virtual_size)));
  if (snapshots != 0) return bad("it holds internal snapshots, which are refused");
  if (snapshots_offset > file_size) return bad("its snapshot table lies outside the file");

  bool wide_l2 = false;
  if (version == 3) {
    VIRGA_CHECK(check_version_3(head, cluster_bits, wide_l2));
  } else {
    VIRGA_CHECK(check_extensions(head, 72, std::size_t(1) << cluster_bits));
  }

  const std::uint64_t cluster = std::uint64_t(1) << cluster_bits;
  const std::uint64_t per_l2 = cluster / (wide_l2 ? 16 : 8);
  const std::uint64_t per_l1 = per_l2 * cluster;  // at most 2^39
  const std::uint64_t needed = (virtual_size + per_l1 - 1) / per_l1;
  constexpr std::uint64_t max_l1_bytes = 32u << 20, max_refcount_bytes = 8u << 20;
  if (l1_size < needed) return bad("its L1 table is too small for its virtual size");
  if (std::uint64_t(l1_size) * 8 > max_l1_bytes) return bad("its L1 table is too large");
  VIRGA_CHECK(check_table("L1", l1_offset, std::uint64_t(l1_size) * 8, cluster_bits, file_size));
  if (refcount_clusters == 0 || refcount_clusters * cluster > max_refcount_bytes)
    return bad("its reference count table has an impossible size");
  VIRGA_CHECK(check_table("reference count", refcount_offset, refcount_clusters * cluster, cluster_bits, file_size));
  return DiskHeader{static_cast<int>(version), cluster_bits, virtual_size};
}

}  // namespace virga::image
