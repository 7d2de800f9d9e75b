// Writes a tarball through libarchive: entries with plain owners, sparse files with their holes, hard links once.
#pragma once

#include <cstdint>
#include <ctime>
#include <functional>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "base/error.h"
#include "drivers/image/packer.h"

struct archive;

namespace virga::image {

class Tarball {
 public:
  struct Entry {
    std::string path;   ///< in the tarball
    unsigned mode = 0;  ///< with the type: S_IFREG | 0644
    std::uint32_t uid = 0, gid = 0;
    timespec modified{};
    Bytes size = 0;        ///< of a file
    std::string symlink;   ///< its text
    std::string hardlink;  ///< path in the tarball of the file it is another name of
    std::vector<std::pair<std::string, std::string>> xattrs;
    std::vector<std::pair<Bytes, Bytes>> data;  ///< offset and length of what is not a hole; empty: all of it
  };

  /// `fd` is borrowed. `limit`: of what is read into it. Errors: unavailable.
  static Result<Tarball> create(int fd, Compression compression, Bytes limit, std::function<void(Bytes)> progress);
  Tarball(Tarball&&) noexcept;
  Tarball& operator=(Tarball&&) = delete;
  ~Tarball();
  /// A directory, symlink, fifo or hard link; or a file whose content follows by write().
  Result<> begin(const Entry& entry);
  Result<> write(const char* data, std::size_t size);
  /// A file whose content is what `fd` holds in entry.data. Errors: invalid (it became shorter).
  Result<> file(const Entry& entry, int fd);
  Result<> text(std::string path, std::string_view content, std::time_t modified);
  /// The end mark. Errors: unavailable.
  Result<> finish();

 private:
  explicit Tarball(archive* a, Bytes limit, std::function<void(Bytes)> progress);
  tl::unexpected<Error> failed(std::string_view path);
  Result<> zeros(Bytes count);
  archive* archive_;
  Bytes limit_, read_ = 0, told_ = 0;
  std::function<void(Bytes)> progress_;
  std::string buffer_;
};

}  // namespace virga::image
