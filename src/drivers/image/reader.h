// What virga asks of something that reads images. Everything in an image is hostile: the real reader runs each call in a confined
// worker process, and what comes back is checked as a stranger's answer.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/json.h"
#include "base/task.h"
#include "base/units.h"

namespace virga::image {

enum class Type { container, virtual_machine };

struct Template {
  std::vector<std::string> when;
  bool create_only = false;
  std::string template_file;
  std::map<std::string, std::string> properties;
  std::string uid, gid, mode;  ///< as written; empty: not given
};

/// metadata.yaml, decoded and bounded.
struct Metadata {
  std::string architecture;
  std::int64_t creation_date = 0;
  std::int64_t expiry_date = 0;
  std::map<std::string, std::string> properties;
  std::map<std::string, Template> templates;
};

/// What an upload turned out to be.
struct Inspection {
  Type type = Type::container;
  Metadata metadata;
};

/// What a backup says about its instance, each a decoded YAML file: "backup/index.yaml", and "backup.yaml" beside the root.
struct BackupDocuments {
  json::object index;
  json::object instance;
};

struct BackupInspection {
  Type type = Type::container;
  BackupDocuments documents;
};

struct Limits {
  Bytes max_unpacked = Bytes(20) << 30;
  std::uint64_t max_entries = 2'000'000;
  Milliseconds timeout{600'000};
};

struct UnpackRequest {
  std::string metadata_file;  ///< the unified tarball, or the metadata tarball of a split image
  std::string rootfs_file;    ///< of a split image: tarball, squashfs or qcow2; empty: unified
  std::string into;           ///< existing empty directory inside a pool; the result is `rootfs/` or `disk.qcow2`, `metadata.yaml`,
                              ///< `templates/`, and for direct boot `kernel`, `initrd`, `cmdline`
  Limits limits;
  bool backup = false;         ///< metadata_file is an instance's backup
  std::uint32_t id_base = 0;   ///< of a backup: what is packed as id_base + n is unpacked as n
  std::uint32_t id_count = 0;  ///< 0: ids are unpacked as they are
};

class Reader {
 public:
  virtual ~Reader() = default;
  /// Decodes the metadata and decides the type, without unpacking. Errors: invalid (names what is wrong), timeout.
  virtual Task<Result<Inspection>> inspect(std::string metadata_file, std::string rootfs_file) = 0;
  /// Unpacks into `into`; on failure the caller throws the directory away. Errors: invalid, timeout, unavailable (no space).
  virtual Task<Result<Inspection>> unpack(UnpackRequest request) = 0;
  /// What a backup says, read no further than needed for that: unpack() holds the rest to the same rules. Errors: invalid, timeout.
  virtual Task<Result<BackupInspection>> inspect_backup(std::string /*file*/, Limits /*limits*/) {
    co_return fail(ErrorKind::unsupported, "backups cannot be read here");
  }
};

}  // namespace virga::image
