// Files as the body of a request, alone or as parts of multipart/form-data, with a known length. Blocks: for a BlockingPool.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <variant>
#include <vector>

#include "base/error.h"
#include "drivers/remote/driver.h"
#include "io/fd.h"

namespace virga::remote {

class UploadBody {
 public:
  /// Errors: not_found, invalid (no regular file).
  static Result<UploadBody> open(std::vector<Upload> files);
  const std::string& content_type() const noexcept { return type_; }
  std::uint64_t length() const noexcept { return length_; }
  std::uint64_t sent() const noexcept { return sent_; }
  /// 0 at the end. Errors: unavailable (a file is shorter than it was).
  Result<std::size_t> read(std::span<char> into);

 private:
  struct File {
    io::UniqueFd fd;
    std::uint64_t left = 0;
  };
  std::vector<std::variant<std::string, File>> pieces_;
  std::size_t at_ = 0;
  std::size_t offset_ = 0;  ///< within a text
  std::string type_;
  std::uint64_t length_ = 0;
  std::uint64_t sent_ = 0;
};

}  // namespace virga::remote
