// What virga asks of something that runs guests. Ten calls, and capabilities that may be null. Typed specs only: a driver never
// sees the API's string maps, the store or the engine. All calls run on the event loop and are idempotent where it says so.
//
// A guest's life, as the engine drives it:
//   create()  everything but running: the container's init waits with its namespaces made, QEMU's processors are stopped
//   (the engine plugs NICs into the network namespace of a created container; a VM's taps exist before create())
//   start()   the guest runs
//   stop()    asks it to shut down, or forces it; returns when its processes are gone
//   remove()  takes away all that is left: processes, cgroup, sockets, run directory
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/byte_stream.h"
#include "base/error.h"
#include "base/json.h"
#include "base/task.h"
#include "base/units.h"

namespace virga::compute {

enum class Kind { container, virtual_machine };

/// Host ids [base, base + count) that are one guest's own. A container's root is `base`; a VM's QEMU runs as user and group `base`.
struct IdRange {
  std::uint32_t base = 0;
  std::uint32_t count = 0;
};

struct Nic {
  std::string device;      ///< device name in the configuration: eth0
  std::string guest_name;  ///< interface name in a container
  std::string host_name;   ///< of the tap (VM) or the host's end of the veth pair (container)
  std::string mac;         ///< 00:16:3e:xx:xx:xx
  std::uint32_t mtu = 1500;
};

enum class DiskFormat { raw, qcow2 };
struct Disk {
  std::string device;  ///< device name in the configuration: root
  std::string path;
  DiskFormat format = DiskFormat::qcow2;
  bool readonly = false;
  /// The read-only qcow2 layers below a qcow2 disk, the nearest first. Names in disk headers are never followed.
  std::vector<std::string> backing = {};
};

struct DirectBoot {  ///< kernel and initrd given by the image: no firmware time
  std::string kernel;
  std::string initrd;
  std::string command_line;
};
struct FirmwareBoot {     ///< OVMF; the variables file belongs to the guest
  std::string variables;  ///< path; created from the firmware's template at first start
  bool secure_boot = false;
};

struct GuestSpec {
  std::string id;  ///< the instance's UUID: names every resource of the guest
  std::string project;
  std::string name;  ///< host name, and what people see in ps
  Kind kind = Kind::container;
  std::string run_dir;  ///< exists, mode 0711, empty or of an earlier run of the same guest
  std::string log_dir;  ///< exists; console.log, qemu.log or init.log go here
  IdRange ids;
  std::optional<std::uint32_t> cpus;       ///< absent: all (container), 1 (VM)
  std::optional<Bytes> memory;             ///< absent: all (container), 1 GiB (VM)
  std::optional<std::uint64_t> processes;  ///< containers
  bool nesting = false;
  std::map<std::string, std::string> environment;  ///< containers: of init
  std::string rootfs;                              ///< containers: the mounted root
  std::vector<Disk> disks;                         ///< VMs: the first is the root
  std::vector<Nic> nics;
  std::optional<DirectBoot> direct_boot;  ///< VMs
  std::optional<FirmwareBoot> firmware;   ///< VMs: used when direct_boot is absent
};

/// What a driver would run, made without effects: tests compare it with golden files.
struct LaunchPlan {
  std::vector<std::string> argv;
  json::value config;  ///< the OCI configuration; null for QEMU
};

enum class State { absent, created, running, paused, stopped };
struct GuestStatus {
  State state = State::absent;
  pid_t pid = -1;                ///< of the container's init or of QEMU
  std::uint64_t start_time = 0;  ///< clock ticks since boot
};

/// Counters of a running guest; what a driver cannot know stays absent.
struct GuestStats {
  std::int64_t processes = -1;  ///< -1: unknown
  std::uint64_t cpu_ns = 0;
  Bytes memory_used = 0;
  Bytes memory_peak = 0;
  Bytes memory_total = 0;
  Bytes swap_used = 0;
  struct Address {
    std::string family, address, netmask, scope;
  };
  struct Interface {
    std::string name, host_name, mac, state, type;
    std::uint32_t mtu = 0;
    std::uint64_t bytes_in = 0, bytes_out = 0, packets_in = 0, packets_out = 0, errors_in = 0, errors_out = 0, dropped_in = 0,
                  dropped_out = 0;
    std::vector<Address> addresses;
  };
  std::vector<Interface> interfaces;  ///< as the guest sees them
  // What metrics tell more; empty or 0 where nobody knows.
  std::uint32_t cpus = 0;  ///< that it may use at once
  std::uint64_t cpu_user_ns = 0, cpu_system_ns = 0;
  std::uint64_t oom_kills = 0;
  /// By the names of /proc/meminfo that metrics use: "Cached", "Active_anon", "Shmem".
  std::vector<std::pair<std::string_view, Bytes>> memory_parts;
  struct Disk {
    std::string device;
    Bytes read_bytes = 0, written_bytes = 0;
    std::uint64_t reads = 0, writes = 0;
  };
  std::vector<Disk> disks;
  struct Filesystem {
    std::string device, type, mountpoint;
    Bytes size = 0, free = 0, available = 0;
  };
  std::vector<Filesystem> filesystems;
  std::string os_name, os_version, kernel_version, host_name;  ///< from the agent or the namespace; empty: unknown
};

struct ExecSpec {
  std::vector<std::string> command;
  std::map<std::string, std::string> environment;
  std::string cwd;  ///< empty: the user's home
  std::uint32_t uid = 0;
  std::uint32_t gid = 0;
  bool interactive = false;  ///< a pseudo-terminal; standard error joins standard output
  std::uint16_t columns = 80;
  std::uint16_t rows = 24;
};

/// A command that runs in a guest. Streams are bounded: who does not read stops the writer, not the daemon. Destroying it kills the
/// command. One reader a stream.
class ExecSession {
 public:
  enum class Stream { output, error };
  virtual ~ExecSession() = default;
  /// Writes all of `bytes` to standard input. Errors: unavailable (the command closed it).
  virtual Task<Result<>> write(std::string bytes) = 0;
  virtual Task<Result<>> close_input() = 0;
  /// At most 64 KiB; an empty string is the end of the stream.
  virtual Task<Result<std::string>> read(Stream stream) = 0;
  virtual Task<Result<>> resize(std::uint16_t columns, std::uint16_t rows) = 0;
  virtual Task<Result<>> signal(int number) = 0;
  /// The exit code; 128 + signal when killed. May be called before the streams have ended.
  virtual Task<Result<int>> wait() = 0;
};

class ExecOps {
 public:
  virtual ~ExecOps() = default;
  /// Errors: not_found (no such guest), unavailable (it does not run, or its agent does not answer: with a hint).
  virtual Task<Result<std::unique_ptr<ExecSession>>> exec(std::string id, ExecSpec spec) = 0;
};

/// A file that is made in a guest's root: what a template was rendered to.
struct NewFile {
  std::string path;
  std::string text;
  std::optional<std::uint32_t> uid, gid, mode;  ///< absent: 0, 0, 0644 of a new file; of one that is there what it has
  bool only_if_missing = false;
};

/// A guest's files, served by SFTP (version 3) over a stream: whatever is asked there ends beneath the guest's root.
class FileOps {
 public:
  virtual ~FileOps() = default;
  /// Of a guest that runs or is paused. Errors: not_found (no such guest), unavailable (it does not run, or its agent does not
  /// answer: with a hint).
  virtual Task<Result<std::unique_ptr<ByteStream>>> open_files(std::string id) = 0;
  /// Of a container that does not run, whose root is mounted at `rootfs` and shown with `ids`. What serves has a mount of its own:
  /// the caller's may be taken away when this returns. Errors: unsupported.
  virtual Task<Result<std::unique_ptr<ByteStream>>> open_root(std::string /*rootfs*/, IdRange /*ids*/) {
    co_return fail(Error(ErrorKind::unsupported, "the files of a virtual machine that is stopped cannot be reached")
                       .with_hint("start the instance first"));
  }
  /// Writes files into the root of a container that does not run, making the directories above them. Errors: unsupported; of the
  /// first that cannot be written.
  virtual Task<Result<>> write_files(std::string /*rootfs*/, IdRange /*ids*/, std::vector<NewFile> /*files*/) {
    co_return fail(ErrorKind::unsupported, "files cannot be written into the root of a virtual machine");
  }
  /// Writes files into a virtual machine that runs, making the directories above them; waits for its agent. Errors: as open_files;
  /// unsupported; of the first that cannot be written.
  virtual Task<Result<>> write_running(std::string /*id*/, std::vector<NewFile> /*files*/) {
    co_return fail(ErrorKind::unsupported, "files of a container are written before it starts");
  }
};

/// A guest's text console and, where it has one, its screen.
class ConsoleOps {
 public:
  enum class Screen { spice, vnc };
  virtual ~ConsoleOps() = default;
  /// What the guest writes from now on, and what is typed to it. Several may watch; each that reads too slowly loses output.
  /// Errors: not_found (no such guest, or it does not run).
  virtual Task<Result<std::unique_ptr<ByteStream>>> open_console(std::string id) = 0;
  /// Errors: unsupported (a serial line has no size).
  virtual Task<Result<>> resize_console(std::string id, std::uint16_t columns, std::uint16_t rows) = 0;
  /// Empties the console's log while the guest runs.
  virtual Task<Result<>> clear_console_log(std::string id) = 0;
  /// A connection to the screen's server. Errors: unsupported (no screen).
  virtual Task<Result<std::unique_ptr<ByteStream>>> open_screen(std::string /*id*/, Screen /*protocol*/) {
    co_return fail(ErrorKind::unsupported, "a container has no screen");
  }
  /// The screen as a PNG image. Errors: unsupported (no screen), unavailable.
  virtual Task<Result<std::string>> screenshot(std::string /*id*/) {
    co_return fail(ErrorKind::unsupported, "a container has no screen");
  }
};

/// The disks of a virtual machine that runs or is paused, by their place in its spec.
class DiskOps {
 public:
  virtual ~DiskOps() = default;
  /// From now on the guest writes to `layer.path`, an empty layer, and what it has written to so far is only read; it waits for
  /// some milliseconds. `layer.backing` is what lies below. Done already is success. Errors: not_found (no such guest),
  /// unavailable.
  virtual Task<Result<>> add_layer(std::string id, std::size_t disk, Disk layer) = 0;
  /// Writes what the layer `upper` of `layers` holds into `lower`, the one below it, and goes on without `upper`; the guest runs on
  /// meanwhile. Done already is success. Errors: unsupported (`upper` is the one that the guest writes to), unavailable.
  virtual Task<Result<>> merge_layers(std::string id, std::size_t disk, Disk layers, std::string upper, std::string lower) = 0;
};

/// Guests whose file systems can be held still, so that a snapshot of their disks is whole.
class FreezeOps {
 public:
  virtual ~FreezeOps() = default;
  /// Has the guest write out its file systems and keep writers waiting until thaw_files(), or for `longest` at most: it goes on by
  /// itself then. Errors: unavailable (no agent answers), unsupported (the agent cannot).
  virtual Task<Result<>> freeze_files(std::string id, Milliseconds longest) = 0;
  /// Not frozen is success.
  virtual Task<Result<>> thaw_files(std::string id) = 0;
};

struct DriverInfo {
  std::string name;     ///< "qemu", "oci", "fake"
  std::string version;  ///< of the program behind it
  Kind kind = Kind::container;
  std::vector<std::string> warnings;  ///< what `virga admin doctor` shows, with remedies
};

/// A guest ended without stop(): on its own, killed by somebody, or because it asked for a reboot.
struct GuestEvent {
  std::string id;
  bool reboot = false;  ///< the guest asked to be started again (containers; QEMU resets by itself)
  int exit_code = 0;
};

/// What a guest may use; absent: no limit of its own.
struct Limits {
  std::optional<std::uint32_t> cpus;
  std::optional<Bytes> memory;
  std::optional<std::uint64_t> processes;
};

class Driver {
 public:
  virtual ~Driver() = default;
  virtual const DriverInfo& info() const noexcept = 0;

  /// Pure. Errors: invalid, unsupported (names the part this driver cannot do).
  virtual Result<LaunchPlan> plan(const GuestSpec& spec) const = 0;
  /// Where that fails, nothing is left but logs. Errors: busy (it is there already), unavailable, unsupported.
  virtual Task<Result<GuestStatus>> create(GuestSpec spec) = 0;
  /// A guest that runs already is success.
  virtual Task<Result<>> start(std::string id) = 0;
  /// Asks the guest to shut down and waits for at most `timeout`. A guest that does not run is success. Errors: timeout.
  virtual Task<Result<>> stop(std::string id, Milliseconds timeout) = 0;
  /// Ends the guest at once and takes everything away but logs. Absent is success.
  virtual Task<Result<>> remove(std::string id) = 0;
  /// Changes the limits of a running guest at once. Errors: unsupported (a restart is needed: says which limit).
  virtual Task<Result<>> set_limits(std::string /*id*/, Limits /*limits*/) {
    co_return fail(Error(ErrorKind::unsupported, "limits cannot change while the guest runs").with_hint("stop the instance first"));
  }
  virtual Task<Result<>> pause(std::string id) = 0;
  virtual Task<Result<>> resume(std::string id) = 0;
  /// From memory and /proc only: never asks the guest or QEMU.
  virtual GuestStatus status(const std::string& id) const = 0;
  /// Bounded in time: a guest that does not answer yields what the host knows.
  virtual Task<Result<GuestStats>> stats(std::string id) = 0;
  /// After the daemon has started: connects to the guest that lives in `run_dir`, or finds that none does (State::absent; what is
  /// left of it is then for remove()).
  virtual Task<Result<GuestStatus>> adopt(std::string id, std::string run_dir) = 0;
  /// Called on the event loop for each guest that ends without stop() or remove(). Set once, before adopt().
  virtual void on_event(std::function<void(GuestEvent)> handler) = 0;
  /// Lets go of all connections; the guests run on.
  virtual Task<> shut_down() = 0;

  virtual ExecOps* exec() noexcept { return nullptr; }
  virtual FileOps* files() noexcept { return nullptr; }
  virtual ConsoleOps* console() noexcept { return nullptr; }
  virtual DiskOps* disks() noexcept { return nullptr; }
  virtual FreezeOps* freezing() noexcept { return nullptr; }
};

}  // namespace virga::compute
