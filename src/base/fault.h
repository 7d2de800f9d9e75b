// Named places where a test may kill the daemon or make a step fail. In ordinary builds a fault point is nothing at all.
//   VIRGA_FAULT_LOG=FILE     append the name of each point that is passed
//   VIRGA_FAULT_KILL=NAME[#N]   kill this process (SIGKILL) at the N-th passing of that point (first unless told otherwise)
//   VIRGA_FAULT_FAIL=NAME[#N]   make that passing return an error
// Names look like "create.2.plug-nic.after".
#pragma once

#include <string>
#include <string_view>

#include "base/error.h"

namespace virga {

#ifdef VIRGA_FAULTS
/// Errors: internal, when the environment asks for a failure here. Never returns when it asks for a kill.
Result<> fault_point(std::string_view name);
#else
inline Result<> fault_point(std::string_view) {
  return {};
}
#endif

}  // namespace virga
