#include "apps/virga/server/fixes.h"

#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <fstream>

#include "apps/virga/editor.h"
#include "apps/virga/text.h"
#include "base/units.h"

namespace virga::cli {
namespace {

constexpr const char* state_directory = "/var/lib/virga";
constexpr const char* settings_file = "/etc/sysctl.d/60-virga.conf";
constexpr const char* modules_file = "/etc/modules-load.d/virga.conf";
constexpr std::int64_t least_watches = 1024;

/// Only words of ours reach a path.
bool plain_word(std::string_view word) {
  return !word.empty() && word.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789_.-+") == std::string_view::npos &&
         word.find("..") == std::string_view::npos && word[0] != '-' && word[0] != '.';
}

std::string first_line_of(const std::string& path) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  return line;
}

/// Adds a line to a file of ours, once.
Result<> remember(const char* path, const std::string& line) {
  std::ifstream before(path);
  for (std::string each; std::getline(before, each);)
    if (each == line) return {};
  std::error_code ec;
  std::filesystem::create_directories(std::filesystem::path(path).parent_path(), ec);
  std::ofstream file(path, std::ios::app);
  file << line << "\n";
  if (!file.flush()) return fail(ErrorKind::unavailable, fmt::format("cannot write {}", path));
  return {};
}

Result<std::string> load_module(const std::string& name) {
  VIRGA_TRY(int code, run_program({"modprobe", name}));
  if (code != 0) return fail(ErrorKind::unavailable, fmt::format("modprobe {} failed with exit code {}", name, code));
  VIRGA_CHECK(remember(modules_file, name));
  return fmt::format("loaded the module {}, also at each boot ({})", name, modules_file);
}

Result<std::string> change_setting(const std::string& name, const std::string& value) {
  std::string path = "/proc/sys/" + name;
  for (auto at = std::string("/proc/sys/").size(); at < path.size(); ++at)
    if (path[at] == '.') path[at] = '/';
  const auto before = first_line_of(path);
  std::ofstream file(path);
  file << value;
  if (!file.flush()) return fail(ErrorKind::denied, fmt::format("cannot set {} to {}", name, value));
  VIRGA_CHECK(remember(settings_file, fmt::format("{} = {}", name, value)));
  return fmt::format("set {} from {} to {}, also at each boot ({})", name, before, value, settings_file);
}

Result<std::string> make_directory(const std::string& path) {
  constexpr mode_t passable = 0711;
  if (::mkdir(path.c_str(), passable) != 0 && errno != EEXIST) return fail_errno(errno, "make " + path);
  if (::chmod(path.c_str(), passable) != 0) return fail_errno(errno, "open " + path);
  return fmt::format("made {} a directory that guests' processes can pass through", path);
}

Result<std::string> install(const std::vector<std::string>& packages) {
  std::vector<std::string> argv = {"apt-get", "install", "-y", "--no-install-recommends"};
  argv.insert(argv.end(), packages.begin(), packages.end());
  VIRGA_TRY(int code, run_program(argv));
  if (code != 0)
    return fail(Error(ErrorKind::unavailable, fmt::format("apt-get could not install {}", fmt::join(packages, " ")))
                    .with_hint("apt-get update, then again"));
  return fmt::format("installed {}", fmt::join(packages, " "));
}

}  // namespace

std::optional<Fix> fix_of(const Finding& finding) {
  if (finding.verdict == Verdict::good) return {};
  auto words = split(finding.remedy, ' ');
  auto rest_is_plain = [&](std::size_t from) {
    if (words.size() <= from) return false;
    for (std::size_t i = from; i < words.size(); ++i)
      if (!plain_word(words[i])) return false;
    return true;
  };
  if (words[0] == "modprobe" && words.size() == 2 && rest_is_plain(1)) return Fix{Fix::Kind::module, {words[1]}};
  if (words[0] == "mkdir" && words.size() == 2 && words[1] == state_directory) return Fix{Fix::Kind::directory, {words[1]}};
  if (words[0] == "apt" && words.size() > 2 && words[1] == "install" && rest_is_plain(2))
    return Fix{Fix::Kind::package, {words.begin() + 2, words.end()}};
  if (words[0] == "sysctl" && words.size() == 2) {
    const auto equals = words[1].find('=');
    if (equals == std::string::npos) return {};
    const auto name = words[1].substr(0, equals), value = words[1].substr(equals + 1);
    if (plain_word(name) && parse_integer(value, 0, INT64_MAX)) return Fix{Fix::Kind::setting, {name}, value};
  }
  return {};
}

Result<std::string> apply_fix(const Fix& fix) {
  switch (fix.kind) {
    case Fix::Kind::module:
      return load_module(fix.names[0]);
    case Fix::Kind::setting:
      return change_setting(fix.names[0], fix.value);
    case Fix::Kind::directory:
      return make_directory(fix.names[0]);
    case Fix::Kind::package:
      return install(fix.names);
  }
  return fail(ErrorKind::unsupported, "no such fix");
}

std::vector<Finding> check_host() {
  std::vector<Finding> out;
  struct stat status{};
  const bool there = ::stat(state_directory, &status) == 0;
  if (!there)
    out.push_back({Verdict::note, "state directory", fmt::format("{} does not exist yet; virgad makes it", state_directory),
                   fmt::format("mkdir {}", state_directory)});
  else if (S_ISDIR(status.st_mode) && (status.st_mode & 0111) != 0111)
    out.push_back({Verdict::missing, "state directory",
                   fmt::format("guests' processes, which have users of their own, cannot pass through {}", state_directory),
                   fmt::format("mkdir {}", state_directory)});
  else
    out.push_back({Verdict::good, "state directory", state_directory, {}});
  const auto watches = parse_integer(first_line_of("/proc/sys/fs/inotify/max_user_instances"), 0, INT64_MAX);
  if (watches && *watches < least_watches)
    out.push_back({Verdict::note, "inotify",
                   fmt::format("{} instances a user: containers that run systemd use several each", *watches),
                   fmt::format("sysctl fs.inotify.max_user_instances={}", least_watches)});
  return out;
}

}  // namespace virga::cli
