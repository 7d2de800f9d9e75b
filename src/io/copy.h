// Copies of trees and disk files of the host, by trusted paths. What lies in the tree is a guest's and may change while it is read:
// entries are opened by name in an open directory, without following a link, and what goes meanwhile is left out. Blocking.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>

#include "base/error.h"
#include "base/transfer.h"

namespace virga::io {

/// Ids `from`.. of a range become `to`..; those outside stay.
struct IdMove {
  std::uint32_t from = 0;
  std::uint32_t to = 0;
  std::uint32_t count = 0;
};

struct CopyTreeOptions {
  std::optional<IdMove> ids = {};  ///< owners, the ids in ACLs, and the root id of file capabilities
  std::string earlier = {};  ///< an earlier copy on the same file system: files that are the same there are linked; empty: none
  bool same_lower = true;    ///< the new tree lies over the same lower layer: what an overlay notes about it is kept
  std::size_t most_memory = std::size_t(256) << 20;  ///< for what is remembered of files with several links
};

/// Makes `to`, which must not be there, like the directory `from`: sparse files, extended attributes, hard links, times, whiteouts
/// and opaque directories. Data is shared where the file system can. Durable when it returns. Errors: cancelled, exists,
/// unsupported (too deep, too many hard links).
Result<> copy_tree(const std::string& from, const std::string& to, const CopyTreeOptions& options, TransferControl& control);

/// One file, whose target must not be there; durable when it returns.
Result<> copy_file(const std::string& from, const std::string& to, unsigned mode, TransferControl& control);

}  // namespace virga::io
