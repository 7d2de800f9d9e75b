// The one place for paths that a guest, an image or a client chose: resolved by the kernel beneath a directory descriptor
// (openat2: RESOLVE_BENEATH, or RESOLVE_IN_ROOT to follow links; no magic ones), so that no name, symlink or race leads outside.
#pragma once

#include <sys/stat.h>
#include <sys/types.h>

#include <string>
#include <string_view>

#include "base/error.h"
#include "io/fd.h"

namespace virga::io {

class Beneath {
 public:
  /// Opens the root directory itself by a path of ours; its last component must not be a symlink. Errors: not_found, denied.
  static Result<Beneath> open(const std::string& root);
  static Beneath adopt(UniqueFd directory);
  int fd() const noexcept { return root_.get(); }

  enum class Links { follow_inside, refuse };
  /// Opens an existing entry; never blocks on a fifo or device (O_NONBLOCK is set and then cleared for regular files).
  /// Errors: not_found, denied (the path leads outside), invalid (NUL, empty or "..").
  Result<UniqueFd> open_file(std::string_view path, int flags, Links links = Links::refuse) const;
  /// Creates a new file; fails where something is there. The parent must exist beneath the root.
  Result<UniqueFd> create_file(std::string_view path, mode_t mode) const;
  /// Makes all missing directories of `path`, beneath the root, refusing symlinks on the way.
  Result<> make_directories(std::string_view path, mode_t mode) const;
  Result<> make_symlink(std::string_view path, const std::string& target) const;
  Result<struct ::stat> stat(std::string_view path) const;
  Result<Beneath> subdirectory(std::string_view path) const;

 private:
  explicit Beneath(UniqueFd root) : root_(std::move(root)) {}
  UniqueFd root_;
};

}  // namespace virga::io
