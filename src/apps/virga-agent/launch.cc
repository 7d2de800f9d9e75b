#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/close_range.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <initializer_list>

#include "commands.h"
#include "wire/sftp/server/server.h"

namespace virga::agent {
namespace {

constexpr int extra_environment = 5;

/// The user's line of /etc/passwd. Read by hand: a static program has no name services.
struct User {
  char name[64] = "";
  char home[256] = "";
  char shell[128] = "";
};

void copy_field(char* to, std::size_t room, const char* from, const char* end) {
  std::size_t n = static_cast<std::size_t>(end - from);
  if (n >= room) n = room - 1;
  ::memcpy(to, from, n);
  to[n] = 0;
}

bool find_user(std::uint32_t uid, User& user) {
  FILE* file = ::fopen("/etc/passwd", "re");
  if (file == nullptr) return false;
  char line[1024];
  bool found = false;
  while (!found && ::fgets(line, sizeof line, file) != nullptr) {
    const char* fields[7] = {};
    const char* ends[7] = {};
    int n = 0;
    for (char* p = line; n < 7; ++n) {
      fields[n] = p;
      p += ::strcspn(p, ":\n");
      ends[n] = p;
      if (*p != ':') {
        ++n;
        break;
      }
      ++p;
    }
    if (n < 7 || ::strtoul(fields[2], nullptr, 10) != uid || fields[2] == ends[2]) continue;
    copy_field(user.name, sizeof user.name, fields[0], ends[0]);
    copy_field(user.home, sizeof user.home, fields[5], ends[5]);
    copy_field(user.shell, sizeof user.shell, fields[6], ends[6]);
    found = true;
  }
  ::fclose(file);
  return found;
}

const char* variable(char** environment, const char* name) {
  const std::size_t n = ::strlen(name);
  for (char** e = environment; *e != nullptr; ++e)
    if (::strncmp(*e, name, n) == 0 && (*e)[n] == '=') return *e + n + 1;
  return nullptr;
}

[[noreturn]] void give_up(const char* what, const char* name, int error) {
  char text[512];
  const int n = ::snprintf(text, sizeof text, "virga-agent: %s '%s': %s\n", what, name, ::strerror(error));
  const ssize_t ignored =
      ::write(2, text, static_cast<std::size_t>(n < static_cast<int>(sizeof text) ? n : static_cast<int>(sizeof text) - 1));
  static_cast<void>(ignored);
  ::_exit(error == ENOENT || error == ENOTDIR ? 127 : 126);
}

/// In place of a program: nothing has to be installed in the guest.
[[noreturn]] void serve_files() {
  ::umask(0);
  ::signal(SIGPIPE, SIG_IGN);
  ::syscall(SYS_close_range, 3u, ~0u, 0);
  const int root = ::open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
  if (root < 0) give_up("open", "/", errno);
  ::_exit(sftp::serve(0, 1, root, true));
}

[[noreturn]] void run_child(const Launch& launch, int in, int out, int err) {
  ::setsid();
  if (launch.terminal) ::ioctl(in, TIOCSCTTY, 0);
  ::dup2(in, 0);
  ::dup2(out, 1);
  ::dup2(err, 2);
  ::syscall(SYS_close_range, 3u, ~0u, CLOSE_RANGE_CLOEXEC);
  sigset_t none;
  ::sigemptyset(&none);
  ::sigprocmask(SIG_SETMASK, &none, nullptr);
  for (int s = 1; s < 32; ++s) ::signal(s, SIG_DFL);
  if (launch.files) serve_files();
  ::umask(022);

  User user;
  const bool known = find_user(launch.uid, user);
  static char home[300], name[100],
      term[] = "TERM=xterm", path[] = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", lang[] = "LANG=C.UTF-8";
  const char* home_directory = known && user.home[0] != 0 ? user.home : launch.uid == 0 ? "/root" : "/";
  ::snprintf(home, sizeof home, "HOME=%s", home_directory);
  ::snprintf(name, sizeof name, "USER=%s", known ? user.name : launch.uid == 0 ? "root" : "");
  int n = launch.environment_count;
  auto add = [&](const char* key, char* entry) {
    if (variable(launch.environment, key) != nullptr) return;
    launch.environment[n++] = entry;
    launch.environment[n] = nullptr;
  };
  add("PATH", path);
  add("HOME", home);
  add("USER", name);
  add("LANG", lang);
  if (launch.terminal) add("TERM", term);

  if (::setgroups(0, nullptr) != 0 && ::geteuid() == 0) give_up("drop groups of", launch.argv[0], errno);
  if (::setresgid(launch.gid, launch.gid, launch.gid) != 0) give_up("change the group for", launch.argv[0], errno);
  if (::setresuid(launch.uid, launch.uid, launch.uid) != 0) give_up("change the user for", launch.argv[0], errno);
  if (launch.cwd[0] != 0) {
    if (::chdir(launch.cwd) != 0) give_up("change to directory", launch.cwd, errno);
  } else if (::chdir(home_directory) != 0 && ::chdir("/") != 0) {
    give_up("change to directory", "/", errno);
  }
  ::environ = launch.environment;  // execvp looks for the program in the command's own PATH
  ::execvp(launch.argv[0], launch.argv);
  give_up("run", launch.argv[0], errno);
}

struct FdPair {
  int ours = -1;
  int theirs = -1;
};

void close_pair(FdPair& p) {
  if (p.ours >= 0) ::close(p.ours);
  if (p.theirs >= 0) ::close(p.theirs);
  p.ours = p.theirs = -1;
}

bool make_pipe(FdPair& pair, bool we_read) {
  int fds[2];
  if (::pipe2(fds, O_CLOEXEC) != 0) return false;
  pair.ours = fds[we_read ? 0 : 1];
  pair.theirs = fds[we_read ? 1 : 0];
  ::fcntl(pair.ours, F_SETFL, O_NONBLOCK);
  return true;
}

bool make_terminal(FdPair& pair, const Launch& launch) {
  pair.ours = ::open("/dev/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC | O_NONBLOCK);
  if (pair.ours < 0) return false;
  int unlock = 0;
  struct winsize size = {};
  size.ws_col = launch.columns;
  size.ws_row = launch.rows;
  ::ioctl(pair.ours, TIOCSPTLCK, &unlock);
  ::ioctl(pair.ours, TIOCSWINSZ, &size);
  pair.theirs = ::ioctl(pair.ours, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
  if (pair.theirs < 0) return false;
  if (::fchown(pair.theirs, launch.uid, static_cast<gid_t>(-1)) != 0) {
    // Only a file system without owners refuses it; the terminal works all the same.
  }
  return true;
}

}  // namespace

bool parse_launch(const Frame& frame, Launch& launch) {
  Reader r(frame.payload, frame.size);
  const unsigned flags = r.u8();
  launch.terminal = (flags & exec_terminal) != 0;
  launch.files = (flags & exec_files) != 0 && !launch.terminal;
  launch.columns = r.u16();
  launch.rows = r.u16();
  launch.uid = r.u32();
  launch.gid = r.u32();
  // All strings become NUL-terminated copies behind the two arrays of pointers.
  const std::size_t arrays = (2 * max_arguments + 2 + extra_environment) * sizeof(char*);
  launch.block = ::malloc(arrays + frame.size + 2 * max_arguments + 8);
  if (launch.block == nullptr) return false;
  char** pointers = static_cast<char**>(launch.block);
  char* text = static_cast<char*>(launch.block) + arrays;
  auto copy = [&]() -> char* {
    std::size_t size = 0;
    const char* from = r.text(size);
    if (from == nullptr || ::memchr(from, 0, size) != nullptr) return nullptr;
    char* at = text;
    ::memcpy(at, from, size);
    at[size] = 0;
    text += size + 1;
    return at;
  };
  launch.cwd = copy();
  if (launch.cwd == nullptr) return false;
  for (int list = 0; list < 2; ++list) {
    const unsigned count = r.u16();
    if (!r.ok() || count > max_arguments || (list == 0 && count == 0)) return false;
    (list == 0 ? launch.argv : launch.environment) = pointers;
    for (unsigned i = 0; i < count; ++i)
      if ((*pointers++ = copy()) == nullptr) return false;
    *pointers++ = nullptr;
    if (list == 1) launch.environment_count = static_cast<int>(count);
  }
  return launch.uid != ~0u && launch.gid != ~0u && launch.argv[0][0] != 0;
}

bool launch_command(const Launch& launch, Pipes& pipes) {
  FdPair in, out, err;
  const bool made =
      launch.terminal ? make_terminal(in, launch) : make_pipe(in, false) && make_pipe(out, true) && make_pipe(err, true);
  const pid_t pid = made ? ::fork() : -1;
  if (pid == 0) {
    if (launch.terminal) run_child(launch, in.theirs, in.theirs, in.theirs);
    run_child(launch, in.theirs, out.theirs, err.theirs);
  }
  if (pid < 0) {
    const int error = errno;
    close_pair(in);
    close_pair(out);
    close_pair(err);
    errno = error;
    return false;
  }
  for (const auto* p : {&in, &out, &err})
    if (p->theirs >= 0) ::close(p->theirs);
  pipes.pid = pid;
  pipes.input = in.ours;
  pipes.output = launch.terminal ? in.ours : out.ours;
  pipes.error = err.ours;
  return true;
}

}  // namespace virga::agent
