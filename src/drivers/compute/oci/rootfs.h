// A container's root as the host sees it. All of it belongs to the guest or to whoever made the image, so every path goes through
// io::Beneath. Calls block for a moment: they run on the BlockingPool.
#pragma once

#include <string>
#include <string_view>

#include "base/error.h"
#include "drivers/compute/driver.h"

namespace virga::compute::oci_driver {

struct InitProgram {
  std::string target;   ///< what /sbin/init is in the end: "/bin/busybox"
  int halt_signal = 0;  ///< what asks it to shut the guest down
};

/// Makes sure that the runtime will find real directories where it mounts /dev, /proc and /sys, and that there is an init. Symbolic
/// links there are refused: the runtime would follow them. Errors: invalid (names the path), not_found (no root).
Result<InitProgram> prepare_rootfs(const std::string& rootfs, IdRange ids);

/// The signal by which an init of that program name halts: busybox SIGUSR2, systemd SIGRTMIN+3, ... Pure.
int halt_signal_of(std::string_view program);

struct User {
  std::string name;
  std::string home;
};
/// From the guest's /etc/passwd; root and "/" where it does not say. `home` exists in the root.
User find_user(const std::string& rootfs, std::uint32_t uid);
/// Pure: one entry of a passwd file.
User parse_passwd(std::string_view text, std::uint32_t uid);

struct OsRelease {
  std::string name, version;
};
OsRelease read_os_release(const std::string& rootfs);
/// Pure.
OsRelease parse_os_release(std::string_view text);

}  // namespace virga::compute::oci_driver
