// A file that is being written, by what a server sends.
#pragma once

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <string>
#include <string_view>
#include <utility>

#include "base/error.h"

namespace virga::cli {

/// A file that is there only when finish() was called.
class NewFile {
 public:
  static Result<NewFile> create(std::string path) {
    const int fd = ::open(path.c_str(), O_CREAT | O_TRUNC | O_RDWR | O_CLOEXEC | O_NOFOLLOW, 0644);
    if (fd < 0) return fail_errno(errno, fmt::format("create '{}'", path));
    return NewFile(std::move(path), fd);
  }
  NewFile(NewFile&& other) noexcept : path_(std::move(other.path_)), fd_(std::exchange(other.fd_, -1)) { other.path_.clear(); }
  NewFile& operator=(NewFile&&) = delete;
  ~NewFile() {
    if (fd_ >= 0) ::close(fd_);
    if (!path_.empty()) ::unlink(path_.c_str());
  }
  int fd() const noexcept { return fd_; }
  Result<> write(std::string_view bytes) {
    while (!bytes.empty()) {
      const auto n = ::write(fd_, bytes.data(), bytes.size());
      if (n < 0 && errno != EINTR) return fail_errno(errno, fmt::format("write '{}'", path_));
      if (n > 0) bytes.remove_prefix(static_cast<std::size_t>(n));
    }
    return {};
  }
  Result<> finish(const std::string& name) {
    if (::rename(path_.c_str(), name.c_str()) != 0) return fail_errno(errno, fmt::format("rename to '{}'", name));
    path_.clear();
    return {};
  }

 private:
  NewFile(std::string path, int fd) : path_(std::move(path)), fd_(fd) {}
  std::string path_;
  int fd_;
};

}  // namespace virga::cli
