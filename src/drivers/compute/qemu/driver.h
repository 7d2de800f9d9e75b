// Virtual machines: one QEMU process each, driven over QMP. QEMU is the child of a virga-shim of its own, which outlives the
// daemon; it runs as the guest's own user without capabilities, with its seccomp sandbox on, and opens nothing itself: every disk,
// tap, socket, kernel and firmware is a descriptor that the driver passes.
//
//   RUN_DIR/qmp.sock, agent.sock   QEMU listens there; a restarted daemon connects again      LOG_DIR/console.log, qemu.log
//   RUN_DIR/guest.json             what the driver must know of a guest that it adopts
//   RUN_DIR/shim.sock, console.sock, state   the shim's (io/shim.h)                           cgroup virga/<tag>/<id>
#pragma once

#include <memory>
#include <string>

#include "base/task.h"
#include "drivers/compute/driver.h"

namespace virga::compute {

struct QemuOptions {
  std::string shim_program;  ///< path of virga-shim
  std::string cgroup_tag;    ///< one word that tells this daemon's guests from those of another on the same host; empty: no cgroups
  BlockingPool& pool;
  Executor executor;
  std::string qemu_program = "/usr/bin/qemu-system-x86_64";
  std::string firmware_directory = "/usr/share/OVMF";
  std::string bios_directory = "/usr/share/qemu";
};

/// Finds out what this host can do. Where QEMU is missing the driver is there all the same: its warnings tell why, and create()
/// fails.
Task<Result<std::unique_ptr<Driver>>> open_qemu_driver(QemuOptions options);

}  // namespace virga::compute
