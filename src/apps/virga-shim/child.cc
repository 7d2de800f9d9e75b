// The guest's process: fork, prepare, exec; and the end of all children. With a pid file the child is a launcher, and the guest is
// what it leaves behind: as we are the subreaper, that process becomes our child when the launcher ends.
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <linux/close_range.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "apps/virga-shim/shim.h"

namespace virga::shim {
namespace {

/// Children that ended before we knew that one of them was the guest: a short-lived guest may end before its launcher does.
struct Ended {
  pid_t pid;
  int status;
};
Ended early[64];
unsigned early_count = 0;

size_t read_small(const char* path, char* buffer, size_t size) {
  int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) return 0;
  size_t have = 0;
  for (;;) {
    const ssize_t n = read(fd, buffer + have, size - 1 - have);
    if (n <= 0 || (have += static_cast<size_t>(n)) >= size - 1) break;
  }
  close(fd);
  buffer[have] = '\0';
  return have;
}

char* put_number(char* at, unsigned long n) {
  char digits[24];
  int i = 0;
  do digits[i++] = static_cast<char>('0' + n % 10);
  while ((n /= 10) != 0);
  while (i > 0) *at++ = digits[--i];
  *at = '\0';
  return at;
}

[[noreturn]] void give_up(int report, Stage stage) {
  const int message[2] = {static_cast<int>(stage), errno};
  (void)!write(report, message, sizeof message);
  _exit(127);
}

void drop_everything(int report) {
  // Its taps and sockets are open already: whoever takes the guest's process over meets no network and no abstract socket of the
  // host.
  if (unshare(CLONE_NEWNET | CLONE_NEWIPC) != 0) give_up(report, Stage::drop);
  for (int cap = 0; cap < 64; ++cap)
    if (prctl(PR_CAPBSET_DROP, cap, 0, 0, 0) != 0 && errno != EINVAL) give_up(report, Stage::drop);
  if (setgroups(0, nullptr) != 0) give_up(report, Stage::drop);
  if (setresgid(shim.options.gid, shim.options.gid, shim.options.gid) != 0) give_up(report, Stage::drop);
  if (setresuid(shim.options.uid, shim.options.uid, shim.options.uid) != 0) give_up(report, Stage::drop);
  __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct none[2] = {};
  if (syscall(SYS_capset, &header, none) != 0) give_up(report, Stage::drop);
  prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) give_up(report, Stage::drop);
}

void place_descriptors(int report, int console_fd, int output_fd) {
  // All sources sit above 99 (io/shim.cc puts them there, ours are moved), all targets below 100: no source is another's target.
  bool given[3] = {false, false, false};
  auto place = [&](int from, int to) {
    if (dup2(from, to) < 0) give_up(report, Stage::descriptors);
    if (to < 3) given[to] = true;
  };
  if (shim.options.console == ConsoleMode::pty) {
    for (int n = 0; n < 3; ++n) place(console_fd, n);
  } else if (console_fd >= 0) {
    place(console_fd, shim.options.console_fd);
  }
  if (output_fd >= 0 && shim.options.console != ConsoleMode::pty) {
    place(output_fd, 1);
    place(output_fd, 2);
  }
  for (int i = 0; i < shim.options.fd_count; ++i) place(shim.options.fds[i].from, shim.options.fds[i].to);
  const int null = open("/dev/null", O_RDWR | O_CLOEXEC);
  for (int n = 0; n < 3; ++n)
    if (!given[n] && dup2(null, n) < 0) give_up(report, Stage::descriptors);
  // Close all but the standard streams, what was named, and the report, which closes itself at exec.
  if (syscall(SYS_close_range, 3u, ~0u, CLOSE_RANGE_CLOEXEC) != 0) give_up(report, Stage::descriptors);
  for (int i = 0; i < shim.options.fd_count; ++i) fcntl(shim.options.fds[i].to, F_SETFD, 0);
  if (console_fd >= 0 && shim.options.console == ConsoleMode::socketpair) fcntl(shim.options.console_fd, F_SETFD, 0);
}

[[noreturn]] void child_main(int report, int console_fd, int output_fd) {
  sigset_t none;
  sigemptyset(&none);
  for (int s = 1; s < 32; ++s)
    if (s != SIGKILL && s != SIGSTOP) signal(s, SIG_DFL);
  sigprocmask(SIG_SETMASK, &none, nullptr);
  if (setsid() < 0) give_up(report, Stage::session);
  if (shim.options.console == ConsoleMode::pty && ioctl(console_fd, TIOCSCTTY, 0) != 0) give_up(report, Stage::console);
  for (int i = 0; i < shim.options.cgroup_count; ++i) {
    int fd = open(shim.options.cgroups[i], O_WRONLY | O_CLOEXEC);
    if (fd < 0 || write(fd, "0", 1) != 1) give_up(report, Stage::cgroup);
    close(fd);
  }
  // The daemon and the shims are spared by the OOM killer where the service says so; guests are not.
  if (int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC); fd >= 0) {
    (void)!write(fd, "0", 1);
    close(fd);
  }
  place_descriptors(report, console_fd, output_fd);
  if (shim.options.cwd != nullptr && chdir(shim.options.cwd) != 0) give_up(report, Stage::execute);
  if (shim.options.drop) drop_everything(report);
  // A guest whose shim was killed could be neither watched nor found again.
  if (prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) != 0 || getppid() != shim.status.shim_pid) give_up(report, Stage::session);
  execve(shim.options.argv[0], shim.options.argv, environ);
  give_up(report, Stage::execute);
}

void guest_exited(int status) {
  if (shim.status.exited) return;
  console_finish();
  shim.status.exited = 1;
  shim.status.exit_status = status;
  save_state();
}

void fail_start(Stage stage, int error) {
  shim.failed_stage = stage;
  shim.failed_errno = error;
  shim.ending = true;
  push(Kind::failed);
}

void launcher_ended(int status) {
  shim.status.launcher_done = 1;
  shim.status.launcher_status = status;
  output_ready();  // its last words
  if (shim.ending) return;
  char text[32];
  const size_t n = read_small(shim.options.pid_file, text, sizeof text);
  const long pid = n > 0 ? strtol(text, nullptr, 10) : 0;
  if (status != 0) return fail_start(Stage::launcher, 0);
  if (pid <= 1 || pid > INT32_MAX) return fail_start(Stage::pid_file, ENOENT);
  for (unsigned i = 0; i < early_count && i < 64; ++i)
    if (early[i].pid == pid) {
      shim.status.guest_pid = static_cast<int32_t>(pid);
      shim.started = true;
      push(Kind::started);
      guest_exited(early[i].status);
      push(Kind::exited);
      return;
    }
  siginfo_t info = {};
  // Only a child of ours is waited for: anything else in the pid file is a mistake.
  if (waitid(P_PID, static_cast<id_t>(pid), &info, WEXITED | WNOHANG | WNOWAIT) != 0) return fail_start(Stage::pid_file, errno);
  shim.status.guest_pid = static_cast<int32_t>(pid);
  shim.status.guest_start_time = start_time(static_cast<pid_t>(pid));
  shim.started = true;
  save_state();
  push(Kind::started);
}

}  // namespace

uint64_t start_time(pid_t pid) {
  char path[40] = "/proc/";
  char* at = put_number(path + 6, static_cast<unsigned long>(pid));
  memcpy(at, "/stat", 6);
  char text[1024];
  if (read_small(path, text, sizeof text) == 0) return 0;
  char* field = strrchr(text, ')');  // the name before it may hold anything
  if (field == nullptr) return 0;
  for (int n = 2; n < 22; ++n) {
    field = strchr(field + 1, ' ');
    if (field == nullptr) return 0;
  }
  return strtoull(field + 1, nullptr, 10);
}

bool start_child(int console_child_fd, int output_child_fd) {
  int report[2];
  if (shim.options.pid_file != nullptr) unlink(shim.options.pid_file);  // one of an earlier run would name a stranger
  if (pipe2(report, O_CLOEXEC) != 0) return fail_start(Stage::fork, errno), false;
  // Out of the way of the targets, which are below 100.
  int console_fd = console_child_fd >= 0 ? fcntl(console_child_fd, F_DUPFD_CLOEXEC, 200) : -1;
  int output_fd = output_child_fd >= 0 ? fcntl(output_child_fd, F_DUPFD_CLOEXEC, 200) : -1;
  int report_fd = fcntl(report[1], F_DUPFD_CLOEXEC, 200);
  close(report[1]);
  const pid_t pid = fork();
  if (pid == 0) child_main(report_fd, console_fd, output_fd);
  const int fork_error = errno;
  close(report_fd);
  if (console_fd >= 0) close(console_fd);
  if (output_fd >= 0) close(output_fd);
  for (int i = 0; i < shim.options.fd_count; ++i) close(shim.options.fds[i].from);
  if (pid < 0) return fail_start(Stage::fork, fork_error), false;
  shim.child = pid;
  int message[2];
  ssize_t n;
  do n = read(report[0], message, sizeof message);
  while (n < 0 && errno == EINTR);
  close(report[0]);
  if (n == sizeof message) {
    fail_start(static_cast<Stage>(message[0]), message[1]);
    return false;
  }
  if (shim.options.pid_file == nullptr) {
    shim.status.guest_pid = pid;
    shim.status.guest_start_time = start_time(pid);
    shim.started = true;
    save_state();
    push(Kind::started);
  }
  return true;
}

void reap_children() {
  bool exited = false;
  for (;;) {
    int status = 0;
    const pid_t pid = waitpid(-1, &status, WNOHANG);
    if (pid <= 0) break;
    if (pid == shim.status.guest_pid) {
      guest_exited(status);
      exited = true;
    } else if (pid == shim.child) {
      shim.child = -1;
      launcher_ended(status);
    } else if (shim.options.pid_file != nullptr && !shim.status.launcher_done) {
      early[early_count++ % 64] = {pid, status};
    }
  }
  if (exited) push(Kind::exited);
}

void kill_children() {
  // Whatever is left below us: orphans come to us as the subreaper, so this is repeated until no child is left.
  char path[64] = "/proc/self/task/";
  char* at = put_number(path + 16, static_cast<unsigned long>(getpid()));
  memcpy(at, "/children", 10);
  char text[8192];
  read_small(path, text, sizeof text);
  if (shim.child > 0) kill(shim.child, SIGKILL);
  if (shim.status.guest_pid > 0 && !shim.status.exited) kill(shim.status.guest_pid, SIGKILL);
  for (char* p = text; *p != '\0';) {
    char* end = nullptr;
    const long pid = strtol(p, &end, 10);
    if (end == p) break;
    if (pid > 1) kill(static_cast<pid_t>(pid), SIGKILL);
    p = end;
  }
}

}  // namespace virga::shim
