// The numbers of SFTP, version 3 (draft-ietf-secsh-filexfer-02), and what one packet may hold. Plain C++, shared by the daemon's
// client and the small static server.
//
//   u32 length | u8 type | u32 id | fields        all numbers big-endian; a text is u32 length and bytes
#pragma once

#include <cstddef>
#include <cstdint>

namespace virga::sftp {

enum class Type : std::uint8_t {
  init = 1,
  version = 2,
  open = 3,
  close = 4,
  read = 5,
  write = 6,
  lstat = 7,
  fstat = 8,
  setstat = 9,
  fsetstat = 10,
  opendir = 11,
  readdir = 12,
  remove = 13,
  mkdir = 14,
  rmdir = 15,
  realpath = 16,
  stat = 17,
  rename = 18,
  readlink = 19,
  symlink = 20,
  status = 101,
  handle = 102,
  data = 103,
  name = 104,
  attrs = 105,
  extended = 200,
  extended_reply = 201,
};

enum class Code : std::uint32_t {
  ok = 0,
  end_of_file = 1,
  no_such_file = 2,
  permission_denied = 3,
  failure = 4,
  bad_message = 5,
  unsupported = 8,
};

inline constexpr std::uint32_t protocol_version = 3;
/// What one READ may ask for and one WRITE may carry.
inline constexpr std::size_t max_data = 128u << 10;
/// The longest packet either side sends or takes.
inline constexpr std::size_t max_packet = 256u << 10;
/// Our server says errno in a status' language tag, which nobody else reads: "x-errno-17".
inline constexpr char errno_tag[] = "x-errno-";

inline constexpr std::uint32_t attr_size = 1, attr_owner = 2, attr_permissions = 4, attr_times = 8, attr_extended = 0x80000000u;
inline constexpr std::uint32_t open_read = 1, open_write = 2, open_append = 4, open_create = 8, open_truncate = 16,
                               open_exclusive = 32;

/// What is known of a file; `flags` says which fields are.
struct Attributes {
  std::uint32_t flags = 0;
  std::uint64_t size = 0;
  std::uint32_t uid = 0;
  std::uint32_t gid = 0;
  std::uint32_t permissions = 0;  ///< with the file's type, as st_mode
  std::uint32_t accessed = 0;     ///< seconds since 1970
  std::uint32_t modified = 0;
};

}  // namespace virga::sftp
