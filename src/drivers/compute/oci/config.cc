#include "drivers/compute/oci/config.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <string_view>

#include "base/units.h"

namespace virga::compute::oci_driver {
namespace {

namespace oci = virga::oci;

constexpr std::string_view default_path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// All of them: in its own user namespace they reach nothing but what is the guest's own.
std::vector<std::string> all_capabilities() {
  std::vector<std::string> out;
  for (const char* name : {"CHOWN",
                           "DAC_OVERRIDE",
                           "DAC_READ_SEARCH",
                           "FOWNER",
                           "FSETID",
                           "KILL",
                           "SETGID",
                           "SETUID",
                           "SETPCAP",
                           "LINUX_IMMUTABLE",
                           "NET_BIND_SERVICE",
                           "NET_BROADCAST",
                           "NET_ADMIN",
                           "NET_RAW",
                           "IPC_LOCK",
                           "IPC_OWNER",
                           "SYS_MODULE",
                           "SYS_RAWIO",
                           "SYS_CHROOT",
                           "SYS_PTRACE",
                           "SYS_PACCT",
                           "SYS_ADMIN",
                           "SYS_BOOT",
                           "SYS_NICE",
                           "SYS_RESOURCE",
                           "SYS_TIME",
                           "SYS_TTY_CONFIG",
                           "MKNOD",
                           "LEASE",
                           "AUDIT_WRITE",
                           "AUDIT_CONTROL",
                           "SETFCAP",
                           "MAC_OVERRIDE",
                           "MAC_ADMIN",
                           "SYSLOG",
                           "WAKE_ALARM",
                           "BLOCK_SUSPEND",
                           "AUDIT_READ",
                           "PERFMON",
                           "BPF",
                           "CHECKPOINT_RESTORE"})
    out.push_back(std::string("CAP_") + name);
  return out;
}

std::vector<oci::Mount> mounts() {
  return {
      {"/proc", "proc", "proc", {"nosuid", "noexec", "nodev"}},
      {"/dev", "tmpfs", "tmpfs", {"nosuid", "strictatime", "mode=755", "size=512k"}},
      {"/dev/pts", "devpts", "devpts", {"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"}},
      {"/dev/shm", "tmpfs", "shm", {"nosuid", "nodev", "mode=1777"}},
      {"/dev/mqueue", "mqueue", "mqueue", {"nosuid", "noexec", "nodev"}},
      // Read-only, which also tells systemd that this is no machine whose devices it manages.
      {"/sys", "sysfs", "sysfs", {"nosuid", "noexec", "nodev", "ro"}},
      // In its own cgroup namespace, and owned by ids that are not the guest's where limits are written.
      {"/sys/fs/cgroup", "cgroup", "cgroup", {"nosuid", "noexec", "nodev", "relatime"}},
  };
}

std::vector<oci::SeccompRule> seccomp(bool nesting) {
  std::vector<oci::SeccompRule> rules{
      // What speaks to the kernel as a whole, or has been the way out of containers before.
      {{"kexec_load",
        "kexec_file_load",
        "init_module",
        "finit_module",
        "delete_module",
        "create_module",
        "query_module",
        "get_kernel_syms",
        "open_by_handle_at",
        "bpf",
        "perf_event_open",
        "userfaultfd",
        "iopl",
        "ioperm",
        "swapon",
        "swapoff",
        "acct",
        "quotactl",
        "quotactl_fd",
        "nfsservctl",
        "lookup_dcookie",
        "kcmp",
        "vm86",
        "vm86old",
        "uselib",
        "ustat",
        "_sysctl",
        "clock_settime",
        "clock_settime64",
        "settimeofday",
        "stime",
        "fanotify_init"},
       EPERM},
      // Programs take "not there" well and fall back.
      {{"io_uring_setup", "io_uring_enter", "io_uring_register"}, ENOSYS},
  };
  // Keyrings are counted by host user and not by namespace; nested container managers want them all the same.
  if (!nesting) rules.push_back({{"keyctl", "add_key", "request_key"}, ENOSYS});
  return rules;
}

std::vector<oci::Rlimit> rlimits(const HostFacts& facts) {
  const auto hard = std::min<std::uint64_t>(facts.open_files_hard, 1u << 20);
  return {{"RLIMIT_NOFILE", std::min<std::uint64_t>(hard, 1024), hard}};
}

bool is_environment_name(std::string_view name) {
  return !name.empty() && name.find('=') == std::string_view::npos && name.find('\0') == std::string_view::npos;
}

std::vector<std::string> to_list(const std::map<std::string, std::string>& environment) {
  std::vector<std::string> out;
  out.reserve(environment.size());
  for (const auto& [name, value] : environment) out.push_back(name + "=" + value);
  return out;
}

}  // namespace

Result<oci::Config> make_config(const GuestSpec& spec, const HostFacts& facts) {
  if (spec.kind != Kind::container) return fail(ErrorKind::unsupported, "the container driver runs no virtual machines");
  if (!spec.disks.empty()) return fail(ErrorKind::unsupported, "a container has no disks of its own");
  if (spec.ids.base == 0 || spec.ids.count < 65536 || spec.ids.base + std::uint64_t{spec.ids.count} > UINT32_MAX)
    return invalid("ids", fmt::format("'{}' needs a range of at least 65536 ids that are not the host's", spec.name));
  if (!spec.rootfs.starts_with('/')) return invalid("rootfs", fmt::format("the root of '{}' is not an absolute path", spec.name));
  if (spec.cpus && *spec.cpus == 0) return invalid("limits.cpu", "a limit of no processors");
  // It becomes part of paths and an operand of the runtime.
  if (spec.id.empty() || spec.id.size() > 64 ||
      spec.id.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789-") != std::string::npos || spec.id[0] == '-')
    return invalid("id", "the guest's id is not a UUID");
  oci::Config c;
  c.rootfs = spec.rootfs;
  c.hostname = spec.name;
  c.process.args = facts.init;
  c.process.terminal = true;
  c.process.capabilities = all_capabilities();
  c.process.rlimits = rlimits(facts);
  // "container" is how init systems learn where they are; "lxc" is the value that all of them know.
  std::map<std::string, std::string> environment{{"PATH", std::string(default_path)}, {"TERM", "linux"}, {"container", "lxc"}};
  for (const auto& [name, value] : spec.environment) {
    if (!is_environment_name(name)) return invalid("environment." + name, "not a name of an environment variable");
    environment[name] = value;
  }
  c.process.env = to_list(environment);
  c.mounts = mounts();
  c.namespaces = {"pid", "ipc", "uts", "mount", "network", "user", "cgroup"};
  c.ids = {{0, spec.ids.base, spec.ids.count}};
  c.cgroups_path = facts.cgroup_parent + "/" + spec.id;
  c.resources.memory = spec.memory;
  if (spec.cpus) c.resources.cpu_quota_us = *spec.cpus * c.resources.cpu_period_us;
  c.resources.processes = spec.processes ? spec.processes : facts.most_processes;
  c.seccomp = seccomp(spec.nesting);
#if defined(__x86_64__)
  c.seccomp_architectures = {"SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"};
#elif defined(__aarch64__)
  c.seccomp_architectures = {"SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"};
#endif
  // A masked /proc cannot be mounted again by a nested guest; there the ownership of the files is what protects.
  if (!spec.nesting) {
    c.masked_paths = {"/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/sched_debug",
                      "/proc/scsi", "/proc/timer_list", "/proc/timer_stats", "/sys/firmware", "/sys/devices/virtual/powercap",
                      // Also: systemd would try to mount these two itself, and be called degraded because it may not.
                      "/sys/kernel/debug", "/sys/kernel/tracing"};
    c.readonly_paths = {"/proc/bus",     "/proc/fs",     "/proc/irq",        "/proc/sysrq-trigger",
                        "/proc/sys/dev", "/proc/sys/fs", "/proc/sys/kernel", "/proc/sys/vm"};
  }
  return c;
}

Result<oci::Process> make_process(const ExecSpec& spec, const std::string& home, const std::string& user, const HostFacts& facts) {
  if (spec.command.empty() || spec.command[0].empty()) return invalid("command", "no command is given");
  oci::Process p;
  p.args = spec.command;
  p.uid = spec.uid;
  p.gid = spec.gid;
  p.terminal = spec.interactive;
  p.columns = spec.columns;
  p.rows = spec.rows;
  p.capabilities = all_capabilities();
  p.rlimits = rlimits(facts);
  std::map<std::string, std::string> environment{
      {"PATH", std::string(default_path)}, {"HOME", home}, {"USER", user}, {"LANG", "C.UTF-8"}};
  if (spec.interactive) environment["TERM"] = "xterm";
  for (const auto& [name, value] : spec.environment) {
    if (!is_environment_name(name))
      return invalid("environment", fmt::format("'{}' is not a name of an environment variable", name));
    environment[name] = value;
  }
  p.env = to_list(environment);
  p.cwd = spec.cwd.empty() ? home : spec.cwd;
  // A working directory below /proc/self/fd was the way out of runc once (CVE-2024-21626); nobody works in /proc.
  if (p.cwd == "/proc" || p.cwd.starts_with("/proc/")) return invalid("cwd", "the working directory may not be below /proc");
  return p;
}

void remember(oci::Config& config, const Remembered& what) {
  config.annotations["virga.halt-signal"] = std::to_string(what.halt_signal);
  for (const auto& nic : what.nics)
    if (!nic.guest_name.empty()) config.annotations["virga.nic." + nic.guest_name] = nic.host_name;
}

Result<Remembered> recall(std::string_view config_json) {
  VIRGA_TRY(auto document, parse_json_object(config_json));
  Remembered out;
  Fields fields(document);
  const auto* root = document.if_contains("root");
  if (root == nullptr || !root->is_object()) return fail(ErrorKind::invalid, "the container's configuration has no root");
  VIRGA_TRY(out.rootfs, Fields(root->as_object()).string("path"));
  VIRGA_TRY(auto notes, fields.string_map("annotations"));
  for (const auto& [name, value] : notes) {
    constexpr std::string_view nic = "virga.nic.";
    if (name == "virga.halt-signal") {
      VIRGA_TRY(auto number, parse_integer(value, 1, 64));
      out.halt_signal = static_cast<int>(number);
    } else if (name.starts_with(nic)) {
      Nic n;
      n.guest_name = name.substr(nic.size());
      n.host_name = value;
      out.nics.push_back(std::move(n));
    }
  }
  return out;
}

}  // namespace virga::compute::oci_driver
