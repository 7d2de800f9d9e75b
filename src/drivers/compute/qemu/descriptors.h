// The descriptors that a plan speaks of: QEMU opens nothing itself. Blocking; belongs on a BlockingPool.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "base/error.h"
#include "drivers/compute/qemu/plan.h"
#include "io/fd.h"

namespace virga::compute::qemu_driver {

struct Opened {
  std::vector<std::pair<io::UniqueFd, int>> fds;  ///< ours, and the number in QEMU
};

inline std::string monitor_path(const std::string& run_dir) {
  return run_dir + "/qmp.sock";
}
inline std::string agent_path(const std::string& run_dir) {
  return run_dir + "/agent.sock";
}

/// Opens everything but the console, which is the shim's. Makes the sockets in run_dir, and the firmware's variables from
/// `variables_template` where the guest has none yet. Errors: not_found (names what is missing), invalid (a disk that is not what
/// the spec says), unavailable.
Result<Opened> open_descriptors(const Plan& plan, const GuestSpec& spec, const std::string& variables_template);

/// Whether a disk image is a qcow2 file without data elsewhere, whose backing file is the one we know of (or none).
Result<> check_qcow2_header(std::string_view head, bool has_backing);

/// A file that is a layer, with its header checked.
Result<io::UniqueFd> open_layer(const std::string& path, bool writable, bool layered);

/// A tap of ours by its interface's name. Errors: not_found.
Result<io::UniqueFd> open_tap(const std::string& interface);

}  // namespace virga::compute::qemu_driver
