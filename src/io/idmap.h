// User namespaces as descriptors: what a bind mount needs to show ids shifted (io/mount.h). Made by a child that lives for a
// moment.
#pragma once

#include <cstdint>

#include "base/error.h"
#include "io/fd.h"

namespace virga::io {

/// A user namespace in which ids 0.. are the host's base.., for users and groups alike. Takes well under a millisecond; blocks, so
/// it is called on a BlockingPool. Errors: invalid (an empty range, one that holds host root or wraps), unsupported (user
/// namespaces are off).
Result<UniqueFd> open_id_range(std::uint32_t base, std::uint32_t count);

}  // namespace virga::io
