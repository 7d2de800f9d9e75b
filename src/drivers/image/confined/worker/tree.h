// Where the entries of a root go: into a directory, or nowhere while an image is only checked. Both refuse what may not be in an
// image, so that an import says what an instance would have run into.
#pragma once

#include <cstdint>
#include <ctime>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/units.h"

namespace virga::image {

enum class NodeKind { file, directory, symlink, hardlink, fifo };

struct Node {
  NodeKind kind = NodeKind::file;
  std::string path;    ///< clean, below the root; empty: the root itself
  std::string target;  ///< a symlink's text as it is, or a hard link's clean path
  unsigned mode = 0;   ///< permission bits, setuid, setgid and sticky among them
  std::uint32_t uid = 0;
  std::uint32_t gid = 0;
  timespec modified{};
  Bytes size = 0;
  std::vector<std::pair<std::string, std::string>> xattrs;  ///< those that are kept: user.*
};

class Tree {
 public:
  virtual ~Tree() = default;
  /// Errors: invalid (refused), unavailable (no space).
  virtual Result<> add(const Node& node) = 0;
  /// Data of the file that was added last; pieces come in order and may leave holes.
  virtual Result<> write(Bytes offset, std::span<const char> data) = 0;
  virtual Result<> end_file() = 0;
  /// After the last entry.
  virtual Result<> finish() = 0;
};

/// Writes below the directory `fd` (borrowed), which must be empty: every name is resolved by the kernel beneath it and through no
/// symlink.
std::unique_ptr<Tree> make_tree_writer(int fd);
/// Writes nothing; finds names that lead through symlinks.
std::unique_ptr<Tree> make_tree_checker();

/// Opens an existing directory, "" being the root, through no symlink and no mount; O_PATH.
int open_directory_beneath(int root, const std::string& path) noexcept;

}  // namespace virga::image
