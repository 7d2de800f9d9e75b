// One virtual machine: its shim, and the connections to its monitor and its agent, which are made again when they break.
#pragma once

#include <chrono>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/task.h"
#include "drivers/compute/driver.h"
#include "drivers/compute/qemu/driver.h"
#include "drivers/compute/qemu/plan.h"
#include "io/cgroup.h"
#include "io/shim.h"
#include "wire/agent/session.h"
#include "wire/qmp/client.h"

namespace virga::compute::qemu_driver {

struct Guest {
  Guest(const Executor& executor, std::string guest_id)
      : id(std::move(guest_id)), ended(executor), agent_changed(executor), monitor_changed(executor), lock(executor) {}
  std::string id;
  std::string run_dir;
  State state = State::absent;
  pid_t pid = -1;
  std::uint64_t start_time = 0;
  std::chrono::steady_clock::time_point booted{};     ///< when it began to run, or was reset
  bool expected = false;                              ///< somebody asked for its end
  std::chrono::steady_clock::time_point disk_told{};  ///< when its disk's failure was last written to the log
  // From its spec; a guest that is adopted finds them in guest.json.
  std::uint64_t memory_mib = 0;
  std::uint32_t cpus = 1;
  std::vector<Nic> nics;

  std::unique_ptr<io::Shim> shim;
  std::unique_ptr<qmp::Client> monitor;
  std::unique_ptr<agent::Session> agent;
  Notification ended;
  Notification agent_changed;
  Notification monitor_changed;
  AsyncMutex lock;  ///< create, start, pause, resume, remove: one at a time. stop() waits without it

  bool lives() const { return state == State::created || state == State::running || state == State::paused; }
};
using GuestPtr = std::shared_ptr<Guest>;

/// What the driver's parts share; background tasks keep it alive.
struct Core {
  explicit Core(QemuOptions o) : options(std::move(o)), tasks(options.executor) {}
  QemuOptions options;
  Host host;
  std::optional<gid_t> kvm_group;
  bool usable = false;
  io::CgroupLayout layout;
  std::unordered_map<std::string, GuestPtr> guests;
  std::function<void(GuestEvent)> handler;
  TaskGroup tasks;
  bool closing = false;

  GuestPtr find(const std::string& id) const {
    auto it = guests.find(id);
    return it == guests.end() ? nullptr : it->second;
  }
  GuestPtr find_or_make(const std::string& id) {
    auto& guest = guests[id];
    if (!guest) guest = std::make_shared<Guest>(options.executor, id);
    return guest;
  }
  io::Cgroup cgroup(const std::string& id) const { return layout.group("virga/" + options.cgroup_tag + "/" + id); }
  bool has_cgroups() const { return !options.cgroup_tag.empty() && layout.kind() != io::CgroupLayout::Kind::none; }
};
using CorePtr = std::shared_ptr<Core>;

/// Takes a connected monitor and listens to its events.
void attach_monitor(const GuestPtr& guest, std::unique_ptr<qmp::Client> monitor);
/// Asks QEMU whether the guest runs: events tell, but not those who had no connection when they came.
Task<> learn_state(GuestPtr guest);
/// Starts what goes on while the guest lives: waiting for its end, and keeping its connections.
void follow(const CorePtr& core, const GuestPtr& guest);
/// One command to QEMU. Errors: unavailable (it does not run, or its monitor is not connected).
Task<Result<json::value>> command(GuestPtr guest, std::string name, json::object arguments = {},
                                  Milliseconds timeout = Milliseconds(10'000));
/// The same with a descriptor that goes along.
Task<Result<json::value>> command_with(GuestPtr guest, io::UniqueFd fd, std::string name, json::object arguments = {},
                                       Milliseconds timeout = Milliseconds(10'000));
/// Waits for the guest's agent: long for a guest that has just begun to boot. Errors: unavailable, with a hint.
Task<Result<>> wait_for_agent(GuestPtr guest);

/// guest.json: what an adopting daemon must know.
json::object remember(const GuestSpec& spec);
Result<> recall(Guest& guest, std::string_view text);

/// stats.cc
Task<Result<GuestStats>> guest_stats(CorePtr core, GuestPtr guest);
/// exec.cc
Task<Result<std::unique_ptr<ExecSession>>> start_exec(GuestPtr guest, ExecSpec spec);
/// screen.cc
Task<Result<std::unique_ptr<ByteStream>>> join_screen(GuestPtr guest, ConsoleOps::Screen protocol, Executor executor);
Task<Result<std::string>> take_screenshot(GuestPtr guest);
/// layers.cc
Task<Result<>> add_disk_layer(CorePtr core, GuestPtr guest, std::size_t disk, Disk layer);
Task<Result<>> merge_disk_layers(CorePtr core, GuestPtr guest, std::size_t disk, Disk layers, std::string upper, std::string lower);
/// files.cc
Task<Result<std::unique_ptr<ByteStream>>> serve_files(GuestPtr guest);

}  // namespace virga::compute::qemu_driver
