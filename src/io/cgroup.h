// Control groups of guests, on hosts with one unified hierarchy (v2), with one hierarchy a controller (v1), and with both (hybrid:
// the controllers are v1's). Calls are small reads and writes of kernel files; those that may wait say so and belong on a
// BlockingPool. Thread-safe: no state but the layout, found once.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/units.h"

namespace virga::io {

struct CgroupUsage {
  std::uint64_t cpu_ns = 0;
  Bytes memory = 0;       ///< without page cache that nobody has used lately
  Bytes memory_peak = 0;  ///< 0: the kernel does not say
  std::optional<Bytes> memory_limit;
  Bytes swap = 0;
  std::uint64_t processes = 0;  ///< tasks, that is threads too
  std::uint64_t oom_kills = 0;
};

/// What metrics tell beyond the usage; what this host does not count stays empty.
struct CgroupDetail {
  std::uint64_t cpu_user_ns = 0, cpu_system_ns = 0;
  /// "Cached", "Active_anon", "Shmem", ...: the names of /proc/meminfo.
  std::vector<std::pair<std::string_view, Bytes>> memory;
  struct Disk {
    std::string device;  ///< "sda"
    Bytes read_bytes = 0, written_bytes = 0;
    std::uint64_t reads = 0, writes = 0;
  };
  std::vector<Disk> disks;
};

/// How many tasks a guest may have that has no limit of its own, so that it cannot take all that the host has: 15 % of what the
/// kernel's pid_max and threads-max allow, as services of systemd get. `proc`: "/proc", or what looks like it in tests.
std::uint64_t default_process_limit(const std::string& proc = "/proc");

class Cgroup;

/// Where this host mounts its control groups.
class CgroupLayout {
 public:
  enum class Kind { none, v1, hybrid, v2 };
  /// Reads /proc/self/mountinfo.
  static CgroupLayout probe();
  /// From the text of a mountinfo file.
  static CgroupLayout parse(std::string_view mountinfo);
  /// A tree that looks like a v2 mount, for tests.
  static CgroupLayout unified_at(std::string root);

  Kind kind() const noexcept { return kind_; }
  /// Whether limits and usage of "cpu", "memory", "pids", "freezer" work here.
  bool has(const std::string& controller) const;
  /// "v2", "hybrid (controllers are v1)", ...: for people.
  std::string describe() const;
  /// A group by its path below the root: "virga/<daemon>/<guest>". Only our own words are part of it.
  Cgroup group(std::string path) const;

 private:
  friend class Cgroup;
  Kind kind_ = Kind::none;
  std::map<std::string, std::string> v1_;  ///< controller or "name=x" -> mount point
  std::string unified_;                    ///< mount point of v2, empty when there is none
};

class Cgroup {
 public:
  /// Makes the group in all hierarchies that it needs, with its parents. There already: success. Errors: unsupported (no cgroups),
  /// denied.
  Result<> create() const;
  bool exists() const;
  /// Files a process writes "0" to so as to join: what ShimSpec::cgroup_procs takes.
  std::vector<std::string> procs_files() const;
  /// Lets `uid` move processes about in the hierarchy that holds names only (v1's name=systemd); limits stay ours. On v2 the
  /// runtime does it. Nothing to do is success.
  Result<> delegate_names(uid_t uid) const;
  /// Absent means no limit. Errors: unsupported, not_found (no such group), busy (memory in use cannot be pushed below the limit).
  Result<> limit_cpus(std::optional<double> cpus) const;
  Result<> limit_memory(std::optional<Bytes> memory) const;
  Result<> limit_processes(std::optional<std::uint64_t> processes) const;
  /// Errors: not_found.
  Result<CgroupUsage> usage() const;
  CgroupDetail detail() const;
  /// Waits until all tasks have stopped, at most `timeout`. Errors: timeout (and the group is thawed again), not_found.
  Result<> freeze(std::chrono::milliseconds timeout = std::chrono::milliseconds(2'000)) const;
  Result<> thaw() const;
  bool frozen() const;
  /// Processes of the group and all groups below it.
  std::vector<pid_t> processes() const;
  /// Kills them all and waits until they are gone. Absent is success. Errors: timeout.
  Result<> kill_all(std::chrono::milliseconds timeout = std::chrono::milliseconds(5'000)) const;
  /// Removes the group and those below it, waiting for what is about to end. Absent is success. Errors: busy.
  Result<> remove(std::chrono::milliseconds timeout = std::chrono::milliseconds(2'000)) const;
  /// Removes the group where it is empty, for parents; says nothing where it is not.
  void remove_if_empty() const;

 private:
  friend class CgroupLayout;
  Cgroup(const CgroupLayout& layout, std::string path) : layout_(layout), path_(std::move(path)) {}
  /// The group's directory in the hierarchy that has `controller`; empty where none has.
  std::string directory(const std::string& controller) const;
  std::vector<std::string> directories() const;
  Result<> create_once() const;
  Result<> set(const std::string& controller, const char* file, const std::string& text) const;

  CgroupLayout layout_;
  std::string path_;
};

}  // namespace virga::io
