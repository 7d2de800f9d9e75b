// From an instance to what the drivers take: pure functions, tested without a host.
#pragma once

#include <string>
#include <vector>

#include "base/error.h"
#include "drivers/compute/driver.h"
#include "drivers/storage/driver.h"
#include "model/instance.h"

namespace virga::engine {

/// How many host ids each guest owns.
constexpr std::uint32_t ids_per_guest = 65536;

/// A NIC among the expanded devices, with what the daemon decided for it (volatile.<device>.*).
struct NicDevice {
  std::string device;
  std::string network;
  std::string guest_name;  ///< interface name in the guest: the option `name`, else eth0, eth1, ... in order of the devices
  std::string mac;         ///< configured, or volatile.<device>.hwaddr; empty: none yet
  std::string ipv4;        ///< configured; empty: the network chooses
  std::string ipv6;
  std::uint32_t mtu = 0;  ///< 0: the network's
};
std::vector<NicDevice> nics_of(const Instance& instance);

storage::VolumeId volume_id(const Instance& instance);
/// The root volume, with `size` of the root disk device. Errors: invalid.
Result<storage::VolumeSpec> volume_spec(const Instance& instance);

struct Paths {
  std::string run;  ///< sockets and state of the running guest
  std::string logs;
};
Paths paths_of(const std::string& state_dir, const Instance& instance);
std::string log_path(const std::string& state_dir, const std::string& project, const std::string& name);

/// Everything but disks, root and boot, which depend on the attached volume.
Result<compute::GuestSpec> guest_spec(const Instance& instance, const Paths& paths);

std::string document_key(const std::string& project, const std::string& name);

}  // namespace virga::engine
