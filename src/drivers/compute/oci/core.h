// What the files of this driver share.
#pragma once

#include <map>
#include <memory>
#include <string>

#include "drivers/compute/oci/commands.h"
#include "drivers/compute/oci/config.h"
#include "drivers/compute/oci/driver.h"
#include "io/cgroup.h"
#include "io/shim.h"

namespace virga::compute::oci_driver {

/// One container that this daemon made or adopted.
struct Guest {
  Guest(const Executor& executor, std::string guest_id) : id(std::move(guest_id)), ended(executor), lock(executor) {}
  std::string id;
  std::string run_dir;
  Remembered remembered;
  std::unique_ptr<io::Shim> shim;
  State state = State::absent;
  pid_t pid = -1;
  std::uint64_t start_time = 0;
  bool expected = false;  ///< its end is what stop() or remove() wants: no event
  Notification ended;
  AsyncMutex lock;  ///< create, start and remove of one guest take turns
};
using GuestPtr = std::shared_ptr<Guest>;

struct Probe {
  Runtime runtime;  ///< path is empty where no runtime works
  std::string version;
  std::vector<std::string> warnings;
};

struct Core {
  Core(OciOptions o, HostFacts f) : options(std::move(o)), facts(std::move(f)), tasks(options.executor) {}
  OciOptions options;
  HostFacts facts;
  Runtime runtime;
  io::CgroupLayout layout = io::CgroupLayout::probe();
  std::map<std::string, GuestPtr> guests;
  std::function<void(GuestEvent)> handler;
  TaskGroup tasks;
  bool closing = false;

  io::Cgroup cgroup(const std::string& id) const { return layout.group("virga/" + options.cgroup_tag + "/" + id); }
  std::string runtime_state(const std::string& id) const { return runtime.root + "/" + id; }
  GuestPtr find(const std::string& id) const {
    auto it = guests.find(id);
    return it == guests.end() ? nullptr : it->second;
  }
};
using CorePtr = std::shared_ptr<Core>;

/// probe.cc. Finds the first runtime that really runs a container.
Task<Probe> probe_runtimes(const OciOptions& options, const HostFacts& facts);
/// Pure: which known escapes a runtime of that version text ("runc version 1.1.5+ds1\ncommit: 1.1.5+ds1-1+deb12u1\n...") is open
/// to.
std::vector<std::string> known_escapes(std::string_view version_text);

/// exec.cc
Task<Result<std::unique_ptr<ExecSession>>> start_exec(CorePtr core, GuestPtr guest, ExecSpec spec);
/// Sessions of a daemon that died: their shims are dying or dead.
Task<> sweep_exec_sessions(std::string run_dir);

/// files.cc
Task<Result<std::unique_ptr<ByteStream>>> serve_running(CorePtr core, GuestPtr guest);
Task<Result<std::unique_ptr<ByteStream>>> serve_stopped(CorePtr core, std::string rootfs, IdRange ids);
Task<Result<>> write_new_files(CorePtr core, std::string rootfs, IdRange ids, std::vector<NewFile> files);

/// stats.cc
Task<Result<GuestStats>> read_stats(CorePtr core, GuestPtr guest);

}  // namespace virga::compute::oci_driver
