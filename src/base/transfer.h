// What a thread that moves much data and whoever watches it share.
#pragma once

#include <atomic>
#include <cstdint>

namespace virga {

struct TransferControl {
  std::atomic<std::uint64_t> bytes{0};  ///< of data so far, whether it was copied or shared
  std::atomic<bool> stop{false};        ///< set: the work ends with `cancelled`
};

}  // namespace virga
