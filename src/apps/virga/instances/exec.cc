// exec and shell.
#include "client/exec.h"

#include <fmt/format.h>
#include <unistd.h>

#include <cstdlib>

#include "apps/virga/document.h"
#include "apps/virga/instances/instances.h"

namespace virga::cli {
namespace {

std::vector<Flag> exec_flags() {
  return {{"cwd", 0, Flag::text, "Directory to run the command in (default /root)"},
          {"disable-stdin", 'n', Flag::boolean, "Disable stdin (reads from /dev/null)"},
          {"env", 0, Flag::list, "Environment variable to set (e.g. HOME=/home/foo)"},
          {"force-interactive", 't', Flag::boolean, "Force pseudo-terminal allocation"},
          {"force-noninteractive", 'T', Flag::boolean, "Disable pseudo-terminal allocation"},
          {"group", 0, Flag::integer, "Group ID to run the command as (default 0)"},
          {"mode", 0, Flag::text, "Override the terminal mode (auto, interactive or non-interactive)", "auto"},
          {"user", 0, Flag::integer, "User ID to run the command as (default 0)"}};
}

Result<bool> wants_terminal(const Args& args) {
  const bool yes = args.has("force-interactive"), no = args.has("force-noninteractive");
  auto mode = args.text("mode");
  if (yes && no) return fail(ErrorKind::invalid, "You can't pass -t and -T at the same time");
  if (mode != "auto" && (yes || no)) return fail(ErrorKind::invalid, "You can't pass -t or -T at the same time as --mode");
  if (mode != "auto" && mode != "interactive" && mode != "non-interactive")
    return fail(ErrorKind::invalid, fmt::format("Unknown terminal mode '{}'", mode));
  if (yes || mode == "interactive") return true;
  if (no || mode == "non-interactive") return false;
  return !args.has("disable-stdin") && ::isatty(STDIN_FILENO) == 1 && ::isatty(STDOUT_FILENO) == 1;
}

Result<std::uint32_t> id_flag(const Args& args, std::string_view flag) {
  if (!args.has(flag)) return 0u;
  VIRGA_TRY(auto id, parse_integer(args.text(flag), 0, UINT32_MAX - 1));
  return static_cast<std::uint32_t>(id);
}

Result<> exec_in(App& app, const Args& args, std::vector<std::string> command) {
  VIRGA_TRY(auto name, local_name(args[0]));
  client::ExecSpec spec;
  spec.command = std::move(command);
  VIRGA_TRY(spec.interactive, wants_terminal(args));
  spec.without_stdin = args.has("disable-stdin");
  spec.cwd = args.text("cwd");
  VIRGA_TRY(spec.user, id_flag(args, "user"));
  VIRGA_TRY(spec.group, id_flag(args, "group"));
  if (const char* term = std::getenv("TERM"); term != nullptr && *term != '\0') spec.environment["TERM"] = term;
  for (const auto& text : args.list("env")) {
    auto equals = text.find('=');
    if (equals == 0) return fail(ErrorKind::invalid, fmt::format("'{}' is not NAME=value", text));
    spec.environment[text.substr(0, equals)] = equals == std::string::npos ? std::string() : text.substr(equals + 1);
  }
  spec.target = Url(instance_url(app, name)).segment("exec").text();
  if (::isatty(STDERR_FILENO) == 1) spec.waiting = [&app, name] { app.warn(fmt::format("Waiting for '{}' to answer", name)); };
  VIRGA_TRY(auto* api, app.api());
  VIRGA_TRY(auto outcome, api->await(client::exec(api->client(), std::move(spec))));
  if (!outcome.error.empty()) app.warn("Error: " + outcome.error);
  app.exit_code = outcome.code;
  return {};
}

Result<> run_exec(App& app, const Args& args) {
  return exec_in(app, args, {args.words.begin() + 1, args.words.end()});
}

/// A login shell of root, whatever the instance has.
Result<> run_shell(App& app, const Args& args) {
  return exec_in(
      app, args,
      {"sh", "-c", "cd ~ 2>/dev/null; if command -v su >/dev/null && [ -e /etc/passwd ]; then exec su -l; else exec sh -l; fi"});
}

constexpr std::string_view exec_description =
    "The command is executed directly using exec, so there is no shell and\n"
    "shell patterns (variables, file redirects, ...) won't be understood.\n"
    "If you need a shell environment you need to execute the shell\n"
    "executable, passing the shell commands as arguments, for example:\n"
    "\n"
    "  virga exec <instance> -- sh -c \"cd /tmp && pwd\"\n"
    "\n"
    "Mode defaults to non-interactive, interactive mode is selected if both stdin AND stdout are terminals (stderr is ignored).\n"
    "The exit code is that of the command.";

}  // namespace

Command exec_command() {
  return {.use = "exec [<remote>:]<instance> [flags] [--] <command line>",
          .summary = "Execute commands in instances",
          .description = exec_description,
          .examples =
              "virga exec c1 sh\n    Run a shell in instance \"c1\"\n\nvirga exec c1 -- ls -lh /\n    Run the \"ls -lh /\" command "
              "in instance \"c1\"",
          .flags = exec_flags(),
          .least = 2,
          .most = any_number,
          .run = run_exec};
}

Command shell_command() {
  return {.use = "shell [<remote>:]<instance>",
          .summary = "Open a shell in an instance",
          .description = "Runs a login shell as root; short for exec with \"su -l\".",
          .flags = exec_flags(),
          .least = 1,
          .most = 1,
          .run = run_shell};
}

}  // namespace virga::cli
