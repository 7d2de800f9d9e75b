// Reads images in worker processes that have shut themselves in; the daemon itself looks at no more than the first bytes of a file.
// Event loop only; safe to call many times at once.
#pragma once

#include <memory>
#include <string>

#include "base/task.h"
#include "drivers/image/files.h"
#include "drivers/image/packer.h"
#include "drivers/image/reader.h"

namespace virga::image {

/// `worker`: the path of virga-worker.
std::unique_ptr<Reader> make_confined_reader(std::string worker);

/// Makes images of roots in such workers; its only blocking call is an fsync. `blocking` must outlive it.
std::unique_ptr<Packer> make_confined_packer(std::string worker, BlockingPool& blocking);

/// Keeps the packed files in `directory`, mode 0700. `blocking` must outlive it.
std::unique_ptr<Files> make_directory_files(std::string directory, BlockingPool& blocking);

}  // namespace virga::image
