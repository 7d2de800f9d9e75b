// file pull: single files, to standard output, and trees. What comes from a guest never decides where it is written: names are
// single components, and nothing is written through a link that is there.
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>

#include "apps/virga/files/files.h"

namespace virga::cli {
namespace {

namespace fs = std::filesystem;

Result<> write_all(int fd, std::string_view bytes) {
  while (!bytes.empty()) {
    const auto n = ::write(fd, bytes.data(), bytes.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return fail_errno(errno, "write");
    bytes.remove_prefix(static_cast<std::size_t>(n));
  }
  return {};
}

Result<> pull_file(App& app, const FilePlace& place, const std::string& target, std::uint32_t mode, bool follow) {
  const int fd = ::open(target.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | (follow ? 0 : O_NOFOLLOW), 0600);
  if (fd < 0) return fail_errno(errno, fmt::format("create '{}'", target));
  auto received = receive_file(app, place, [fd](std::string_view bytes) { return write_all(fd, bytes); });
  struct ::stat st{};
  if (received && ::fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && ::fchmod(fd, mode & 0777) != 0)
    received = fail_errno(errno, fmt::format("change the mode of '{}'", target));
  ::close(fd);
  return received;
}

Result<> pull_link(App& app, const FilePlace& place, const std::string& target) {
  VIRGA_TRY(auto points_to, link_target(app, place));
  if (::symlink(points_to.c_str(), target.c_str()) != 0) return fail_errno(errno, fmt::format("make the link '{}'", target));
  return {};
}

Result<> pull_tree(App& app, const FilePlace& place, const FileFacts& facts, const std::string& target) {
  if (facts.type == "symlink") return pull_link(app, place, target);
  if (facts.type != "directory") return pull_file(app, place, target, facts.mode, false);
  struct ::stat st{};
  if (::mkdir(target.c_str(), 0700) != 0 && (errno != EEXIST || ::lstat(target.c_str(), &st) != 0 || !S_ISDIR(st.st_mode)))
    return fail_errno(errno, fmt::format("make directory '{}'", target));
  VIRGA_TRY(auto names, names_in(app, place));
  for (const auto& name : names) {
    const FilePlace below{place.instance, (place.path == "/" ? "" : place.path) + "/" + name};
    VIRGA_TRY(auto what, look_at(app, below));
    if (what) VIRGA_CHECK(pull_tree(app, below, *what, target + "/" + name));
  }
  if (::chmod(target.c_str(), facts.mode & 0777) != 0) return fail_errno(errno, fmt::format("change the mode of '{}'", target));
  return {};
}

/// Follows links in the guest, as a person expects of a single file.
Result<FilePlace> followed(App& app, FilePlace place, FileFacts& facts) {
  for (int hops = 0; facts.type == "symlink"; ++hops) {
    if (hops == 16) return fail(ErrorKind::invalid, fmt::format("'{}': too many links", place.text()));
    VIRGA_TRY(auto target, link_target(app, place));
    place.path = target.starts_with('/') ? target : fs::path(place.path).parent_path().string() + "/" + target;
    VIRGA_TRY(auto next, look_at(app, place));
    if (!next) return fail(ErrorKind::not_found, fmt::format("'{}' not found", place.text()));
    facts = *next;
  }
  return place;
}

Result<> run_pull(App& app, const Args& args) {
  std::string target = args.words.back();
  const bool recursive = args.has("recursive"), to_output = target == "-";
  const bool wants_directory = target.ends_with('/') || args.size() > 2;
  std::error_code ec;
  if (args.has("create-dirs") && !to_output)
    fs::create_directories(wants_directory ? fs::path(target) : fs::path(target).parent_path(), ec);
  const bool into = fs::is_directory(target, ec);
  if (wants_directory && !into) return fail(ErrorKind::invalid, fmt::format("Target path '{}' must be a directory", target));
  if (recursive && !into && !to_output && args.has("create-dirs")) fs::create_directories(target, ec);
  for (std::size_t i = 0; i + 1 < args.size(); ++i) {
    VIRGA_TRY(auto place, parse_place(args[i]));
    while (place.path.size() > 1 && place.path.ends_with('/')) place.path.pop_back();
    VIRGA_TRY(auto facts, look_at(app, place));
    if (!facts) return fail(ErrorKind::not_found, fmt::format("'{}' not found", place.text()));
    const auto name = fs::path(place.path).filename().string();
    const auto local = into ? target + (target.ends_with('/') ? "" : "/") + (name.empty() ? place.instance : name) : target;
    if (!recursive) {
      VIRGA_TRY(place, followed(app, place, *facts));
    }
    if (facts->type == "directory" && !recursive)
      return fail(
          Error(ErrorKind::invalid, fmt::format("'{}' is a directory", place.text())).with_hint("pull it with --recursive"));
    if (to_output) {
      if (facts->type != "file") return fail(ErrorKind::invalid, "only files can go to standard output");
      VIRGA_CHECK(receive_file(app, place, [](std::string_view bytes) { return write_all(STDOUT_FILENO, bytes); }));
    } else if (recursive) {
      VIRGA_CHECK(pull_tree(app, place, *facts, local));
    } else {
      VIRGA_CHECK(pull_file(app, place, local, facts->mode, true));
    }
  }
  return {};
}

}  // namespace

Command pull_command() {
  return {.use = "pull [<remote>:]<instance>/<path> [[<remote>:]<instance>/<path>...] <target path>",
          .summary = "Pull files from instances",
          .description = "A target of \"-\" is standard output.",
          .examples =
              "virga file pull foo/etc/hosts .\n    To pull /etc/hosts from the instance and write it to the current directory.",
          .flags = {{"create-dirs", 'p', Flag::boolean, "Create any directories necessary"},
                    {"recursive", 'r', Flag::boolean, "Recursively transfer files"}},
          .least = 2,
          .most = any_number,
          .run = run_pull};
}

}  // namespace virga::cli
