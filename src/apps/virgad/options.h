// The command line of virgad.
#pragma once

#include <optional>
#include <string>

#include "base/error.h"

namespace virga::virgad {

struct Options {
  std::string state_dir = "/var/lib/virga";
  std::string socket;       ///< empty: STATE_DIR/unix.socket
  std::string https;        ///< "ADDRESS:PORT"; empty: as core.https_address says
  std::string group;        ///< its members may use the socket; empty: root only
  std::string libexec_dir;  ///< where virga-shim and virga-worker are; empty: beside virgad
  bool verbose = false;
  bool debug = false;
  bool fake_drivers = false;  ///< for benchmarks of the API: guests exist in memory only
};

/// Absent: the program has said what was asked (--help, --version) and ends. Errors: invalid.
Result<std::optional<Options>> parse_options(int argc, char** argv);

}  // namespace virga::virgad
