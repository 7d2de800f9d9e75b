// Empty qcow2 files, written by ourselves: four clusters, where a qemu-img process would cost ten times the time. Reading is for
// headers of files that the image reader or this code has made.
#pragma once

#include <string>

#include "base/error.h"
#include "base/units.h"

namespace virga::storage::dir {

struct Qcow2Spec {
  Bytes size = 0;       ///< virtual size, a multiple of 512
  std::string backing;  ///< name of the qcow2 file below, as the header spells it; empty: none
};

/// The meaningful parts of an empty qcow2 file, each with its offset; the rest of `length` bytes is zero.
struct Qcow2Layout {
  std::string header;
  std::string refcount_table;  ///< at 64 KiB
  std::string refcount_block;  ///< at 128 KiB
  Bytes length = 0;
};
/// Pure. Errors: invalid (size 0, no multiple of 512, above 1 PiB; a backing name longer than 1023 bytes).
Result<Qcow2Layout> plan_qcow2(const Qcow2Spec& spec);

/// Makes the file, which must not exist yet, durably.
Result<> create_qcow2(const std::string& path, const Qcow2Spec& spec);
/// The virtual size a file's header states. Errors: invalid (no qcow2).
Result<Bytes> qcow2_size(const std::string& path);

}  // namespace virga::storage::dir
