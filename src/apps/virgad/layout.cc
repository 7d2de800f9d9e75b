#include "apps/virgad/layout.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/stat.h>

#include <cerrno>
#include <filesystem>

#include "io/file.h"

namespace virga::virgad {

Result<> make_layout(const std::string& state_dir) {
  std::error_code ec;
  std::filesystem::create_directories(std::filesystem::path(state_dir).parent_path(), ec);
  VIRGA_CHECK(io::make_directory(state_dir, 0711));
  for (const auto& [name, mode] : {std::pair{"storage-pools", 0711u},
                                   {"images", 0700u},
                                   {"run", 0711u},
                                   {"logs", 0700u},
                                   {"networks", 0711u},
                                   {"backups", 0700u},
                                   {"devices", 0711u},
                                   {"oci", 0711u}})
    VIRGA_CHECK(io::make_directory(state_dir + "/" + name, mode));
  return {};
}

Result<io::UniqueFd> lock_state_dir(const std::string& state_dir) {
  const auto path = state_dir + "/lock";
  VIRGA_TRY(auto fd, io::open_path(path, O_RDWR | O_CREAT));
  if (::flock(fd.get(), LOCK_EX | LOCK_NB) != 0) {
    if (errno != EWOULDBLOCK) return fail_errno(errno, fmt::format("lock '{}'", path));
    return fail(Error(ErrorKind::busy, fmt::format("another virgad serves '{}'", state_dir))
                    .with_hint("stop it first, or choose another --state-dir"));
  }
  return fd;
}

}  // namespace virga::virgad
