// Threads of a pool for what goes through whole trees: copies, removals, counting, making an image durable. However slow the disk
// and however many files a guest has made, mounts and what else a guest's start waits for has its turn on other threads.
#pragma once

#include <optional>
#include <utility>

#include "base/task.h"

namespace virga::storage::dir {

class LongWork {
 public:
  /// As BlockingPool::run. The threads are made when the first is needed.
  template <class F>
  auto run(F function) {
    if (!threads_) threads_.emplace("trees", 2);
    return threads_->run(std::move(function));
  }

 private:
  std::optional<BlockingPool> threads_;
};

}  // namespace virga::storage::dir
