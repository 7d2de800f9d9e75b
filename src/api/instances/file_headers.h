// The X-Incus-* headers of files: pure, tested without a guest.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/error.h"
#include "wire/http/message.h"
#include "wire/sftp/protocol.h"

namespace virga::api {

struct FileHeaders {
  enum class Type { file, directory, symlink };
  Type type = Type::file;
  bool append = false;
  std::optional<std::uint32_t> uid, gid, mode;
};

/// Errors: invalid, naming the header.
Result<FileHeaders> read_file_headers(const http::Headers& headers);
/// "file", "directory", "symlink"; empty for what can be none of them.
std::string_view file_type(const sftp::Attributes& attributes) noexcept;
std::vector<std::pair<std::string, std::string>> file_headers(const sftp::Attributes& attributes);

}  // namespace virga::api
