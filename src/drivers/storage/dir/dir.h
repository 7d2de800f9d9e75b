// The storage driver `dir`: a pool in any directory. Containers are overlays on a shared image, virtual machines thin qcow2 clones.
// Called on the event loop; quick work is done on a BlockingPool, work on whole trees on threads of the driver's own. Which volumes
// share an image is kept in memory from open() on.
#pragma once

#include <memory>
#include <string>

#include "base/task.h"
#include "drivers/storage/driver.h"

namespace virga::storage {

/// `root` is the pool's directory, whose parent exists; `pool` is for what is quick and must outlive the driver. `worker`: the path
/// of virga-worker, which merges layers of disks; empty: layers stay.
std::unique_ptr<Driver> make_dir_driver(std::string root, BlockingPool& pool, std::string worker = {});

}  // namespace virga::storage
