// The state directory: what lies where, with which modes, and the lock that keeps a second daemon out.
#pragma once

#include <string>

#include "base/error.h"
#include "io/fd.h"

namespace virga::virgad {

/// Makes the directories. No user of the host but root gets into a guest's files: DIR is 0711 for QEMU's sockets only.
Result<> make_layout(const std::string& state_dir);
/// Held until the descriptor is closed, also by a crash. Errors: busy (another daemon serves this directory).
Result<io::UniqueFd> lock_state_dir(const std::string& state_dir);

}  // namespace virga::virgad
