#include "drivers/image/confined/worker/sandbox.h"

#include <fcntl.h>
#include <linux/capability.h>
#include <linux/landlock.h>
#include <seccomp.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <string>

#include "io/fd.h"
#include "io/file.h"

#if defined(__SANITIZE_ADDRESS__)
#define VIRGA_SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define VIRGA_SANITIZED 1
#endif
#endif

namespace virga::image {
namespace {

// Rights that the headers of Debian 12 do not name yet.
constexpr std::uint64_t fs_truncate = 1ull << 14, fs_ioctl_dev = 1ull << 15;
struct RulesetAttr {
  std::uint64_t handled_access_fs;
  std::uint64_t handled_access_net;
  std::uint64_t scoped;
};

tl::unexpected<Error> failed(std::string_view what) {
  return fail_errno(errno, "confine the image reader: " + std::string(what));
}

Result<> set_limit(__rlimit_resource resource, rlim_t value, std::string_view name) {
  const rlimit limit{value, value};
  if (::setrlimit(resource, &limit) != 0) return failed(name);
  return {};
}

[[maybe_unused]] Bytes mapped_now() {
  auto text = io::read_file("/proc/self/statm").value_or("0");
  return std::strtoull(text.c_str(), nullptr, 10) * static_cast<Bytes>(::sysconf(_SC_PAGESIZE));
}

Result<> limits(const Sandbox& s) {
  ::signal(SIGXFSZ, SIG_IGN);  // a file that grows too large is an error of write() then
  ::signal(SIGPIPE, SIG_IGN);
  ::umask(0077);
  VIRGA_CHECK(set_limit(RLIMIT_CORE, 0, "RLIMIT_CORE"));
  VIRGA_CHECK(set_limit(RLIMIT_CPU, static_cast<rlim_t>(s.cpu.count()), "RLIMIT_CPU"));
  VIRGA_CHECK(set_limit(RLIMIT_FSIZE, s.largest_file, "RLIMIT_FSIZE"));
  VIRGA_CHECK(set_limit(RLIMIT_NOFILE, 64 + 4 * s.places.size(), "RLIMIT_NOFILE"));
#ifndef VIRGA_SANITIZED
  const Bytes now = s.runs_program ? 0 : mapped_now();
  VIRGA_CHECK(set_limit(RLIMIT_AS, now + s.memory, "RLIMIT_AS"));
#endif
  return {};
}

Result<> capabilities(const Sandbox& s) {
  const std::uint64_t keep =
      (s.keeps_owners ? (1ull << CAP_CHOWN | 1ull << CAP_DAC_OVERRIDE | 1ull << CAP_FOWNER | 1ull << CAP_FSETID) : 0) |
      (s.reads_all ? 1ull << CAP_DAC_READ_SEARCH : 0);
  for (int cap = 0; cap < 64; ++cap) {
    if (keep >> cap & 1) continue;
    if (::prctl(PR_CAPBSET_DROP, cap, 0, 0, 0) == 0 || errno == EPERM) continue;
    if (errno == EINVAL) break;  // beyond the last one that this kernel knows
    return failed("bounding set");
  }
  ::prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct have[2]{};
  if (::syscall(SYS_capget, &header, have) != 0) return failed("capget");
  __user_cap_data_struct want[2]{};
  for (unsigned i = 0; i < 2; ++i) {
    const auto part = static_cast<std::uint32_t>(keep >> (32 * i));
    want[i].permitted = want[i].effective = have[i].permitted & part;
  }
  if (::syscall(SYS_capset, &header, want) != 0) return failed("capset");
  if (::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) return failed("no_new_privs");
  return {};
}

Result<> landlock(const Sandbox& s) {
  const auto abi = ::syscall(SYS_landlock_create_ruleset, nullptr, 0, LANDLOCK_CREATE_RULESET_VERSION);
  if (abi < 2) return {};  // not in this kernel, switched off, or without the right to link: the other walls stand
  std::uint64_t all = (1ull << 14) - 1;
  if (abi >= 3) all |= fs_truncate;
  if (abi >= 5) all |= fs_ioctl_dev;
  RulesetAttr attr{all, abi >= 4 ? 3ull : 0ull, abi >= 6 ? 3ull : 0ull};
  const std::size_t size = abi >= 6 ? 24 : abi >= 4 ? 16 : 8;
  io::UniqueFd rules(static_cast<int>(::syscall(SYS_landlock_create_ruleset, &attr, size, 0)));
  if (!rules) return failed("landlock");
  const std::uint64_t file_rights =
      LANDLOCK_ACCESS_FS_EXECUTE | LANDLOCK_ACCESS_FS_WRITE_FILE | LANDLOCK_ACCESS_FS_READ_FILE | fs_truncate | fs_ioctl_dev;
  const std::uint64_t read = LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_READ_DIR;
  // All but devices and sockets, which no image may hold.
  const std::uint64_t write = all & ~(LANDLOCK_ACCESS_FS_EXECUTE | LANDLOCK_ACCESS_FS_MAKE_CHAR | LANDLOCK_ACCESS_FS_MAKE_BLOCK |
                                      LANDLOCK_ACCESS_FS_MAKE_SOCK | fs_ioctl_dev);
  auto add = [&](int fd, std::uint64_t rights) -> Result<> {
    struct ::stat st{};
    if (::fstat(fd, &st) != 0) return failed("stat");
    if (!S_ISDIR(st.st_mode)) rights &= file_rights;
    landlock_path_beneath_attr rule{rights & all, fd};
    if (::syscall(SYS_landlock_add_rule, rules.get(), LANDLOCK_RULE_PATH_BENEATH, &rule, 0) != 0) return failed("landlock rule");
    return {};
  };
  for (const auto& place : s.places) VIRGA_CHECK(add(place.fd, place.writable ? write : read));
  if (s.runs_program) {
    for (const char* path : {"/usr", "/lib", "/lib64", "/etc/ld.so.cache"}) {
      io::UniqueFd fd(::open(path, O_PATH | O_CLOEXEC));
      if (fd) VIRGA_CHECK(add(fd.get(), read | LANDLOCK_ACCESS_FS_EXECUTE));
    }
    io::UniqueFd null(::open("/dev/null", O_PATH | O_CLOEXEC));
    if (null) VIRGA_CHECK(add(null.get(), LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_WRITE_FILE));
  }
  if (::syscall(SYS_landlock_restrict_self, rules.get(), 0) != 0) return failed("landlock");
  return {};
}

class Filter {
 public:
  Filter() : context_(::seccomp_init(SCMP_ACT_ERRNO(ENOSYS))) {}
  ~Filter() {
    if (context_ != nullptr) ::seccomp_release(context_);
  }
  Filter(const Filter&) = delete;
  Filter& operator=(const Filter&) = delete;

  void allow(std::initializer_list<const char*> names) { add(SCMP_ACT_ALLOW, names); }
  /// Nothing of ours asks for these: who does has taken the process over.
  void kill(std::initializer_list<const char*> names) { add(SCMP_ACT_KILL_PROCESS, names); }
  template <class... Arguments>
  void allow_if(const char* name, Arguments... arguments) {
    const int number = ::seccomp_syscall_resolve_name(name);
    if (number >= 0 && ::seccomp_rule_add(context_, SCMP_ACT_ALLOW, number, sizeof...(arguments), arguments...) != 0) good_ = false;
  }
  Result<> load() {
    if (context_ == nullptr || !good_) return fail(ErrorKind::internal, "confine the image reader: seccomp rules");
    const int r = ::seccomp_load(context_);
    if (r != 0) return fail_errno(-r, "confine the image reader: seccomp");
    return {};
  }

 private:
  void add(std::uint32_t action, std::initializer_list<const char*> names) {
    for (const char* name : names) {
      const int number = ::seccomp_syscall_resolve_name(name);
      if (number < 0) continue;  // not on this architecture
      if (context_ == nullptr || ::seccomp_rule_add(context_, action, number, 0) != 0) good_ = false;
    }
  }
  scmp_filter_ctx context_;
  bool good_ = true;
};

Result<> system_calls(const Sandbox& s) {
  Filter f;
  f.allow({"read",
           "readv",
           "pread64",
           "preadv",
           "write",
           "writev",
           "pwrite64",
           "pwritev",
           "lseek",
           "close",
           "fstat",
           "stat",
           "lstat",
           "newfstatat",
           "statx",
           "open",
           "openat",
           "openat2",
           "fcntl",
           "brk",
           "munmap",
           "mremap",
           "madvise",
           "futex",
           "exit",
           "exit_group",
           "rt_sigreturn",
           "rt_sigaction",
           "rt_sigprocmask",
           "sigaltstack",
           "getrandom",
           "getpid",
           "gettid",
           "clock_gettime",
           "clock_getres",
           "gettimeofday",
           "time",
           "sched_yield",
           "nanosleep",
           "clock_nanosleep",
           "restart_syscall",
           "fsync",
           "fdatasync",
           "syncfs",
           "ftruncate",
           "fallocate",
           "getuid",
           "geteuid",
           "getgid",
           "getegid",
           "set_robust_list",
           "rseq",
           "prlimit64",
           "sysinfo",
           "uname",
           "poll",
           "ppoll"});
  if (s.reads_all) f.allow({"getdents64", "readlinkat", "flistxattr", "fgetxattr", "dup", "fstatfs"});
  if (s.runs_program) {
    f.allow({"execve",
             "access",
             "faccessat",
             "faccessat2",
             "readlink",
             "readlinkat",
             "arch_prctl",
             "set_tid_address",
             "mmap",
             "mprotect",
             "clone",
             "wait4",
             "eventfd2",
             "pipe2",
             "signalfd4",
             "timerfd_create",
             "timerfd_settime",
             "epoll_create1",
             "epoll_ctl",
             "epoll_wait",
             "epoll_pwait",
             "epoll_pwait2",
             "rt_sigtimedwait",
             "sched_getaffinity",
             "sched_setaffinity",
             "prctl",
             "getcwd",
             "dup",
             "dup2",
             "dup3",
             "getdents64",
             "ioctl",
             "fadvise64",
             "copy_file_range",
             "tgkill",
             "umask",
             "getrlimit",
             "fstatfs",
             "statfs",
             "flock",
             "gettimeofday",
             "membarrier",
             "getppid",
             "capget"});
  } else {
    f.allow({"mkdirat", "symlinkat", "linkat", "fchown", "fchownat", "fchmod", "fchmodat", "fsetxattr", "utimensat"});
    f.allow_if("mknodat", scmp_arg_cmp{2, SCMP_CMP_MASKED_EQ, S_IFMT, S_IFIFO});
    f.allow_if("mmap", scmp_arg_cmp{2, SCMP_CMP_MASKED_EQ, PROT_EXEC, 0});
    f.allow_if("mprotect", scmp_arg_cmp{2, SCMP_CMP_MASKED_EQ, PROT_EXEC, 0});
    f.allow_if("tgkill", scmp_arg_cmp{0, SCMP_CMP_EQ, static_cast<scmp_datum_t>(::getpid()), 0});  // abort()
    f.kill({"execve", "execveat", "fork", "vfork", "clone", "clone3", "io_uring_setup"});
  }
  f.kill(
      {"socket",     "connect",         "bind",         "sendto", "sendmsg",     "ptrace",  "process_vm_readv", "process_vm_writev",
       "bpf",        "perf_event_open", "unshare",      "setns",  "mount",       "umount2", "pivot_root",       "chroot",
       "kexec_load", "init_module",     "finit_module", "keyctl", "userfaultfd", "kill",    "open_by_handle_at"});
  return f.load();
}

}  // namespace

Result<> enter(const Sandbox& s) {
  // Under memory pressure this process goes first. Not being allowed to say so does not matter.
  (void)io::write_control("/proc/self/oom_score_adj", "1000");
  VIRGA_CHECK(limits(s));
  VIRGA_CHECK(capabilities(s));
  VIRGA_CHECK(landlock(s));
#ifndef VIRGA_SANITIZED
  VIRGA_CHECK(system_calls(s));
#else
  (void)&system_calls;  // the sanitizers' own runtime asks for more
#endif
  return {};
}

}  // namespace virga::image
