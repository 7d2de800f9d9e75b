// Reads multipart/form-data from a request's body as it comes: part after part, nothing kept but a window.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "base/error.h"
#include "base/task.h"
#include "wire/http/message.h"

namespace virga::http {

/// The boundary of a Content-Type header. Errors: invalid (not multipart/form-data, or without a usable boundary).
Result<std::string> multipart_boundary(std::string_view content_type);

class MultipartReader {
 public:
  MultipartReader(Body& body, const std::string& boundary);

  struct Part {
    std::string name;
    std::string file_name;
  };
  /// The next part; what is left of the one before is skipped. Absent at the end. Errors: invalid, and those of Body::read_some().
  Task<Result<std::optional<Part>>> next();
  /// Bytes of the part; 0 at its end. Errors: as next().
  Task<Result<std::size_t>> read_some(std::span<char> into);

 private:
  Task<Result<>> fill();
  Task<Result<Part>> read_part_head();
  Body& body_;
  std::string delimiter_;        ///< CRLF "--" boundary
  std::string window_ = "\r\n";  ///< so that the first delimiter looks like all others
  bool in_part_ = true;          ///< before the first delimiter: an empty part that is skipped
  bool ended_ = false;
};

}  // namespace virga::http
