// What this host offers to QEMU: its version, and whether hardware virtualization truly works.
#pragma once

#include <sys/types.h>

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "base/task.h"

namespace virga::compute::qemu_driver {

struct Accelerator {
  bool kvm = false;
  std::optional<gid_t> group;  ///< QEMU needs this group to open /dev/kvm
  std::string reason;          ///< why it is not KVM
  std::string remedy;
};

struct Version {
  int major = 0, minor = 0, micro = 0;
  std::string text;
  auto operator<=>(const Version& o) const {
    if (auto c = major <=> o.major; c != 0) return c;
    if (auto c = minor <=> o.minor; c != 0) return c;
    return micro <=> o.micro;
  }
  bool operator==(const Version& o) const { return (*this <=> o) == 0; }
};

/// What is needed to decide, so that the decision is a pure function.
struct KvmFacts {
  int open_error = 0;      ///< errno of opening /dev/kvm, 0 when it opened
  bool usable = false;     ///< it speaks version 12 and made a virtual machine
  bool processor = false;  ///< vmx or svm among the processor's flags
  mode_t mode = 0;
  uid_t owner = 0;
  gid_t group = 0;
};
KvmFacts kvm_facts();
bool has_virtualization_flag(std::string_view cpuinfo);
Accelerator choose_accelerator(const KvmFacts& facts);

/// "QEMU emulator version 7.2.22 (Debian ...)". Errors: unsupported (older than 7.2), invalid.
Result<Version> parse_version(std::string_view text);
Task<Result<Version>> qemu_version(std::string program);

}  // namespace virga::compute::qemu_driver
