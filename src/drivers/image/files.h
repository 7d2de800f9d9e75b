// Where the packed files of images lie: DIR/<fingerprint> is the unified tarball or the metadata of a split image,
// DIR/<fingerprint>.rootfs the root of a split one. Uploads are written beside them under names of their own.
#pragma once

#include <set>
#include <string>

#include "base/error.h"
#include "base/task.h"
#include "base/units.h"

namespace virga::image {

struct Digest {
  std::string fingerprint;  ///< SHA-256 of the first file's bytes followed by the second's
  Bytes size = 0;           ///< of both
};

class Files {
 public:
  virtual ~Files() = default;
  /// Makes the directory and removes uploads that an earlier process left.
  virtual Task<Result<>> open() = 0;
  /// A path in the directory for a new upload, which the caller creates (O_EXCL, 0600).
  virtual std::string new_upload_path() = 0;
  /// Reads both files to the end; `rootfs` may be empty.
  virtual Task<Result<Digest>> digest(std::string metadata, std::string rootfs) = 0;
  /// Makes the uploads durable and moves them into place; done already is success.
  virtual Task<Result<>> keep(std::string metadata, std::string rootfs, std::string fingerprint) = 0;
  /// Absent is success.
  virtual Task<Result<>> remove(std::string fingerprint) = 0;
  /// Absent is success. Only paths that new_upload_path() gave.
  virtual Task<Result<>> discard_upload(std::string path) = 0;
  /// Writes at the end of an upload, which is made where it is not there yet.
  virtual Task<Result<>> append(std::string path, std::string bytes);
  /// Of any file of the daemon's. Errors: not_found, unavailable.
  virtual Task<Result<Bytes>> size_of(std::string path);
  virtual Task<Result<std::string>> read(std::string path, Bytes offset, std::size_t most);
  /// Removes files of images that are not in `known`: left by what was interrupted.
  virtual Task<Result<>> sweep(std::set<std::string> known) = 0;
  virtual std::string metadata_path(const std::string& fingerprint) const = 0;
  virtual std::string rootfs_path(const std::string& fingerprint) const = 0;
};

// Who keeps no files of the daemon's has none that come or go in pieces.
inline Task<Result<>> Files::append(std::string /*path*/, std::string /*bytes*/) {
  co_return fail(ErrorKind::unsupported, "files cannot be sent to here");
}
inline Task<Result<Bytes>> Files::size_of(std::string path) {
  co_return fail(ErrorKind::not_found, "there is no file '" + path + "'");
}
inline Task<Result<std::string>> Files::read(std::string path, Bytes /*offset*/, std::size_t /*most*/) {
  co_return fail(ErrorKind::not_found, "there is no file '" + path + "'");
}

}  // namespace virga::image
