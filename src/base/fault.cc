#include "base/fault.h"

#ifdef VIRGA_FAULTS

#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include <charconv>
#include <cstdlib>
#include <map>
#include <mutex>

namespace virga {
namespace {

struct Target {
  std::string name;
  int passing = 1;
};

Target parse_target(const char* text) {
  Target t;
  if (text == nullptr) return t;
  t.name = text;
  if (auto at = t.name.rfind('#'); at != std::string::npos) {
    std::from_chars(t.name.data() + at + 1, t.name.data() + t.name.size(), t.passing);
    t.name.resize(at);
  }
  return t;
}

}  // namespace

Result<> fault_point(std::string_view name) {
  static std::mutex mutex;
  static std::map<std::string, int, std::less<>> passed;
  static const Target kill_at = parse_target(std::getenv("VIRGA_FAULT_KILL"));
  static const Target fail_at = parse_target(std::getenv("VIRGA_FAULT_FAIL"));
  static const char* const log_file = std::getenv("VIRGA_FAULT_LOG");

  std::lock_guard lock(mutex);
  const int count = ++passed[std::string(name)];
  if (log_file != nullptr) {
    if (int fd = ::open(log_file, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600); fd >= 0) {
      std::string line = std::string(name) + "\n";
      (void)!::write(fd, line.data(), line.size());
      ::close(fd);
    }
  }
  if (kill_at.name == name && kill_at.passing == count) {
    ::kill(::getpid(), SIGKILL);
    ::pause();
  }
  if (fail_at.name == name && fail_at.passing == count)
    return fail(ErrorKind::internal, "fault injected at '" + std::string(name) + "'");
  return {};
}

}  // namespace virga

#endif
