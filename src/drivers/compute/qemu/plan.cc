#include "drivers/compute/qemu/plan.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/json.h"

namespace virga::compute::qemu_driver {
namespace {

// Together with the fixed devices they fill the 29 free slots of the root bus.
constexpr std::size_t max_disks = 12;
constexpr std::size_t max_nics = 12;

bool is_word(std::string_view s, std::string_view more) {
  auto good = [&](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || more.find(c) != std::string_view::npos;
  };
  return !s.empty() && s.size() <= 64 && std::all_of(s.begin(), s.end(), good);
}

bool is_mac(std::string_view s) {
  if (s.size() != 17) return false;
  for (std::size_t i = 0; i < s.size(); ++i)
    if (i % 3 == 2 ? s[i] != ':' : std::string_view("0123456789abcdefABCDEF").find(s[i]) == std::string_view::npos) return false;
  return true;
}

bool is_uuid(std::string_view s) {
  if (s.size() != 36) return false;
  for (std::size_t i = 0; i < s.size(); ++i)
    if (i == 8 || i == 13 || i == 18 || i == 23 ? s[i] != '-'
                                                : std::string_view("0123456789abcdefABCDEF").find(s[i]) == std::string_view::npos)
      return false;
  return true;
}

Result<> check(const GuestSpec& spec) {
  if (spec.kind != Kind::virtual_machine) return fail(ErrorKind::unsupported, "the qemu driver runs virtual machines only");
  if (!is_word(spec.name, "-.")) return invalid("name", "a virtual machine's name holds letters, digits and '-'");
  if (!is_word(spec.id, "-")) return invalid("id", "an id holds letters, digits and '-'");
  if (spec.cpus && (*spec.cpus < 1 || *spec.cpus > 255))
    return invalid("limits.cpu", "a virtual machine has between 1 and 255 processors");
  if (const auto mib = memory_mib(spec); mib < 16 || mib > (4u << 20))
    return invalid("limits.memory", "a virtual machine has between 16 MiB and 4 TiB of memory");
  if (spec.disks.size() > max_disks) return fail(ErrorKind::unsupported, fmt::format("more than {} disks", max_disks));
  if (spec.nics.size() > max_nics) return fail(ErrorKind::unsupported, fmt::format("more than {} network interfaces", max_nics));
  for (const auto& disk : spec.disks) {
    if (disk.path.empty()) return invalid("source", fmt::format("disk '{}' has no path", disk.device));
    if (!disk.backing.empty() && disk.format != DiskFormat::qcow2)
      return invalid("source", fmt::format("disk '{}' is raw and has no backing image", disk.device));
  }
  for (const auto& nic : spec.nics) {
    if (!is_mac(nic.mac)) return invalid("hwaddr", fmt::format("network interface '{}' has no valid MAC address", nic.device));
    if (nic.mtu < 68 || nic.mtu > 65535)
      return invalid("mtu", fmt::format("network interface '{}': the MTU lies between 68 and 65535", nic.device));
  }
  if (spec.direct_boot) {
    if (spec.direct_boot->kernel.empty()) return invalid("kernel", "direct boot needs a kernel");
    if (spec.direct_boot->command_line.size() > 2000 || spec.direct_boot->command_line.find('\0') != std::string::npos)
      return invalid("command_line", "the kernel's command line is at most 2000 bytes");
  } else if (!spec.firmware) {
    return invalid("firmware", "a virtual machine boots a kernel or a firmware");
  }
  return {};
}

/// Collects arguments and the descriptors they speak of.
class Builder {
 public:
  explicit Builder(const Host& host) : host_(host) { plan_.argv.push_back(host.qemu_program); }
  template <class... A>
  void add(A&&... a) {
    (plan_.argv.emplace_back(std::forward<A>(a)), ...);
  }
  void json(const char* option, json::object value) { add(option, json::serialize(value)); }
  int pass(Passed::What what, std::string name, bool writable = false, DiskFormat format = DiskFormat::raw, bool layered = false) {
    const int number = next_++;
    plan_.passed.push_back({what, number, std::move(name), writable, format, layered});
    return number;
  }
  void pass_as(Passed::What what, int number) { plan_.passed.push_back({what, number, {}, false, DiskFormat::raw, false}); }
  /// A file that QEMU "opens" as /dev/fdset/N: our descriptor, with exactly these rights.
  json::object file_node(const std::string& node, Passed::What what, const std::string& path, bool writable, DiskFormat format,
                         bool layered = false) {
    const int n = pass(what, path, writable, format, layered);
    add("-add-fd", fmt::format("fd={},set={}", n, n));
    json::object file{{"driver", "file"},
                      {"node-name", node},
                      {"filename", fmt::format("/dev/fdset/{}", n)},
                      {"read-only", !writable},
                      {"discard", "unmap"}};
    if (writable) {
      // One holder of the lock at most: a second QEMU on the same disk fails to start.
      file["locking"] = "on";
    }
    return file;
  }
  std::string next_slot() { return fmt::format("{:#x}", slot_++); }
  Plan take() { return std::move(plan_); }
  const Host& host() const { return host_; }

 private:
  const Host& host_;
  Plan plan_;
  int next_ = first_free_fd;
  int slot_ = 2;
};

void add_machine(Builder& b, const GuestSpec& spec) {
  const bool secure = !spec.direct_boot && spec.firmware->secure_boot;
  b.add("-name", fmt::format("guest={},debug-threads=on", spec.name));
  if (is_uuid(spec.id)) b.add("-uuid", spec.id);
  // Nothing that is not used: each device costs start and boot time and is code that a guest can reach. The HPET stays under TCG,
  // where kernels calibrate their clocks faster with it.
  // The keyboard controller is what firmware and boot loaders read a screen's keyboard from.
  std::string machine = fmt::format("q35,smm={},vmport=off,sata=off,smbus=off,i8042={},usb=off,dump-guest-core=off,mem-merge=off",
                                    secure ? "on" : "off", spec.direct_boot ? "off" : "on");
  if (b.host().kvm) machine += ",hpet=off";
  if (!spec.direct_boot) machine += ",pflash0=firmware,pflash1=variables";
  b.add("-machine", std::move(machine));
  b.add("-accel", b.host().kvm ? "kvm" : "tcg,thread=multi");
  b.add("-cpu", b.host().kvm ? "host" : "max");
  b.add("-smp", fmt::format("cpus={}", spec.cpus.value_or(1)));
  b.add("-m", fmt::format("size={}M", memory_mib(spec)));
  b.add("-nodefaults", "-no-user-config", "-display", "none", "-S", "-rtc", "base=utc");
  b.add("-global", "ICH9-LPC.disable_s3=1", "-global", "ICH9-LPC.disable_s4=1");
  if (secure) b.add("-global", "driver=cfi.pflash01,property=secure,value=on");
  b.add("-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny");
}

void add_channels(Builder& b) {
  b.pass_as(Passed::What::monitor, monitor_fd);
  b.pass_as(Passed::What::agent, agent_fd);
  b.pass_as(Passed::What::console, console_fd);
  b.add("-chardev", fmt::format("socket,id=monitor,fd={},server=on,wait=off", monitor_fd), "-mon", "chardev=monitor,mode=control");
  b.add("-chardev", fmt::format("socket,id=console,fd={}", console_fd), "-serial", "chardev:console");
  b.json("-device", {{"driver", "virtio-serial-pci"},
                     {"id", "serial"},
                     {"max_ports", 2},
                     {"disable-legacy", "on"},
                     {"bus", "pcie.0"},
                     {"addr", b.next_slot()}});
  b.add("-chardev", fmt::format("socket,id=agent,fd={},server=on,wait=off", agent_fd));
  b.json("-device",
         {{"driver", "virtserialport"}, {"id", "agent"}, {"bus", "serial.0"}, {"chardev", "agent"}, {"name", "org.virga.agent.0"}});
}

void add_small_devices(Builder& b) {
  b.json("-object", {{"qom-type", "rng-builtin"}, {"id", "random"}});
  b.json("-device", {{"driver", "virtio-rng-pci"},
                     {"id", "rng"},
                     {"rng", "random"},
                     {"disable-legacy", "on"},
                     {"bus", "pcie.0"},
                     {"addr", b.next_slot()}});
  b.json("-device", {{"driver", "virtio-balloon-pci"},
                     {"id", "balloon"},
                     {"deflate-on-oom", true},
                     {"disable-legacy", "on"},
                     {"bus", "pcie.0"},
                     {"addr", b.next_slot()}});
}

/// A machine that boots by firmware may run anything, and its boot menu is on the screen. One that boots a kernel of ours directly
/// has its text console; a screen would cost it memory and start time, and be code that it can reach. The servers listen nowhere:
/// connections are handed to them (screen.cc).
void add_screen(Builder& b) {
  b.add("-spice", "port=0,disable-ticketing=on", "-vnc", "none");
  b.json("-device", {{"driver", "virtio-vga"}, {"id", "screen"}, {"bus", "pcie.0"}, {"addr", b.next_slot()}});
  b.json(
      "-device",
      {{"driver", "virtio-tablet-pci"}, {"id", "pointer"}, {"disable-legacy", "on"}, {"bus", "pcie.0"}, {"addr", b.next_slot()}});
}

/// The serial number under which the guest's /dev/disk/by-id shows a disk: at most 20 bytes.
std::string serial_of(const Disk& disk) {
  std::string serial = "virga_";
  for (char c : disk.device) {
    if (serial.size() == 20) break;
    serial += is_word(std::string_view(&c, 1), "-_.") ? c : '_';
  }
  return serial;
}

}  // namespace

std::string layer_node(std::size_t disk, std::string_view path) {
  auto stem = path.substr(path.rfind('/') + 1);
  stem = stem.substr(0, std::min<std::size_t>(stem.rfind('.'), 18));
  std::string node = fmt::format("disk{}-", disk);
  for (char c : stem) node += is_word(std::string_view(&c, 1), "-_.") ? c : '_';
  return node;
}

std::string disk_device(std::size_t disk) {
  return fmt::format("dev-disk{}", disk);
}

namespace {

void add_disk(Builder& b, const Disk& disk, std::size_t n) {
  json::value below = nullptr;  // said even where there is nothing: otherwise QEMU would follow the name in a header
  for (auto path = disk.backing.rbegin(); path != disk.backing.rend(); ++path) {
    const auto node = layer_node(n, *path);
    const bool layered = !below.is_null();
    b.json("-blockdev", b.file_node(node + "-file", Passed::What::image, *path, false, DiskFormat::qcow2, layered));
    b.json("-blockdev",
           {{"driver", "qcow2"}, {"node-name", node}, {"read-only", true}, {"file", node + "-file"}, {"backing", below}});
    below = node;
  }
  const auto node = layer_node(n, disk.path);
  b.json("-blockdev",
         b.file_node(node + "-file", Passed::What::disk, disk.path, !disk.readonly, disk.format, !disk.backing.empty()));
  json::object format{{"driver", disk.format == DiskFormat::qcow2 ? "qcow2" : "raw"},
                      {"node-name", node},
                      {"read-only", disk.readonly},
                      {"file", node + "-file"}};
  if (disk.format == DiskFormat::qcow2) format["backing"] = below;
  if (!disk.readonly) {
    format["discard"] = "unmap";
    format["detect-zeroes"] = "unmap";
  }
  b.json("-blockdev", std::move(format));
  b.json("-device", {{"driver", "virtio-blk-pci"},
                     {"id", disk_device(n)},
                     {"drive", node},
                     {"serial", serial_of(disk)},
                     {"bootindex", static_cast<int>(n) + 1},
                     {"disable-legacy", "on"},
                     {"bus", "pcie.0"},
                     {"addr", b.next_slot()}});
}

void add_nic(Builder& b, const Nic& nic, std::size_t n) {
  const int fd = b.pass(Passed::What::tap, nic.host_name, true);
  b.add("-netdev", fmt::format("tap,id=net{},fd={}", n, fd));
  b.json("-device", {{"driver", "virtio-net-pci"},
                     {"id", fmt::format("dev-net{}", n)},
                     {"netdev", fmt::format("net{}", n)},
                     {"mac", nic.mac},
                     {"host_mtu", nic.mtu},
                     {"romfile", ""},
                     {"disable-legacy", "on"},
                     {"bus", "pcie.0"},
                     {"addr", b.next_slot()}});
}

/// With its name: the kernel (5.19 and newer) takes it as the host name before the first program runs. An image's own choice
/// stands.
std::string named_command_line(const GuestSpec& spec) {
  const auto& line = spec.direct_boot->command_line;
  if (line.starts_with("hostname=") || line.find(" hostname=") != std::string::npos) return line;
  // In front: what follows " -- " would be init's.
  return fmt::format("hostname={}{}{}", spec.name, line.empty() ? "" : " ", line);
}

void add_boot(Builder& b, const GuestSpec& spec) {
  if (spec.direct_boot) {
    if (!b.host().bios.empty()) b.add("-bios", b.host().bios);
    // QEMU reads these with plain open(): the link names our descriptor, whatever directories lie above the file.
    b.add("-kernel", fmt::format("/proc/self/fd/{}", b.pass(Passed::What::kernel, spec.direct_boot->kernel)));
    if (!spec.direct_boot->initrd.empty())
      b.add("-initrd", fmt::format("/proc/self/fd/{}", b.pass(Passed::What::initrd, spec.direct_boot->initrd)));
    b.add("-append", named_command_line(spec));
    return;
  }
  const auto& code = spec.firmware->secure_boot ? b.host().secure_firmware : b.host().firmware;
  b.json("-blockdev", b.file_node("firmware-file", Passed::What::firmware, code, false, DiskFormat::raw));
  b.json("-blockdev", {{"driver", "raw"}, {"node-name", "firmware"}, {"read-only", true}, {"file", "firmware-file"}});
  b.json("-blockdev", b.file_node("variables-file", Passed::What::variables, spec.firmware->variables, true, DiskFormat::raw));
  b.json("-blockdev", {{"driver", "raw"}, {"node-name", "variables"}, {"read-only", false}, {"file", "variables-file"}});
}

}  // namespace

std::uint64_t memory_mib(const GuestSpec& spec) {
  return spec.memory.value_or(Bytes(1) << 30) >> 20;
}

Result<Plan> make_plan(const GuestSpec& spec, const Host& host) {
  VIRGA_CHECK(check(spec));
  if (!spec.direct_boot && (spec.firmware->secure_boot ? host.secure_firmware : host.firmware).empty())
    return fail(Error(ErrorKind::unsupported, "no OVMF firmware on this host").with_hint("apt install ovmf"));
  Builder b(host);
  add_machine(b, spec);
  add_channels(b);
  add_small_devices(b);
  add_boot(b, spec);
  for (std::size_t n = 0; n < spec.disks.size(); ++n) add_disk(b, spec.disks[n], n);
  for (std::size_t n = 0; n < spec.nics.size(); ++n) add_nic(b, spec.nics[n], n);
  if (!spec.direct_boot) add_screen(b);
  return b.take();
}

}  // namespace virga::compute::qemu_driver
