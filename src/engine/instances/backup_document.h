// What a backup says about its instance, in the words of Incus: written for an export, read and checked for an import. Pure.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "base/error.h"
#include "drivers/image/reader.h"
#include "model/instance.h"
#include "model/pool.h"
#include "model/profile.h"

namespace virga::engine {

/// For a backup without snapshots.
image::BackupDocuments backup_documents(const Instance& instance, const Pool& pool,
                                        const std::vector<std::shared_ptr<const Profile>>& profiles);

/// The one object that is made of both documents; nothing else of them is used.
struct BackedUpInstance {
  Instance instance;           ///< name, type, architecture, description, ephemeral, profiles, config and devices
  std::string pool;            ///< that it was in
  std::uint32_t id_base = 0;   ///< of the ids in its tree
  std::uint32_t id_count = 0;  ///< 0: they are the container's own
};
/// Errors: invalid (names what is wrong, also where the documents contradict each other), unsupported.
Result<BackedUpInstance> read_backup(const image::BackupInspection& backup);

}  // namespace virga::engine
