// Making an image of an instance.
#pragma once

#include <optional>
#include <string>

#include "engine/images/service.h"
#include "model/config.h"

namespace virga::engine {

struct PublishInstance {
  ImportImage image;                 ///< what becomes of it; its files are made here
  std::string snapshot;              ///< of the instance; empty: the instance itself
  std::string compression;           ///< none, bzip2, gzip, xz or zstd; empty: as images.compression_algorithm says
  std::optional<Config> properties;  ///< absent: those of the image that the instance was made from
};

}  // namespace virga::engine
