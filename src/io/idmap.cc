#include "io/idmap.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>

#include "io/file.h"

namespace virga::io {
namespace {

/// Holds a user namespace open until it is destroyed, by the thread that started it. The child is a bare clone that only waits: it
/// never returns into our code.
class Holder {
 public:
  static Result<Holder> start() {
    int pidfd = -1;
    struct clone_args args{};
    args.flags = CLONE_NEWUSER | CLONE_PIDFD;
    args.pidfd = reinterpret_cast<std::uintptr_t>(&pidfd);
    args.exit_signal = SIGCHLD;
    const long daemon = ::syscall(SYS_getpid);
    const long pid = ::syscall(SYS_clone3, &args, sizeof args);
    if (pid == 0) {
      // It has a copy of every descriptor of ours, locks and listening sockets among them: it must not outlive us.
      ::syscall(SYS_prctl, PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
      if (::syscall(SYS_getppid) != daemon) ::syscall(SYS_exit_group, 0);
      for (;;) ::syscall(SYS_pause);
    }
    if (pid < 0) {
      const int error = errno;
      if (error == EPERM || error == ENOSPC || error == EINVAL)
        return fail(Error(ErrorKind::unsupported, "this host does not let us make user namespaces")
                        .with_hint("see /proc/sys/user/max_user_namespaces and /proc/sys/kernel/unprivileged_userns_clone"));
      return fail_errno(error, "make a user namespace");
    }
    return Holder(static_cast<pid_t>(pid), UniqueFd(pidfd));
  }
  Holder(Holder&& other) noexcept : pid_(std::exchange(other.pid_, -1)), pidfd_(std::move(other.pidfd_)) {}
  Holder& operator=(Holder&&) = delete;
  ~Holder() {
    if (pid_ <= 0) return;
    ::syscall(SYS_pidfd_send_signal, pidfd_.get(), SIGKILL, nullptr, 0);
    while (::waitpid(pid_, nullptr, 0) < 0 && errno == EINTR) {
    }
  }
  pid_t pid() const noexcept { return pid_; }

 private:
  Holder(pid_t pid, UniqueFd pidfd) : pid_(pid), pidfd_(std::move(pidfd)) {}
  pid_t pid_;
  UniqueFd pidfd_;
};

}  // namespace

Result<UniqueFd> open_id_range(std::uint32_t base, std::uint32_t count) {
  if (base == 0 || count == 0 || std::uint64_t(base) + count > 0xffff'fffeu)
    return fail(ErrorKind::invalid, fmt::format("{} ids from {} on are no range for a guest", count, base));
  VIRGA_TRY(auto holder, Holder::start());
  const auto map = fmt::format("0 {} {}", base, count);
  const auto proc = fmt::format("/proc/{}/", holder.pid());
  VIRGA_CHECK(write_control(proc + "uid_map", map));
  VIRGA_CHECK(write_control(proc + "gid_map", map));
  UniqueFd fd(::open((proc + "ns/user").c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd) return fail_errno(errno, "open the user namespace");
  return fd;
}

}  // namespace virga::io
