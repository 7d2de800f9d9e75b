// What an image consists of: finds metadata.yaml, the root, templates and the parts for direct boot in its archives, decides the
// type, and writes them beneath a directory, or nothing where the image is only inspected.
#pragma once

#include <cstdint>

#include "base/error.h"
#include "drivers/image/confined/protocol.h"
#include "drivers/image/confined/worker/archive.h"

namespace virga::image {

struct Job {
  int metadata_fd = -1;  ///< the unified tarball, or the metadata tarball of a split image
  int rootfs_fd = -1;    ///< of a split image; squashfs arrives as a tarball on a pipe
  RootFormat rootfs_format = RootFormat::none;
  int into_fd = -1;  ///< an empty directory; -1: inspect only
  Limits limits;
  bool backup = false;                      ///< metadata_fd is an instance's backup
  std::uint32_t id_base = 0, id_count = 0;  ///< of a backup: what is packed as id_base + n is unpacked as n
};

/// Errors: invalid (names the entry or field), unavailable (no space).
Result<Answer> read_image(const Job& job);

}  // namespace virga::image
