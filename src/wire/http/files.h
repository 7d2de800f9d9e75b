// Files that are sent as answers, or filled from uploads. Paths are ours, never a client's.
#pragma once

#include <string>
#include <string_view>

#include "base/error.h"
#include "wire/http/message.h"

namespace virga::http {

/// The whole of a regular file. Errors: not_found, denied, invalid (not a regular file).
Result<FileBody> open_file(const std::string& path);

/// A new file that an upload is written to; blocks, so it is for a BlockingPool.
class FileWriter {
 public:
  /// Errors: exists, unavailable.
  static Result<FileWriter> create(const std::string& path);
  /// Errors: unavailable (disk full).
  Result<> write(std::string_view bytes);

 private:
  explicit FileWriter(io::UniqueFd fd) : fd_(std::move(fd)) {}
  io::UniqueFd fd_;
};

}  // namespace virga::http
