// Backups of instances: tarballs in the form of Incus, kept below the state directory until they expire or are deleted; and
// instances made from such tarballs.
#pragma once

#include <optional>
#include <string>

#include "base/error.h"
#include "base/json.h"
#include "base/units.h"
#include "model/instance.h"

namespace virga::engine {

struct Backup {
  std::string name;
  WallTime created_at{};
  WallTime expires_at{};  ///< the epoch: never
  bool instance_only = false;
};
json::object encode(const Backup& backup);
Result<Backup> decode_backup(const json::object& document);

struct CreateBackup {
  std::string name;  ///< empty: backup0, backup1, ...
  std::optional<WallTime> expires_at;
  bool instance_only = false;
  std::string compression;  ///< none, bzip2, gzip, xz or zstd; empty: as backups.compression_algorithm says
};

struct ImportBackup {
  std::string project = "default";
  std::string name;  ///< empty: the backup's
  std::string pool;  ///< empty: the backup's
  std::string file;  ///< what was uploaded, at a path that Images::new_upload_path() gave
};

}  // namespace virga::engine
