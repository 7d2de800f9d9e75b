// What virga asks of something that makes an image of an instance's root. What lies in the root is a guest's: the real packer walks
// it in a confined worker process.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "base/task.h"
#include "base/units.h"
#include "drivers/image/reader.h"

namespace virga::image {

enum class Compression { none, bzip2, gzip, xz, zstd };
std::string_view to_string(Compression c) noexcept;
/// "none", "gzip", ... Errors: invalid, field "compression_algorithm".
Result<Compression> parse_compression(std::string_view text);

/// Makes the tarball a backup of an instance rather than an image.
struct BackupContent {
  BackupDocuments documents;
  std::map<std::string, std::string> templates;  ///< name to text
};

struct PackRequest {
  Metadata metadata;  ///< with its templates where `templates` is given, else they are taken from `base`
  /// The templates' texts, by the names of their files.
  std::optional<std::map<std::string, std::string>> templates = {};
  std::string tree;                  ///< of a container: where its root is shown; empty: a virtual machine
  std::uint32_t id_base = 0;         ///< what `tree` shows as id_base + n is packed as n
  std::uint32_t id_count = 0;        ///< 0: ids are packed as they are
  std::string disk;                  ///< of a virtual machine: its qcow2
  std::vector<std::string> backing;  ///< the read-only qcow2 layers below `disk`, the nearest first
  std::string base;                  ///< directory of the image it was made from: templates and what it boots with; empty: none
  Compression compression = Compression::gzip;
  std::string into;     ///< path of the unified tarball that is made; must not be there
  std::string scratch;  ///< path for a copy of the disk while it is being packed; must not be there
  Limits limits = {};
  std::optional<BackupContent> backup = {};  ///< templates are taken from here
};

class Packer {
 public:
  virtual ~Packer() = default;
  /// `progress` is told how many bytes have been read, some times a second at most. On failure the caller removes `into` and
  /// `scratch`. Errors: invalid (what lies there cannot be packed), unavailable (no space), cancelled.
  virtual Task<Result<>> pack(PackRequest request, std::function<void(Bytes)> progress) = 0;
};

}  // namespace virga::image
