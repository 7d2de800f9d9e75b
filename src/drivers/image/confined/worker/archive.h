// Reads a tarball, packed or not, entry by entry through libarchive, and turns each entry into a Node under our rules.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>

#include "base/error.h"
#include "drivers/image/confined/worker/tree.h"
#include "drivers/image/reader.h"

struct archive;
struct archive_entry;

namespace virga::image {

/// What one call may still read; shared by the parts of a split image.
struct Budget {
  explicit Budget(const Limits& limits) : bytes(limits.max_unpacked), entries(limits.max_entries) {}
  Bytes bytes;
  std::uint64_t entries;
};

/// What was left out because it has no place in a container.
struct Dropped {
  std::uint64_t xattrs = 0;  ///< and ACLs
  std::uint64_t devices = 0;
};

class Archive {
 public:
  /// `fd` is borrowed: a file or a pipe. `trusted_end`: the writer's exit code tells whether it is whole. Errors: invalid.
  static Result<std::unique_ptr<Archive>> open(int fd, Budget& budget, Dropped& dropped, bool trusted_end = false);
  ~Archive();
  Archive(const Archive&) = delete;
  Archive& operator=(const Archive&) = delete;

  /// The next entry; empty at the end. A device that a container's own /dev has is passed over. Errors: invalid (malformed,
  /// refused).
  Result<std::optional<Node>> next();
  /// Hands the data of the entry that next() returned to `sink`, in pieces.
  Result<> data(const std::function<Result<>(Bytes offset, std::span<const char>)>& sink);

 private:
  explicit Archive(archive* a, Budget& budget, Dropped& dropped) : archive_(a), budget_(budget), dropped_(dropped) {}
  Result<std::optional<Node>> convert(archive_entry* entry);
  void collect_xattrs(archive_entry* entry, Node& node);
  tl::unexpected<Error> failed(std::string_view what);
  archive* archive_;
  Budget& budget_;
  Dropped& dropped_;
  Node current_;
  std::int64_t entry_end_ = 0;
  bool trusted_end_ = false;
};

}  // namespace virga::image
