#include "drivers/image/packer.h"

#include <fmt/format.h>

namespace virga::image {

std::string_view to_string(Compression c) noexcept {
  switch (c) {
    case Compression::none:
      return "none";
    case Compression::bzip2:
      return "bzip2";
    case Compression::gzip:
      return "gzip";
    case Compression::xz:
      return "xz";
    case Compression::zstd:
      return "zstd";
  }
  return "none";
}

Result<Compression> parse_compression(std::string_view text) {
  for (auto c : {Compression::none, Compression::bzip2, Compression::gzip, Compression::xz, Compression::zstd})
    if (text == to_string(c)) return c;
  return fail(Error(ErrorKind::invalid, fmt::format("compression_algorithm: '{}' is not known", text.substr(0, 40)))
                  .with_field("compression_algorithm")
                  .with_hint("bzip2, gzip, xz, zstd or none"));
}

}  // namespace virga::image
