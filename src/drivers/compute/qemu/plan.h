// From a GuestSpec to QEMU's arguments: pure, held against golden files. Values that come from users go into JSON, or are refused
// where QEMU only takes a comma-separated list.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "drivers/compute/driver.h"
#include "drivers/compute/qemu/accelerator.h"

namespace virga::compute::qemu_driver {

/// What the plan takes from the host.
struct Host {
  std::string qemu_program;
  Version version;
  bool kvm = false;
  std::string bios;             ///< path of a small BIOS for direct kernel boot, empty: QEMU's own
  std::string firmware;         ///< path of OVMF's code
  std::string secure_firmware;  ///< the same with secure boot
};

/// A descriptor that QEMU inherits under this number.
struct Passed {
  enum class What { monitor, agent, console, tap, disk, image, kernel, initrd, firmware, variables };
  What what = What::disk;
  int number = -1;
  std::string name;  ///< path of the file, or the interface
  bool writable = false;
  DiskFormat format = DiskFormat::raw;
  bool layered = false;  ///< a qcow2 layer that lies on another one
  bool operator==(const Passed&) const = default;
};

struct Plan {
  std::vector<std::string> argv;
  std::vector<Passed> passed;
};

inline constexpr int monitor_fd = 3;
inline constexpr int agent_fd = 4;
inline constexpr int console_fd = 5;
inline constexpr int first_free_fd = 10;

/// Errors: invalid (names the field), unsupported.
Result<Plan> make_plan(const GuestSpec& spec, const Host& host);

/// QEMU's name for a layer of the n-th disk, from the name of its file: 31 bytes at most, with "-file" behind it.
std::string layer_node(std::size_t disk, std::string_view path);
/// QEMU's name for the n-th disk as the guest sees it.
std::string disk_device(std::size_t disk);

/// The memory a VM gets in MiB: limits.memory rounded down, 1024 where none is set.
std::uint64_t memory_mib(const GuestSpec& spec);

}  // namespace virga::compute::qemu_driver
