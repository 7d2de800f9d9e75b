#include "apps/virga/server/checks.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "apps/virga/text.h"

namespace virga::cli {
namespace {

constexpr Version least_qemu{7, 2, 0};
constexpr Version least_kernel{5, 12, 0};  // idmapped mounts

bool has_flag(std::string_view cpuinfo, std::string_view flag) {
  for (const auto& line : split(cpuinfo, '\n')) {
    if (!line.starts_with("flags")) continue;
    for (const auto& word : split(line, ' '))
      if (word == flag) return true;
  }
  return false;
}

std::string first_line(std::string_view text) {
  return std::string(text.substr(0, text.find('\n')));
}

/// Escapes from containers were fixed in these (masked paths, /dev/console, /proc writes of 2025, the /dev symlink after).
bool runc_is_fixed(const Version& v) {
  return v >= Version{1, 5, 0} || (v >= Version{1, 4, 3} && v < Version{1, 5, 0}) ||
         (v >= Version{1, 3, 6} && v < Version{1, 4, 0});
}
bool crun_is_fixed(const Version& v) {
  return v >= Version{1, 28, 0};
}

std::vector<std::string> cgroup_v1_controllers(std::string_view mounts) {
  std::vector<std::string> out;
  for (const auto& line : split(mounts, '\n')) {
    auto words = split(line, ' ');
    if (words.size() < 4 || words[2] != "cgroup") continue;
    for (const auto& option : split(words[3], ',')) out.push_back(option);
  }
  return out;
}

std::string cgroup_v2_path(std::string_view mounts) {
  for (const auto& line : split(mounts, '\n')) {
    auto words = split(line, ' ');
    if (words.size() >= 3 && words[2] == "cgroup2") return words[1];
  }
  return {};
}

Finding feature(bool there, std::string_view subject, std::string_view purpose, std::string_view remedy,
                Verdict without = Verdict::missing) {
  if (there) return {Verdict::good, std::string(subject), std::string(purpose), {}};
  return {without, std::string(subject), fmt::format("not there; it is needed for {}", purpose), std::string(remedy)};
}

}  // namespace

std::optional<Version> find_version(std::string_view text) {
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] < '0' || text[i] > '9') continue;
    Version version{0, 0, 0};
    std::size_t part = 0, at = i;
    for (; part < 3; ++part) {
      std::size_t begin = at;
      while (at < text.size() && text[at] >= '0' && text[at] <= '9' && at - begin < 6)
        version[part] = version[part] * 10 + (text[at++] - '0');
      if (at == begin) break;
      if (part < 2 && at + 1 < text.size() && text[at] == '.' && text[at + 1] >= '0' && text[at + 1] <= '9') {
        ++at;
      } else {
        ++part;
        break;
      }
    }
    if (part >= 2) return version;
    i = at;
  }
  return {};
}

std::string to_string(const Version& v) {
  return fmt::format("{}.{}.{}", v[0], v[1], v[2]);
}

Finding check_kvm(int open_error, std::string_view cpuinfo) {
  const bool intel = has_flag(cpuinfo, "vmx"), amd = has_flag(cpuinfo, "svm");
  const std::string slow = "virtual machines run with TCG, software emulation: correct, but many times slower";
  if (open_error == 0 && (intel || amd))
    return {Verdict::good, "KVM", fmt::format("/dev/kvm opens and the processor has {}", intel ? "vmx" : "svm"), {}};
  if (open_error == 0)
    return {Verdict::note, "KVM", "/dev/kvm opens, but the processor shows neither vmx nor svm; guests would hang on it. " + slow,
            "on a virtual host: ask for nested virtualization; on hardware: switch virtualization on in the firmware"};
  if (open_error == EACCES || open_error == EPERM)
    return {Verdict::note, "KVM", "/dev/kvm may not be opened by this user; the daemon may be able to",
            "run virga admin doctor as root to be sure"};
  if (intel || amd)
    return {Verdict::note, "KVM",
            fmt::format("the processor has {}, but /dev/kvm does not open ({}). {}", intel ? "vmx" : "svm",
                        std::strerror(open_error), slow),
            intel ? "modprobe kvm_intel" : "modprobe kvm_amd"};
  return {
      Verdict::note, "KVM",
      fmt::format("/dev/kvm does not open ({}) and the processor shows neither vmx nor svm. {}", std::strerror(open_error), slow),
      "on a virtual host: ask for nested virtualization; on hardware: switch virtualization on in the firmware"};
}

Finding check_qemu(std::optional<std::string_view> output) {
  if (!output)
    return {Verdict::missing, "QEMU", "qemu-system-x86_64 is not installed: no virtual machines",
            "apt install qemu-system-x86 qemu-utils"};
  auto version = find_version(*output);
  if (!version)
    return {Verdict::missing, "QEMU", fmt::format("its version is unreadable: {}", first_line(*output)),
            "apt install --reinstall qemu-system-x86"};
  if (*version < least_qemu)
    return {Verdict::missing, "QEMU", fmt::format("{} is older than {}", to_string(*version), to_string(least_qemu)),
            "upgrade to Debian 12 or newer"};
  return {Verdict::good, "QEMU", to_string(*version), {}};
}

Finding check_firmware(const std::string& path) {
  if (!path.empty()) return {Verdict::good, "UEFI firmware", path, {}};
  return {Verdict::note, "UEFI firmware", "OVMF is not installed: only images that bring their kernel start as virtual machines",
          "apt install ovmf"};
}

Finding check_runtime(std::optional<std::string_view> runc, std::optional<std::string_view> crun, bool hybrid_cgroups) {
  auto runc_version = runc ? find_version(*runc) : std::nullopt;
  auto crun_version = crun ? find_version(*crun) : std::nullopt;
  if (!runc_version && !crun_version)
    return {Verdict::missing, "OCI runtime", "neither runc nor crun is installed: no containers", "apt install runc"};
  // Older crun refuses hosts where v1 and v2 hierarchies are mounted side by side.
  const bool use_crun = crun_version && (!hybrid_cgroups || !runc_version) &&
                        (!runc_version || crun_is_fixed(*crun_version) || !runc_is_fixed(*runc_version));
  const std::string name = use_crun ? "crun" : "runc";
  const Version version = use_crun ? *crun_version : *runc_version;
  const bool fixed = use_crun ? crun_is_fixed(version) : runc_is_fixed(version);
  if (use_crun && hybrid_cgroups && version < Version{1, 9, 0})
    return {Verdict::missing, "OCI runtime", fmt::format("crun {} does not run on hosts with v1 cgroups", to_string(version)),
            "apt install runc"};
  if (fixed)
    return {Verdict::good, "OCI runtime", fmt::format("{} {}, with the known escapes fixed", name, to_string(version)), {}};
  return {Verdict::note, "OCI runtime",
          fmt::format("{} {} is older than the versions with all known escapes fixed (runc 1.3.6, 1.4.3, 1.5.0; crun 1.28), unless "
                      "the distribution has patched it. "
                      "Containers are unprivileged and virga prepares /dev and masked paths itself, which blocks most of them",
                      name, to_string(version)),
          fmt::format("apt update && apt install {} (bookworm-security, or bookworm-backports)", name)};
}

bool has_v1_hierarchies(std::string_view mounts) {
  return !cgroup_v1_controllers(mounts).empty();
}

Finding check_cgroups(std::string_view mounts, std::string_view controllers) {
  const auto v1 = cgroup_v1_controllers(mounts);
  const auto v2 = cgroup_v2_path(mounts);
  auto has_v1 = [&](std::string_view name) { return std::find(v1.begin(), v1.end(), name) != v1.end(); };
  auto v2_words = split(controllers, ' ');
  for (auto& word : v2_words)
    while (!word.empty() && word.back() == '\n') word.pop_back();
  auto has_v2 = [&](std::string_view name) { return std::find(v2_words.begin(), v2_words.end(), name) != v2_words.end(); };
  const std::string layout = v1.empty()   ? (v2.empty() ? "none" : "v2 (unified)")
                             : v2.empty() ? "v1"
                                          : "hybrid (v1 with a v2 tree beside)";
  if (v1.empty() && v2.empty())
    return {Verdict::missing, "cgroups", "no hierarchy is mounted: containers cannot be limited or stopped as a whole",
            "mount -t cgroup2 none /sys/fs/cgroup"};
  std::vector<std::string> lacking;
  for (const char* name : {"cpu", "memory", "pids"})
    if (!has_v1(name) && !has_v2(name)) lacking.emplace_back(name);
  if (!lacking.empty())
    return {Verdict::missing, "cgroups", fmt::format("{}; without the controllers {}", layout, fmt::join(lacking, ", ")),
            "take cgroup_disable= off the kernel's command line"};
  return {Verdict::good, "cgroups", layout, {}};
}

Finding check_program(std::string_view subject, std::optional<std::string_view> output, std::string_view package,
                      std::string_view purpose) {
  if (!output)
    return {Verdict::missing, std::string(subject), fmt::format("not installed; it is needed for {}", purpose),
            fmt::format("apt install {}", package)};
  auto version = find_version(*output);
  return {Verdict::good, std::string(subject), version ? to_string(*version) : first_line(*output), {}};
}

std::vector<Finding> check_kernel(const Kernel& k) {
  std::vector<Finding> out;
  auto version = find_version(k.release);
  if (version && *version >= least_kernel)
    out.push_back({Verdict::good, "kernel", k.release, {}});
  else
    out.push_back({Verdict::missing, "kernel", fmt::format("{} is older than {}", k.release, to_string(least_kernel)),
                   "upgrade to Debian 12 or newer"});
  out.push_back(feature(k.overlay, "overlayfs", "container roots on the dir pool", "modprobe overlay"));
  const bool namespaces = !k.max_user_namespaces.empty() && k.max_user_namespaces[0] != '0';
  out.push_back(feature(namespaces, "user namespaces", "unprivileged containers", "sysctl user.max_user_namespaces=65536"));
  out.push_back(feature(k.mount_setattr, "idmapped mounts", "sharing one image between containers with ids of their own",
                        "use a kernel of 5.12 or newer"));
  out.push_back(feature(k.openat2, "openat2", "resolving paths of guests safely", "use a kernel of 5.6 or newer"));
  out.push_back(feature(k.pidfd, "pidfd", "signalling exactly the process that is meant", "use a kernel of 5.4 or newer"));
  out.push_back(feature(k.seccomp, "seccomp", "confining QEMU and image readers", "use a kernel with CONFIG_SECCOMP_FILTER"));
  if (k.landlock_abi > 0)
    out.push_back({Verdict::good, "Landlock", fmt::format("version {}", k.landlock_abi), {}});
  else
    out.push_back(feature(false, "Landlock", "a second wall around image readers",
                          "add lsm=landlock,... to the kernel's command line", Verdict::note));
  out.push_back(feature(k.tun, "tun", "network cards of virtual machines", "modprobe tun"));
  out.push_back(feature(k.bridge, "bridge", "managed networks", "modprobe bridge"));
  out.push_back(feature(k.veth, "veth", "network cards of containers", "modprobe veth"));
  out.push_back(feature(k.nf_tables, "nf_tables", "NAT and protection against spoofing", "modprobe nf_tables"));
  return out;
}

std::string render_findings(const std::vector<Finding>& findings) {
  std::size_t width = 0;
  for (const auto& finding : findings) width = std::max(width, finding.subject.size());
  std::string out;
  int missing = 0, notes = 0;
  for (const auto& finding : findings) {
    const std::string_view mark = finding.verdict == Verdict::good ? "ok" : finding.verdict == Verdict::note ? "note" : "MISSING";
    out += fmt::format("{:<8} {:<{}}  {}\n", mark, finding.subject, width, finding.detail);
    if (!finding.remedy.empty()) out += fmt::format("{:<8} {:<{}}  -> {}\n", "", "", width, finding.remedy);
    missing += finding.verdict == Verdict::missing ? 1 : 0;
    notes += finding.verdict == Verdict::note ? 1 : 0;
  }
  if (missing > 0)
    out += fmt::format("\n{} missing: what is marked MISSING has to be mended first.\n", missing);
  else if (notes > 0)
    out += fmt::format("\nThis host can run virga; {} {} could be better.\n", notes, notes == 1 ? "thing" : "things");
  else
    out += "\nThis host has all that virga can use.\n";
  return out;
}

}  // namespace virga::cli
