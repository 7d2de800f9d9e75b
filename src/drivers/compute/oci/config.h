// From what virga wants to what an OCI runtime is told. Pure: what depends on the host comes in as HostFacts.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "drivers/compute/driver.h"
#include "wire/oci/config.h"

namespace virga::compute::oci_driver {

struct HostFacts {
  std::string cgroup_parent;             ///< "/virga/<tag>"; the guest's id is added
  std::uint64_t open_files_hard = 4096;  ///< our own hard limit: it cannot be raised for a guest
  std::vector<std::string> init = {"/sbin/init"};
  std::optional<std::uint64_t> most_processes = {};  ///< of a guest without a limit of its own; absent: this host limits none
};

/// The whole container. Errors: invalid (a field that cannot be), unsupported (a VM, disks).
Result<virga::oci::Config> make_config(const GuestSpec& spec, const HostFacts& facts);

/// The process of an exec; `home` is the user's home directory as the guest knows it. Errors: invalid.
Result<virga::oci::Process> make_process(const ExecSpec& spec, const std::string& home, const std::string& user,
                                         const HostFacts& facts);

/// What adopt() needs of a guest that another daemon created, kept in the configuration's annotations.
struct Remembered {
  std::string rootfs;
  int halt_signal = 0;
  std::vector<Nic> nics;  ///< guest_name and host_name only
};
void remember(virga::oci::Config& config, const Remembered& what);
Result<Remembered> recall(std::string_view config_json);

}  // namespace virga::compute::oci_driver
