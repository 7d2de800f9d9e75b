// Runs a command in an instance over the API's WebSockets and ties it to the descriptors of this process: stdin, stdout, stderr or
// a raw terminal, window size and signals as control messages. Event loop only; at most one at a time, as it owns signals and the
// terminal.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "client/client.h"

namespace virga::client {

struct ExecSpec {
  std::string target;  ///< "/1.0/instances/c1/exec?project=..."
  std::vector<std::string> command;
  std::map<std::string, std::string> environment;
  std::uint32_t user = 0;
  std::uint32_t group = 0;
  std::string cwd;           ///< empty: the user's home
  bool interactive = false;  ///< a pseudo-terminal; both streams are one
  bool without_stdin = false;
  std::function<void()> waiting = {};  ///< called once if the server takes a while to begin
};

struct ExecOutcome {
  int code = 0;       ///< the command's exit code
  std::string error;  ///< why it could not be run ("Command not found"), with code 126 or 127
};

/// Errors: the server's; unavailable (the connection broke while the command ran).
Task<Result<ExecOutcome>> exec(Client& client, ExecSpec spec);

/// The control messages, apart for tests.
std::string resize_message(unsigned columns, unsigned rows);
std::string signal_message(int signal);

}  // namespace virga::client
