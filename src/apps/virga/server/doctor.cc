// admin doctor: looks at this host and says what virga can do on it. It works without the daemon.
#include <fcntl.h>
#include <fmt/format.h>
#include <linux/openat2.h>
#include <spawn.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "apps/virga/app.h"
#include "apps/virga/server/admin.h"
#include "apps/virga/server/checks.h"
#include "apps/virga/server/fixes.h"
#include "apps/virga/values.h"

extern char** environ;

namespace virga::cli {
namespace {

std::string file_text(const char* path) {
  std::ifstream file(path);
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

bool there(const std::string& path) {
  std::error_code ec;
  return std::filesystem::exists(path, ec);
}

/// What a program prints for these arguments, at most 64 KiB; absent where it does not exist or prints nothing.
std::optional<std::string> output_of(std::vector<std::string> argv) {
  int pipe_fds[2];
  if (::pipe2(pipe_fds, O_CLOEXEC) != 0) return {};
  posix_spawn_file_actions_t actions;
  ::posix_spawn_file_actions_init(&actions);
  ::posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
  ::posix_spawn_file_actions_adddup2(&actions, pipe_fds[1], 1);
  ::posix_spawn_file_actions_adddup2(&actions, pipe_fds[1], 2);
  std::vector<char*> arguments;
  arguments.reserve(argv.size() + 1);
  for (auto& word : argv) arguments.push_back(word.data());
  arguments.push_back(nullptr);
  pid_t pid = 0;
  const int error = ::posix_spawnp(&pid, arguments[0], &actions, nullptr, arguments.data(), environ);
  ::posix_spawn_file_actions_destroy(&actions);
  ::close(pipe_fds[1]);
  std::string text;
  if (error == 0) {
    char buffer[4096];
    for (ssize_t n = 0; text.size() < (64u << 10) && (n = ::read(pipe_fds[0], buffer, sizeof buffer)) > 0;)
      text.append(buffer, static_cast<std::size_t>(n));
  }
  ::close(pipe_fds[0]);
  int status = 0;
  if (error == 0) ::waitpid(pid, &status, 0);
  if (error != 0 || text.empty() || (WIFEXITED(status) && WEXITSTATUS(status) == 127)) return {};
  return text;
}

/// Debian keeps some of these out of a plain user's PATH.
std::optional<std::string> version_of(const std::string& program, const std::string& flag = "--version") {
  for (const char* directory : {"", "/usr/sbin/", "/sbin/", "/usr/local/sbin/"})
    if (auto text = output_of({directory + program, flag})) return text;
  return {};
}

int open_error(const char* path) {
  const int fd = ::open(path, O_RDWR | O_CLOEXEC);
  if (fd < 0) return errno;
  ::close(fd);
  return 0;
}

/// Whether a module is built in, loaded, or can be loaded.
bool module_available(const std::string& name, const std::string& release) {
  if (there("/sys/module/" + name)) return true;
  for (const char* list : {"modules.builtin", "modules.dep"}) {
    std::ifstream file(fmt::format("/lib/modules/{}/{}", release, list));
    for (std::string line; std::getline(file, line);) {
      auto path = line.substr(0, line.find(':'));
      if (path.find("/" + name + ".ko") != std::string::npos) return true;
    }
  }
  return false;
}

/// Whether the kernel has a system call: wrong arguments are refused in other words than "no such call".
template <class... A>
bool has_call(long number, A... arguments) {
  errno = 0;
  return ::syscall(number, arguments...) >= 0 || errno != ENOSYS;
}

Kernel look_at_kernel() {
  Kernel k;
  ::utsname name{};
  ::uname(&name);
  k.release = name.release;
  const auto filesystems = file_text("/proc/filesystems");
  k.overlay = filesystems.find("\toverlay\n") != std::string::npos || module_available("overlay", k.release);
  k.max_user_namespaces = file_text("/proc/sys/user/max_user_namespaces");
  k.mount_setattr = has_call(SYS_mount_setattr, -1, nullptr, 0, nullptr, 0);
  k.openat2 = has_call(SYS_openat2, -1, nullptr, nullptr, 0);
  k.pidfd = has_call(SYS_pidfd_open, -1, 0);
  k.seccomp = there("/proc/sys/kernel/seccomp/actions_avail");
  k.landlock_abi = static_cast<int>(::syscall(SYS_landlock_create_ruleset, nullptr, 0, 1));
  k.tun = there("/dev/net/tun") || module_available("tun", k.release);
  // What is built in without parameters shows nowhere but in what it can do.
  const bool no_module_lists = !there(fmt::format("/lib/modules/{}/modules.builtin", k.release));
  k.bridge = module_available("bridge", k.release) || no_module_lists;
  k.veth = module_available("veth", k.release) || no_module_lists;
  k.nf_tables = module_available("nf_tables", k.release) || no_module_lists;
  return k;
}

std::string find_firmware() {
  for (const char* path : {"/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_CODE.fd", "/usr/share/edk2/x64/OVMF_CODE.fd"})
    if (there(path)) return path;
  return {};
}

Finding check_daemon(App& app) {
  auto api = app.api();
  if (!api) return {Verdict::note, "daemon", api.error().chain(), "start virgad, or name its socket in VIRGA_SOCKET"};
  auto server = (*api)->object(Url("/1.0"));
  if (!server) return {Verdict::note, "daemon", server.error().chain(), "look at what virgad logs"};
  const auto& environment = object_of(*server, "environment");
  return {Verdict::good,
          "daemon",
          fmt::format("{} {} ({} {}), at {}", text_of(environment, "server"), text_of(environment, "server_version"),
                      text_of(environment, "driver"), text_of(environment, "driver_version"), app.socket_path()),
          {}};
}

std::vector<Finding> look(App& app) {
  std::vector<Finding> findings;
  const auto mounts = file_text("/proc/mounts");
  auto view = [](const std::optional<std::string>& text) { return text ? std::optional<std::string_view>(*text) : std::nullopt; };
  findings.push_back(check_daemon(app));
  findings.push_back(check_kvm(open_error("/dev/kvm"), file_text("/proc/cpuinfo")));
  const auto qemu = version_of("qemu-system-x86_64"), runc = version_of("runc"), crun = version_of("crun");
  findings.push_back(check_qemu(view(qemu)));
  findings.push_back(check_firmware(find_firmware()));
  findings.push_back(check_runtime(view(runc), view(crun), has_v1_hierarchies(mounts)));
  findings.push_back(check_cgroups(
      mounts, file_text("/sys/fs/cgroup/cgroup.controllers") + " " + file_text("/sys/fs/cgroup/unified/cgroup.controllers")));
  const auto qemu_img = version_of("qemu-img"), dnsmasq = version_of("dnsmasq"), nft = version_of("nft");
  findings.push_back(check_program("qemu-img", view(qemu_img), "qemu-utils", "disks of virtual machines"));
  findings.push_back(check_program("dnsmasq", view(dnsmasq), "dnsmasq-base", "addresses and names on managed networks"));
  findings.push_back(check_program("nftables", view(nft), "nftables", "NAT and protection against spoofing"));
  for (auto& finding : check_kernel(look_at_kernel())) findings.push_back(std::move(finding));
  for (auto& finding : check_host()) findings.push_back(std::move(finding));
  return findings;
}

/// Says what was done, and what is left to people.
void mend(App& app, const std::vector<Finding>& findings, bool may_install) {
  for (const auto& finding : findings) {
    if (finding.verdict == Verdict::good || finding.subject == "daemon") continue;
    auto fix = fix_of(finding);
    const bool installs = fix && fix->kind == Fix::Kind::package;
    if (!fix || (installs && !may_install)) {
      app.print(fmt::format("{}: left to you{}: {}\n", finding.subject, installs ? " (--install does it)" : "", finding.remedy));
      continue;
    }
    auto done = apply_fix(*fix);
    app.print(fmt::format("{}: {}\n", finding.subject, done ? *done : "not mended: " + done.error().chain()));
  }
  app.print("\n");
}

Result<> doctor(App& app, const Args& args) {
  if (args.has("install") && !args.has("fix"))
    return fail(Error(ErrorKind::invalid, "--install belongs to --fix").with_hint("virga admin doctor --fix --install"));
  auto findings = look(app);
  if (args.has("fix")) {
    if (::geteuid() != 0)
      return fail(Error(ErrorKind::denied, "only root can mend this host").with_hint("sudo virga admin doctor --fix"));
    mend(app, findings, args.has("install"));
    findings = look(app);
  }
  app.print(render_findings(findings));
  for (const auto& finding : findings)
    if (finding.verdict == Verdict::missing) app.exit_code = 1;
  return {};
}

}  // namespace

Command admin_doctor_command() {
  return {.use = "doctor",
          .summary = "Check what this host can do, and how to mend what it cannot",
          .description =
              "Looks at KVM, QEMU, the OCI runtime, cgroups, the network tools and the kernel. The exit code is 1 where "
              "something\nessential is missing. The daemon need not run.\n\n"
              "--fix does what is safe: it loads modules, sets kernel settings and makes directories, also for the next boots, and "
              "says\n"
              "so. It installs packages only with --install.",
          .examples = "virga admin doctor\nvirga admin doctor --fix\nvirga admin doctor --fix --install",
          .flags = {{"fix", 0, Flag::boolean, "Mend what can be mended safely, and say what was done"},
                    {"install", 0, Flag::boolean, "With --fix: also install missing packages"}},
          .run = doctor};
}

}  // namespace virga::cli
