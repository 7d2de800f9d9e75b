// file mount: sshfs mounts what the server of an instance's files says over our connection; no SSH is involved.
#include <fmt/format.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>

#include "apps/virga/files/files.h"
#include "apps/virga/instances/instances.h"
#include "client/console.h"

namespace virga::cli {
namespace {

/// Starts sshfs with one end of a socket pair as its standard streams. Returns its pid.
Result<pid_t> start_sshfs(int theirs, const std::string& what, const std::string& target) {
  std::string name = "sshfs", passive = "-opassive", foreground = "-f", source = what, where = target;
  char* argv[] = {name.data(), foreground.data(), passive.data(), source.data(), where.data(), nullptr};
  posix_spawn_file_actions_t actions;
  ::posix_spawn_file_actions_init(&actions);
  ::posix_spawn_file_actions_adddup2(&actions, theirs, 0);
  ::posix_spawn_file_actions_adddup2(&actions, theirs, 1);
  pid_t pid = -1;
  const int error = ::posix_spawnp(&pid, name.c_str(), &actions, nullptr, argv, environ);
  ::posix_spawn_file_actions_destroy(&actions);
  if (error == ENOENT) return fail(Error(ErrorKind::not_found, "there is no sshfs on this machine").with_hint("apt install sshfs"));
  if (error != 0) return fail_errno(error, "start sshfs");
  return pid;
}

Result<> run_mount(App& app, const Args& args) {
  if (args.has("listen") || args.has("no-auth") || args.has("auth-user"))
    return fail(
        Error(ErrorKind::unsupported, "an SSH listener is not supported").with_hint("name a directory to mount on instead"));
  if (args.size() != 2) return fail(ErrorKind::invalid, "A target path is needed");
  VIRGA_TRY(auto place, parse_place(args[0].find('/') == std::string::npos ? args[0] + "/" : args[0]));
  struct ::stat st{};
  if (::stat(args[1].c_str(), &st) != 0 || !S_ISDIR(st.st_mode))
    return fail(ErrorKind::invalid, fmt::format("Target path '{}' must be a directory", args[1]));
  VIRGA_TRY(auto* api, app.api());
  int ends[2];
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) return fail_errno(errno, "make a socket pair");
  auto pid = start_sshfs(ends[1], place.instance + ":" + place.path, args[1]);
  ::close(ends[1]);
  if (!pid) {
    ::close(ends[0]);
    return fail(std::move(pid).error());
  }
  app.note(fmt::format("'{}' is mounted on '{}'; press ctrl+c to unmount", place.text(), args[1]));
  auto target = instance_url(app, place.instance).segment("sftp").text();
  auto joined = api->await(client::join_sftp(api->client(), std::move(target), ends[0]));
  int status = 0;
  while (::waitpid(*pid, &status, 0) < 0 && errno == EINTR) {
  }
  return joined;
}

}  // namespace

Command mount_command() {
  return {
      .use = "mount [<remote>:]<instance>[/<path>] [<target path>]",
      .summary = "Mount files from instances",
      .description = "Needs sshfs. The mount ends with this command, or when it is unmounted.",
      .examples = "virga file mount foo/root fooroot\n    To mount /root from the instance foo onto the local fooroot directory.",
      .flags = {{"auth-user", 0, Flag::text, "Refused: there is no SSH listener"},
                {"listen", 0, Flag::text, "Refused: there is no SSH listener"},
                {"no-auth", 0, Flag::boolean, "Refused: there is no SSH listener"}},
      .least = 1,
      .most = 2,
      .run = run_mount};
}

}  // namespace virga::cli
