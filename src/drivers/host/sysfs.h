// Reading what the kernel tells in /sys and /proc. Every path is below a root, so that tests bring their own. Blocking: for a pool.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace virga::host {

struct Roots {
  std::string sys = "/sys";
  std::string proc = "/proc";
  std::string dev = "/dev";
  std::string share = "/usr/share";
  std::string run = "/run";
  std::string top = {};  ///< "/", for files that container managers leave there
};

/// The file's text without blanks at its ends; empty where it cannot be read.
std::string text(const std::string& path);
/// Decimal, or hexadecimal behind "0x".
std::optional<std::int64_t> number(const std::string& path);
std::uint64_t number_or(const std::string& path, std::uint64_t fallback);
/// "0x8086" is "8086".
std::string hex_id(const std::string& path);
/// Names in a directory, in order; empty where it cannot be read.
std::vector<std::string> names(const std::string& directory);
bool is_there(const std::string& path);
/// The last component of where a link leads: the driver of ".../driver". Empty where there is none.
std::string link_name(const std::string& path);
/// Where a path leads with all links followed; empty where it leads nowhere.
std::string real_path(const std::string& path);
/// "0-2,5" is 0, 1, 2, 5.
std::vector<std::uint64_t> number_list(std::string_view text);
/// The PCI address nearest to the end of a device's real path, "0000:00:03.0"; empty: it is not on PCI.
std::string pci_address(const std::string& real_device);
/// "2:7" (bus and device) of the USB device that a device's real path runs through; empty: none.
std::string usb_address(const std::string& real_device);
std::uint64_t numa_node(const std::string& device);

}  // namespace virga::host
