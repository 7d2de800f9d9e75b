// A process shuts itself in: limits, no new privileges, only the capabilities that writing a root takes, Landlock where the kernel
// has it, and a seccomp allow-list. There is no way back.
#pragma once

#include <chrono>
#include <vector>

#include "base/error.h"
#include "base/units.h"

namespace virga::image {

struct Sandbox {
  struct Place {
    int fd;  ///< a file or a directory
    bool writable;
  };
  Bytes memory = Bytes(192) << 20;  ///< of address space, beyond what is mapped now
  Bytes largest_file = 0;
  std::chrono::seconds cpu{600};
  bool keeps_owners = false;  ///< CAP_CHOWN, DAC_OVERRIDE, FOWNER, FSETID: to give files to other ids
  bool reads_all = false;     ///< CAP_DAC_READ_SEARCH, and the calls that walk a tree
  bool runs_program = false;  ///< execve of what lies below /usr, and threads; otherwise no program can be started
  std::vector<Place> places;  ///< all that may be opened
};

/// Errors: internal, unavailable: the caller must not go on.
Result<> enter(const Sandbox& sandbox);

}  // namespace virga::image
