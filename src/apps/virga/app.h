// What every verb gets: the global flags, the daemon, and ways to print. Output goes through here so that nothing a server, a guest
// or an image wrote reaches the terminal with control characters in it.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "apps/virga/api.h"
#include "apps/virga/command.h"
#include "apps/virga/progress.h"
#include "base/error.h"
#include "base/json.h"
#include "client/config.h"

namespace virga::cli {

struct Globals {
  std::string project;  ///< as given; empty: the configured one
  bool force_local = false;
  bool quiet = false;
  bool debug = false;
  bool verbose = false;
};

class App {
 public:
  App(const Command& root, Globals globals);
  ~App();

  const Command& root() const noexcept { return root_; }
  const Globals& globals() const noexcept { return globals_; }
  /// The remote servers this user knows; read at the first use. Errors: invalid, denied (the file).
  Result<client::Config*> config();
  /// The one that verbs speak to; the default one unless the command's words name another.
  const std::string& remote();
  /// Errors: not_found.
  Result<> use_remote(const std::string& name);

  /// Connected to remote(). Errors: unavailable, denied; with what to do.
  Result<Api*> api();
  /// The same for a command that works on several servers.
  Result<Api*> api_of(const std::string& remote);
  std::string socket_path() const;

  /// The project that names belong to: --project, what `project switch` chose for this remote, or "default".
  const std::string& project();
  std::string project_of(const std::string& remote);
  /// A URL within the project.
  Url url(std::string_view base);

  /// To standard output, control characters escaped; the caller adds newlines.
  void print(std::string_view text);
  /// Bytes as they are.
  void write(std::string_view bytes);
  /// print() with a newline, unless --quiet.
  void note(std::string_view text);
  /// To standard error, with a newline.
  void warn(std::string_view text);
  Progress progress(std::string prefix) const;

  /// The exit code of a command that ended without an error.
  int exit_code = 0;

 private:
  const Command& root_;
  Globals globals_;
  std::optional<client::Config> config_;
  std::string remote_;
  std::optional<std::string> project_;
  std::map<std::string, std::unique_ptr<Api>> apis_;
};

/// A name of the remote that the command runs on; its "remote:" was taken off before (see remotes.h).
Result<std::string> local_name(const std::string& argument);
/// The same where the argument may also be missing, which leaves an empty name.
Result<std::string> optional_local_name(const Args& args, std::size_t index);
bool stdin_is_terminal();
/// All of standard input, where it is not a terminal; else nothing. Errors: invalid (more than 16 MiB).
Result<std::string> piped_input();
/// A yes or no on the terminal; the default is no.
Result<bool> confirm(std::string_view question);

/// YAML as the incus command prints it; times of the API stand without quotes.
std::string as_yaml(const json::value& value);
std::string pretty_json(const json::value& value);
std::string compact_json(const json::value& value);

}  // namespace virga::cli
