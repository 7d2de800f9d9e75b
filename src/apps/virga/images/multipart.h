// Reading the body in which a server sends the two files of a split image. Pure.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"

namespace virga::cli {

struct Part {
  std::string name;       ///< "metadata", "rootfs" or "rootfs.img"
  std::string file_name;  ///< without directories; may be empty
  std::string_view content;
};

/// Errors: invalid.
Result<std::vector<Part>> parse_multipart(std::string_view body, std::string_view content_type);
/// The file name of a Content-Disposition header, without directories; empty where there is none.
std::string disposition_file_name(std::string_view header);
/// The last component; what is not safe as a file name becomes empty.
std::string base_name(std::string_view path);

}  // namespace virga::cli
