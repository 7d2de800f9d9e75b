// The command line of virga-shim, composed by io/shim.cc only: "--name value" pairs, then "--" and what to run.
#include <stdlib.h>
#include <string.h>

#include "apps/virga-shim/shim.h"

namespace virga::shim {
namespace {

bool number(const char* text, uint64_t max, uint64_t& out) {
  char* end = nullptr;
  if (text == nullptr || *text < '0' || *text > '9') return false;
  out = strtoull(text, &end, 10);
  return *end == '\0' && out <= max;
}

bool pair(char* text, uint64_t max, uint64_t& a, uint64_t& b) {
  char* colon = strchr(text, ':');
  if (colon == nullptr) return false;
  *colon = '\0';
  return number(text, max, a) && number(colon + 1, max, b);
}

bool console_mode(const char* text, ConsoleMode& out) {
  if (strcmp(text, "none") == 0)
    out = ConsoleMode::none;
  else if (strcmp(text, "socketpair") == 0)
    out = ConsoleMode::socketpair;
  else if (strcmp(text, "receive") == 0)
    out = ConsoleMode::receive;
  else if (strcmp(text, "pty") == 0)
    out = ConsoleMode::pty;
  else
    return false;
  return true;
}

bool option(const char* name, char* value, Options& out) {
  uint64_t n = 0, m = 0;
  if (strcmp(name, "--run-dir") == 0) return (out.run_dir = value) != nullptr;
  if (strcmp(name, "--console-log") == 0) return (out.console_log = value) != nullptr;
  if (strcmp(name, "--cwd") == 0) return (out.cwd = value) != nullptr;
  if (strcmp(name, "--output-log") == 0) return (out.output_log = value) != nullptr;
  if (strcmp(name, "--pid-file") == 0) return (out.pid_file = value) != nullptr;
  if (strcmp(name, "--console") == 0) return console_mode(value, out.console);
  if (strcmp(name, "--console-log-limit") == 0) return number(value, UINT64_MAX, out.console_log_limit);
  if (strcmp(name, "--console-fd") == 0) return number(value, 99, n) && ((out.console_fd = static_cast<int>(n)), true);
  if (strcmp(name, "--control-fd") == 0) return number(value, 1023, n) && ((out.control_fd = static_cast<int>(n)), true);
  if (strcmp(name, "--fd") == 0) {
    if (out.fd_count == 64 || !pair(value, 1023, n, m)) return false;
    out.fds[out.fd_count++] = {static_cast<int>(n), static_cast<int>(m)};
    return true;
  }
  if (strcmp(name, "--cgroup") == 0) {
    if (out.cgroup_count == 32) return false;
    out.cgroups[out.cgroup_count++] = value;
    return true;
  }
  if (strcmp(name, "--drop-to") == 0) {
    if (!pair(value, UINT32_MAX - 1, n, m)) return false;
    out.drop = true;
    out.uid = static_cast<uid_t>(n);
    out.gid = static_cast<gid_t>(m);
    return true;
  }
  return false;
}

}  // namespace

bool parse_options(int argc, char** argv, Options& out) {
  int i = 1;
  for (; i < argc && strcmp(argv[i], "--") != 0; ++i) {
    if (strcmp(argv[i], "--die-with-parent") == 0) {
      out.die_with_parent = true;
      continue;
    }
    if (i + 1 >= argc || !option(argv[i], argv[i + 1], out)) return false;
    ++i;
  }
  out.argv = argv + i + 1;
  return i + 1 < argc && out.run_dir != nullptr && out.control_fd >= 0;
}

}  // namespace virga::shim
