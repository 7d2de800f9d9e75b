// Shutting the guest down: through its init where it has one, by hand where a script or a shell runs as process 1.
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/reboot.h>
#include <sys/wait.h>
#include <unistd.h>

#include <initializer_list>

#include "guest.h"

namespace virga::agent {
namespace {

/// Whether process 1 is a program that shuts down when it is told to: not a shell (a script as init), and not we ourselves.
bool has_init() {
  char line[256] = {};
  const int fd = ::open("/proc/1/cmdline", O_RDONLY | O_CLOEXEC);
  if (fd < 0) return false;
  const ssize_t n = ::read(fd, line, sizeof line - 1);
  ::close(fd);
  if (n <= 0 || ::getpid() == 1) return false;
  const char* slash = ::strrchr(line, '/');  // up to the first NUL: argv[0]
  const char* name = slash != nullptr ? slash + 1 : line;
  for (const char* shell : {"sh", "ash", "bash", "dash", "busybox", "virga-agent"})
    if (::strcmp(name, shell) == 0) return false;
  return true;
}

bool run(const char* const* argv) {
  const pid_t pid = ::fork();
  if (pid < 0) return false;
  if (pid == 0) {
    const int null = ::open("/dev/null", O_RDWR);
    for (int fd = 0; null >= 0 && fd < 3; ++fd) ::dup2(null, fd);
    ::execvp(argv[0], const_cast<char* const*>(argv));
    ::_exit(127);
  }
  int status = 0;
  return ::waitpid(pid, &status, 0) == pid && WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

void write_file(const char* path, const char* text) {
  const int fd = ::open(path, O_WRONLY | O_CLOEXEC);
  if (fd < 0) return;
  const ssize_t ignored = ::write(fd, text, ::strlen(text));
  static_cast<void>(ignored);
  ::close(fd);
}

/// Everything ends but process 1 and we; file systems are written and made read-only; then the machine goes.
[[noreturn]] void by_hand(Power action) {
  ::signal(SIGTERM, SIG_IGN);
  ::kill(-1, SIGTERM);
  ::sync();
  ::usleep(200'000);
  ::kill(-1, SIGKILL);
  ::sync();
  write_file("/proc/sysrq-trigger", "u");
  ::usleep(100'000);
  ::sync();
  ::reboot(action == Power::reboot ? RB_AUTOBOOT : RB_POWER_OFF);
  ::_exit(1);
}

}  // namespace

void go_down(Power action) {
  // A process of its own: the agent goes on answering until it is ended with everything else.
  if (::fork() != 0) return;
  sigset_t none;
  ::sigemptyset(&none);
  ::sigprocmask(SIG_SETMASK, &none, nullptr);
  ::signal(SIGCHLD, SIG_DFL);
  ::setsid();
  const char* const off[] = {"poweroff", nullptr};
  const char* const again[] = {"reboot", nullptr};
  if (has_init() && run(action == Power::reboot ? again : off)) ::_exit(0);
  by_hand(action);
}

}  // namespace virga::agent
