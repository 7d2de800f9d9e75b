// A guest's files beneath one directory descriptor. Every path is resolved by the kernel as if that directory were the root
// (openat2 with RESOLVE_IN_ROOT and RESOLVE_NO_MAGICLINKS), so that no "..", link or race leads out of it. Nothing waits for a
// fifo or a device: only regular files and directories are ever opened. Functions return 0 or an errno.
#pragma once

#include <sys/stat.h>
#include <sys/statvfs.h>

#include "wire/sftp/protocol.h"

namespace virga::sftp {

inline constexpr std::size_t max_path = 4096;

class Tree {
 public:
  /// `fall_back`: the directory is the process' own root, and where the kernel has no openat2 the plain call will do.
  Tree(int root, bool fall_back) : root_(root), fall_back_(fall_back) {}

  /// A regular file, or a directory that is only to be looked at. `mode` is for one that is created.
  int open_file(const char* path, std::uint32_t sftp_flags, mode_t mode, int& fd) const;
  int open_directory(const char* path, int& fd) const;
  int stat(const char* path, bool follow, struct ::stat& st) const;
  int set(const char* path, bool follow, const Attributes& a) const;
  int remove(const char* path) const;
  int make_directory(const char* path, mode_t mode) const;
  int remove_directory(const char* path) const;
  int rename(const char* from, const char* to, bool replace) const;
  int read_link(const char* path, char* target, std::size_t room) const;
  int make_link(const char* target, const char* path) const;
  int make_hard_link(const char* from, const char* to) const;
  int space(const char* path, struct ::statvfs& st) const;

 private:
  struct Place;
  int open_at(const char* path, int flags, mode_t mode, int& fd) const;
  int parent_of(const char* path, Place& place) const;
  int root_;
  bool fall_back_;
};

/// Owner, permissions, size and times of an open file.
int set_attributes(int fd, const Attributes& a);
Attributes attributes_of(const struct ::stat& st);

}  // namespace virga::sftp
