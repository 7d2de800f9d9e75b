// Makes an image's tarball of a directory tree or a disk. Runs in the sandbox: the tree is a guest's.
#pragma once

#include <cstdint>
#include <functional>

#include "base/error.h"
#include "drivers/image/packer.h"

namespace virga::image {

struct PackJob {
  int metadata_fd = -1;   ///< JSON of the metadata
  int tree_fd = -1;       ///< directory; or -1
  int disk_fd = -1;       ///< a qcow2 that stands for itself; or -1
  int base_fd = -1;       ///< directory of the image it was made from; or -1
  int templates_fd = -1;  ///< templates instead of those of the base: "SIZE NAME", a line end, and so many bytes; or -1
  int out_fd = -1;
  std::uint32_t id_base = 0, id_count = 0;
  Compression compression = Compression::gzip;
  Limits limits;
  std::function<void(Bytes read)> progress;
};

Result<> pack_image(const PackJob& job);

}  // namespace virga::image
