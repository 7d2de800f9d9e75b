#include "apps/virga/run.h"

#include <fmt/format.h>

#include <cstdio>
#include <cstdlib>

#include "apps/virga/app.h"
#include "apps/virga/commands.h"
#include "apps/virga/remotes.h"
#include "apps/virga/shell/alias.h"
#include "apps/virga/shell/examples.h"
#include "apps/virga/text.h"
#include "base/log.h"
#include "base/version.h"

namespace virga::cli {
namespace {

Result<> show_help(App& app, const Args& args) {
  VIRGA_TRY(auto path, find_command(app.root(), args.words));
  app.print(help_text(path));
  return {};
}

Command help_command() {
  return {.use = "help [<command>...]",
          .summary = "Help about any command",
          .examples = "virga help launch\nvirga help config device add",
          .most = any_number,
          .run = show_help};
}

/// Words that do not fit: no word at all is a question, a wrong number is an error.
Result<bool> words_fit(App& app, const Parsed& parsed) {
  const Command& command = *parsed.path.back();
  const auto count = static_cast<int>(parsed.args.size());
  if (count >= command.least && (command.most == any_number || count <= command.most)) return true;
  if (count == 0) {
    app.print(help_text(parsed.path));
    return false;
  }
  auto parents = parsed.path;
  parents.pop_back();
  return fail(Error(ErrorKind::invalid, "Invalid number of arguments")
                  .with_hint(fmt::format("Usage: {} {}", full_name(parents), command.use)));
}

/// The daemon and its guests are on one machine; asking for another is refused before anything is done.
Result<> check_target(const Args& args) {
  if (!args.has("target") || args.text("target").empty()) return {};
  return fail(Error(ErrorKind::unsupported, "To use --target, the destination remote must be a cluster")
                  .with_hint("this server is not clustered: leave --target out"));
}

Result<> perform(App& app, const Parsed& parsed) {
  const Command& command = *parsed.path.back();
  if (parsed.args.has("version")) {
    app.print(fmt::format("{}\n", version));
    return {};
  }
  if (parsed.help || !command.run) {
    app.print(help_text(parsed.path));
    return {};
  }
  VIRGA_CHECK(check_target(parsed.args));
  VIRGA_TRY(bool fits, words_fit(app, parsed));
  if (!fits) return {};
  if (command.own_remotes) return command.run(app, parsed.args);
  // What stands below `admin` concerns the daemon of this machine, whatever the default remote is.
  if (parsed.path.size() > 1 && parsed.path[1]->name() == "admin") {
    VIRGA_CHECK(app.use_remote("local"));
    return command.run(app, parsed.args);
  }
  VIRGA_CHECK(app.config());
  VIRGA_TRY(const auto parts, split_by_remote(command.use, parsed.args.words, app.remote()));
  for (const auto& part : parts) {
    VIRGA_CHECK(app.use_remote(part.remote));
    Args args = parsed.args;
    args.words = part.words;
    VIRGA_CHECK(command.run(app, args));
  }
  return {};
}

/// "virga __complete -- WORDS" asks about words; they are not ours to change.
Result<std::vector<std::string>> without_alias(const std::vector<std::string>& arguments) {
  if (!arguments.empty() && arguments[0] == "__complete") return arguments;
  auto config = client::Config::load([](const char* name) -> const char* { return std::getenv(name); });
  if (!config) return arguments;  // the command itself will say so
  VIRGA_TRY(auto expanded, expand_alias(config->aliases, arguments));
  return expanded ? std::move(*expanded) : arguments;
}

int report(const Error& error) {
  std::fflush(stdout);
  fmt::print(stderr, "{}", error_report(error));
  return error.kind() == ErrorKind::cancelled ? 130 : 1;
}

}  // namespace

std::string error_report(const Error& error) {
  auto out = fmt::format("Error: {}\n", escaped(error.chain()));
  if (!error.hint().empty()) out += fmt::format("\n{}\n", escaped(error.hint()));
  return out;
}

Command root_command() {
  Command root{.use = "virga",
               .summary = "Command line client for virga",
               .description =
                   "All of virga's features can be driven through the various commands below.\n"
                   "For help with any of those, simply call them with --help.",
               .examples =
                   "virga launch tiny c1\n    Create and start a container from the image \"tiny\"\n\n"
                   "virga launch tiny v1 --vm -c limits.cpu=2 -c limits.memory=512MiB\n    The same as a virtual machine\n\n"
                   "virga exec c1 -- ps\nvirga list\nvirga stop c1 && virga delete c1"};
  root.children = instance_commands();
  for (auto make : {config_command,  file_command,    snapshot_command,   profile_command,   image_command,
                    storage_command, network_command, project_command,    operation_command, monitor_command,
                    query_command,   admin_command,   remote_command,     warning_command,   version_command,
                    help_command,    alias_command,   completion_command, complete_command,  manpage_command})
    root.children.push_back(make());
  fill_examples(root);
  return root;
}

int run(const std::vector<std::string>& arguments) {
  const Command root = root_command();
  auto words = without_alias(arguments);
  if (!words) return report(words.error());
  auto parsed = parse(root, *words);
  if (!parsed) return report(parsed.error());
  Globals globals{.project = parsed->args.text("project"),
                  .force_local = parsed->args.has("force-local"),
                  .quiet = parsed->args.has("quiet"),
                  .debug = parsed->args.has("debug"),
                  .verbose = parsed->args.has("verbose")};
  log::configure(globals.debug ? log::Level::debug : globals.verbose ? log::Level::info : log::Level::warn);
  App app(root, std::move(globals));
  auto done = perform(app, *parsed);
  if (!done) return report(done.error());
  if (std::fflush(stdout) != 0 || std::ferror(stdout) != 0)
    return report(Error(ErrorKind::unavailable, "cannot write standard output"));
  return app.exit_code;
}

}  // namespace virga::cli
