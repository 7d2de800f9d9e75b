// Containers by an OCI runtime (runc, crun). The runtime only makes and starts a container; its init is the child of a virga-shim
// of its own, which outlives the daemon. In the hot path the runtime runs twice: create and start.
//
//   RUN_DIR/config.json, pid, runtime.log    what the runtime was told and said        LOG_DIR/console.log, init.log
//   RUN_DIR/shim.sock, console.sock, state   the shim's (io/shim.h)                    RUN_DIR/exec/<n>/   one exec session each
//   RUN_ROOT/<id>/                           the runtime's own state                   cgroup virga/<tag>/<id>
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "base/task.h"
#include "drivers/compute/driver.h"

namespace virga::compute {

struct OciOptions {
  std::string shim_program;   ///< path of virga-shim
  std::string files_program;  ///< path of virga-files
  std::string run_root;       ///< the runtime's own state goes here; made if missing; its parents must let other users pass (o+x)
  std::string cgroup_tag;     ///< one word that tells this daemon's guests from those of another on the same host
  BlockingPool& pool;
  Executor executor;
  std::vector<std::string> runtimes = {"runc", "crun"};  ///< tried in this order: the first that runs a container is used
  IdRange probe_ids{1'000'000, 65'536};                  ///< for the container that tries it
};

/// Tries the runtimes by running a trivial container. Where none works the driver is there all the same: its warnings tell why, and
/// create() fails.
Task<Result<std::unique_ptr<Driver>>> open_oci_driver(OciOptions options);

}  // namespace virga::compute
