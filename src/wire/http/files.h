// Files that are sent as answers, or filled from uploads. Paths are ours, never a client's.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "wire/http/message.h"

namespace virga::http {

/// The whole of a regular file. Errors: not_found, denied, invalid (not a regular file).
Result<FileBody> open_file(const std::string& path);

/// A small file that somebody may be writing to, as it is now: no Content-Length to keep. Errors: not_found, unavailable (too
/// large).
Result<std::string> read_small_file(const std::string& path);
/// Names of the regular files in a directory, in order; none where it does not exist.
std::vector<std::string> list_files(const std::string& directory);

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
