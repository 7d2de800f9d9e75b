// Writing whole files over SFTP, with the directories above them: what templates of a guest are rendered to.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/byte_stream.h"
#include "base/error.h"
#include "base/task.h"

namespace virga::sftp {

struct WholeFile {
  std::string path;
  std::string text;
  std::optional<std::uint32_t> uid, gid, mode;  ///< absent: 0, 0, 0644 of a new file; of one that is there what it has
  bool only_if_missing = false;
};

/// One after the other. Errors: of the first that cannot be written, naming it.
Task<Result<>> write_whole_files(std::unique_ptr<ByteStream> stream, std::vector<WholeFile> files);

}  // namespace virga::sftp
