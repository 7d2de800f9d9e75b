#include "io/cgroup.h"

#include <dirent.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <set>
#include <string_view>
#include <thread>

#include "io/fd.h"
#include "io/file.h"

namespace virga::io {
namespace {

using std::chrono::milliseconds;
using Steady = std::chrono::steady_clock;

constexpr std::uint64_t cpu_period_us = 100'000;
/// v1 hierarchies that a guest's group is made in; the runtime may make it in more, and remove() looks at all.
constexpr const char* used_v1[] = {"cpu", "cpuacct", "memory", "pids", "freezer"};

std::vector<std::string_view> split(std::string_view text, char at) {
  std::vector<std::string_view> parts;
  for (;;) {
    const auto n = text.find(at);
    if (n != 0) parts.push_back(text.substr(0, n));
    if (n == std::string_view::npos) return parts;
    text.remove_prefix(n + 1);
  }
}

std::optional<std::uint64_t> read_number(const std::string& path) {
  auto text = read_file(path);
  if (!text || text->empty() || (*text)[0] < '0' || (*text)[0] > '9') return std::nullopt;
  return std::strtoull(text->c_str(), nullptr, 10);
}

/// "name 123" lines, as in memory.stat.
std::uint64_t field(const std::string& text, std::string_view name) {
  for (auto line : split(text, '\n'))
    if (line.size() > name.size() && line.starts_with(name) && line[name.size()] == ' ')
      return std::strtoull(std::string(line.substr(name.size() + 1)).c_str(), nullptr, 10);
  return 0;
}

std::vector<std::string> subdirectories(const std::string& path) {
  std::vector<std::string> names;
  DIR* dir = ::opendir(path.c_str());
  if (dir == nullptr) return names;
  while (auto* e = ::readdir(dir))
    if (e->d_type == DT_DIR && e->d_name[0] != '.') names.push_back(path + "/" + e->d_name);
  ::closedir(dir);
  return names;
}

void collect(const std::string& dir, std::set<pid_t>& into, int depth = 0) {
  if (auto text = read_file(dir + "/cgroup.procs"))
    for (auto line : split(*text, '\n'))
      if (!line.empty()) into.insert(static_cast<pid_t>(std::strtol(std::string(line).c_str(), nullptr, 10)));
  if (depth < 32)  // a guest makes groups of its own below
    for (const auto& sub : subdirectories(dir)) collect(sub, into, depth + 1);
}

/// True when the directory is gone. Control groups hold files that cannot be removed one by one: only directories are.
bool remove_groups(const std::string& dir, int depth = 0) {
  if (::rmdir(dir.c_str()) == 0 || errno == ENOENT) return true;
  if (depth < 32)
    for (const auto& sub : subdirectories(dir)) remove_groups(sub, depth + 1);
  return ::rmdir(dir.c_str()) == 0 || errno == ENOENT;
}

Result<> make_group(const std::string& root, std::string_view path) {
  std::string at = root;
  for (auto part : split(path, '/')) {
    at += '/';
    at += part;
    if (::mkdir(at.c_str(), 0755) != 0 && errno != EEXIST) return fail_errno(errno, fmt::format("make control group '{}'", at));
  }
  return {};
}

/// Until `done` holds or the time is up; looks often at first, as most waits are short.
template <class F>
bool poll_until(milliseconds timeout, F done) {
  const auto end = Steady::now() + timeout;
  for (auto pause = std::chrono::microseconds(200);; pause = std::min(pause * 2, std::chrono::microseconds(20'000))) {
    if (done()) return true;
    if (Steady::now() >= end) return done();
    std::this_thread::sleep_for(pause);
  }
}

}  // namespace

CgroupLayout CgroupLayout::probe() {
  return parse(read_file("/proc/self/mountinfo").value_or(""));
}

CgroupLayout CgroupLayout::parse(std::string_view mountinfo) {
  CgroupLayout layout;
  for (auto line : split(mountinfo, '\n')) {
    const auto dash = line.find(" - ");
    if (dash == std::string_view::npos) continue;
    const auto before = split(line.substr(0, dash), ' ');
    const auto after = split(line.substr(dash + 3), ' ');
    if (before.size() < 5 || after.size() < 3) continue;
    const std::string where(before[4]);
    if (after[0] == "cgroup2" && layout.unified_.empty()) layout.unified_ = where;
    if (after[0] != "cgroup") continue;
    for (auto option : split(after[2], ','))
      if (option != "rw" && option != "ro" && option != "xattr" && option != "clone_children")
        layout.v1_.emplace(std::string(option), where);
  }
  const bool controllers_v1 = layout.v1_.contains("memory") || layout.v1_.contains("cpu") || layout.v1_.contains("pids");
  if (controllers_v1)
    layout.kind_ = layout.unified_.empty() ? Kind::v1 : Kind::hybrid;
  else if (!layout.unified_.empty())
    layout.kind_ = Kind::v2;
  return layout;
}

CgroupLayout CgroupLayout::unified_at(std::string root) {
  CgroupLayout layout;
  layout.kind_ = Kind::v2;
  layout.unified_ = std::move(root);
  return layout;
}

bool CgroupLayout::has(const std::string& controller) const {
  if (kind_ == Kind::none) return false;
  if (kind_ != Kind::v2) return v1_.contains(controller);
  if (controller == "freezer") return true;
  auto text = read_file(unified_ + "/cgroup.controllers").value_or("");
  while (!text.empty() && text.back() == '\n') text.pop_back();
  const auto all = split(text, ' ');
  return std::find(all.begin(), all.end(), controller) != all.end();
}

std::string CgroupLayout::describe() const {
  switch (kind_) {
    case Kind::none:
      return "none";
    case Kind::v1:
      return "v1";
    case Kind::hybrid:
      return "hybrid (controllers are v1)";
    case Kind::v2:
      return "v2";
  }
  return "";
}

Cgroup CgroupLayout::group(std::string path) const {
  return Cgroup(*this, std::move(path));
}

std::string Cgroup::directory(const std::string& controller) const {
  if (layout_.kind_ == CgroupLayout::Kind::v2) return layout_.unified_ + "/" + path_;
  const auto it = layout_.v1_.find(controller);
  return it == layout_.v1_.end() ? "" : it->second + "/" + path_;
}

std::vector<std::string> Cgroup::directories() const {
  std::set<std::string> all;
  for (const auto& [name, where] : layout_.v1_) all.insert(where + "/" + path_);
  if (!layout_.unified_.empty()) all.insert(layout_.unified_ + "/" + path_);
  return {all.begin(), all.end()};
}

Result<> Cgroup::create() const {
  // Somebody may take an empty parent away between two of our steps: not_found is worth another round.
  for (int round = 0;; ++round) {
    auto made = create_once();
    if (made || made.error().kind() != ErrorKind::not_found || round == 8) return made;
  }
}

Result<> Cgroup::create_once() const {
  if (layout_.kind_ == CgroupLayout::Kind::none)
    return fail(
        Error(ErrorKind::unsupported, "this host has no control groups mounted").with_hint("mount cgroup2 at /sys/fs/cgroup"));
  if (layout_.kind_ != CgroupLayout::Kind::v2) {
    for (const char* controller : used_v1)
      if (auto it = layout_.v1_.find(controller); it != layout_.v1_.end()) VIRGA_CHECK(make_group(it->second, path_));
    return {};
  }
  // Controllers are handed down one level at a time; one that this kernel lacks must not keep the others from being handed down.
  std::string at = layout_.unified_;
  for (auto part : split(path_, '/')) {
    for (const char* controller : {"cpu", "memory", "pids"})
      if (layout_.has(controller)) (void)write_control(at + "/cgroup.subtree_control", fmt::format("+{}", controller));
    at += '/';
    at += part;
    if (::mkdir(at.c_str(), 0755) != 0 && errno != EEXIST) return fail_errno(errno, fmt::format("make control group '{}'", at));
  }
  return {};
}

bool Cgroup::exists() const {
  const auto all = directories();
  return std::any_of(all.begin(), all.end(), [](const auto& d) { return io::exists(d); });
}

std::vector<std::string> Cgroup::procs_files() const {
  std::set<std::string> files;
  if (layout_.kind_ == CgroupLayout::Kind::v2)
    files.insert(directory("") + "/cgroup.procs");
  else
    for (const char* controller : used_v1)
      if (auto d = directory(controller); !d.empty()) files.insert(d + "/cgroup.procs");
  return {files.begin(), files.end()};
}

Result<> Cgroup::delegate_names(uid_t uid) const {
  const auto dir = directory("name=systemd");
  if (layout_.kind_ == CgroupLayout::Kind::v2 || dir.empty()) return {};
  for (const char* file : {"", "/cgroup.procs", "/tasks"})
    if (::chown((dir + file).c_str(), uid, uid) != 0) return fail_errno(errno, fmt::format("delegate control group '{}'", path_));
  return {};
}

Result<> Cgroup::set(const std::string& controller, const char* file, const std::string& text) const {
  const auto dir = directory(controller);
  if (dir.empty() || !layout_.has(controller))
    return fail(Error(ErrorKind::unsupported, fmt::format("this host has no '{}' controller", controller))
                    .with_hint("enable it on the kernel's command line"));
  return write_control(dir + "/" + file, text);
}

Result<> Cgroup::limit_cpus(std::optional<double> cpus) const {
  if (cpus && *cpus <= 0) return fail(ErrorKind::invalid, "a limit of no processors");
  const auto quota = cpus ? static_cast<std::uint64_t>(*cpus * static_cast<double>(cpu_period_us)) : 0;
  if (layout_.kind_ == CgroupLayout::Kind::v2)
    return set("cpu", "cpu.max", cpus ? fmt::format("{} {}", quota, cpu_period_us) : "max");
  if (cpus) VIRGA_CHECK(set("cpu", "cpu.cfs_period_us", std::to_string(cpu_period_us)));
  return set("cpu", "cpu.cfs_quota_us", cpus ? std::to_string(quota) : "-1");
}

Result<> Cgroup::limit_memory(std::optional<Bytes> memory) const {
  if (layout_.kind_ == CgroupLayout::Kind::v2) return set("memory", "memory.max", memory ? std::to_string(*memory) : "max");
  const auto text = memory ? std::to_string(*memory) : std::string("-1");
  const bool swap = io::exists(directory("memory") + "/memory.memsw.limit_in_bytes");
  // The limit with swap is never below the one without: which goes first depends on whether the limit rises or falls.
  const bool swap_first = swap && set("memory", "memory.memsw.limit_in_bytes", text).has_value();
  VIRGA_CHECK(set("memory", "memory.limit_in_bytes", text));
  if (swap && !swap_first) return set("memory", "memory.memsw.limit_in_bytes", text);
  return {};
}

std::uint64_t default_process_limit(const std::string& proc) {
  constexpr std::uint64_t unreadable = 32'768;  // the least that pid_max is where nobody has lowered it
  auto most = [&](const char* name) {
    const auto number = read_number(proc + "/sys/kernel/" + name);
    return number && *number > 0 ? *number : unreadable;
  };
  return std::max<std::uint64_t>(1, std::min(most("pid_max"), most("threads-max")) * 15 / 100);
}

Result<> Cgroup::limit_processes(std::optional<std::uint64_t> processes) const {
  return set("pids", "pids.max", processes ? std::to_string(*processes) : "max");
}

Result<CgroupUsage> Cgroup::usage() const {
  CgroupUsage u;
  if (!exists()) return fail(ErrorKind::not_found, fmt::format("no control group '{}'", path_));
  const auto memory = directory("memory");
  auto stat = read_file(memory + "/memory.stat").value_or("");
  Bytes idle_cache = 0, limit = 0;
  if (layout_.kind_ == CgroupLayout::Kind::v2) {
    u.cpu_ns = field(read_file(memory + "/cpu.stat").value_or(""), "usage_usec") * 1000;
    u.memory = read_number(memory + "/memory.current").value_or(0);
    u.memory_peak = read_number(memory + "/memory.peak").value_or(0);
    u.swap = read_number(memory + "/memory.swap.current").value_or(0);
    limit = read_number(memory + "/memory.max").value_or(0);
    idle_cache = field(stat, "inactive_file");
    u.oom_kills = field(read_file(memory + "/memory.events").value_or(""), "oom_kill");
  } else {
    u.cpu_ns = read_number(directory("cpuacct") + "/cpuacct.usage").value_or(0);
    u.memory = read_number(memory + "/memory.usage_in_bytes").value_or(0);
    u.memory_peak = read_number(memory + "/memory.max_usage_in_bytes").value_or(0);
    limit = read_number(memory + "/memory.limit_in_bytes").value_or(0);
    idle_cache = field(stat, "total_inactive_file");
    u.swap = field(stat, "total_swap");
    u.oom_kills = field(read_file(memory + "/memory.oom_control").value_or(""), "oom_kill");
  }
  u.memory -= std::min(u.memory, idle_cache);
  if (limit > 0 && limit < (Bytes{1} << 62)) u.memory_limit = limit;  // v1 says "no limit" as a very large number
  u.processes = read_number(directory("pids") + "/pids.current").value_or(0);
  return u;
}

Result<> Cgroup::freeze(milliseconds timeout) const {
  const bool v2 = layout_.kind_ == CgroupLayout::Kind::v2;
  auto begun = v2 ? set("freezer", "cgroup.freeze", "1") : set("freezer", "freezer.state", "FROZEN");
  if (!begun) return begun;
  auto again = [&, round = 0]() mutable {
    if (frozen()) return true;
    // v1 may stay at "FREEZING" for good, when a task was in the middle of a fork or an exec: then only to thaw and begin anew
    // helps.
    if (!v2 && ++round % 10 == 0) {
      (void)thaw();
      std::this_thread::sleep_for(milliseconds(5));
    }
    if (!v2) (void)set("freezer", "freezer.state", "FROZEN");
    return false;
  };
  if (poll_until(timeout, again)) return {};
  (void)thaw();
  return fail(ErrorKind::timeout, fmt::format("the processes of '{}' do not stop", path_));
}

Result<> Cgroup::thaw() const {
  if (layout_.kind_ == CgroupLayout::Kind::v2) return set("freezer", "cgroup.freeze", "0");
  return set("freezer", "freezer.state", "THAWED");
}

bool Cgroup::frozen() const {
  if (layout_.kind_ == CgroupLayout::Kind::v2)
    return field(read_file(directory("") + "/cgroup.events").value_or(""), "frozen") == 1;
  const auto dir = directory("freezer");
  return !dir.empty() && read_file(dir + "/freezer.state").value_or("").starts_with("FROZEN");
}

std::vector<pid_t> Cgroup::processes() const {
  std::set<pid_t> all;
  for (const auto& dir : directories()) collect(dir, all);
  return {all.begin(), all.end()};
}

Result<> Cgroup::kill_all(milliseconds timeout) const {
  if (!exists()) return {};
  auto over = [this] {
    // A fork may outrun a list, so this goes on until no process is left; v2 kills a whole tree in one write.
    if (layout_.kind_ != CgroupLayout::Kind::v2 || !write_control(directory("") + "/cgroup.kill", "1"))
      for (pid_t pid : processes())
        if (pid > 1 && pid != ::getpid()) ::kill(pid, SIGKILL);
    (void)thaw();  // a frozen task dies when it thaws
    return processes().empty();
  };
  if (poll_until(timeout, over)) return {};
  return fail(ErrorKind::timeout, fmt::format("the processes of '{}' do not end", path_));
}

Result<> Cgroup::remove(milliseconds timeout) const {
  auto gone = [this] {
    bool all = true;
    for (const auto& dir : directories()) all = remove_groups(dir) && all;
    return all;
  };
  if (poll_until(timeout, gone)) return {};
  return fail(ErrorKind::busy, fmt::format("control group '{}' is in use", path_));
}

void Cgroup::remove_if_empty() const {
  for (const auto& dir : directories()) ::rmdir(dir.c_str());
}

}  // namespace virga::io
