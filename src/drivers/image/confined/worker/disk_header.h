// What a disk image says about itself, read before any other tool sees it. Only a qcow2 that stands for itself passes: no backing
// file, no external data, no encryption, no snapshots, tables inside the file. Pure.
#pragma once

#include <string_view>

#include "base/error.h"
#include "base/units.h"

namespace virga::image {

constexpr Bytes max_virtual_disk = Bytes(16) << 40;
/// How much of the file's beginning the inspector wants to see.
constexpr std::size_t disk_head = 64u << 10;

struct DiskHeader {
  int version = 0;
  unsigned cluster_bits = 0;
  Bytes virtual_size = 0;
};

/// `head`: the first bytes of the file (disk_head of them, or all). Errors: invalid (malformed or refused), unsupported (another
/// format: its name is said).
Result<DiskHeader> inspect_qcow2(std::string_view head, Bytes file_size);

}  // namespace virga::image
