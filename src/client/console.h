// The console of an instance over the API's WebSockets: tied to this process's terminal, or a screen offered on a unix socket to
// which a viewer connects. Event loop only; at most one at a time.
#pragma once

#include <functional>
#include <string>

#include "client/client.h"

namespace virga::client {

struct ConsoleSpec {
  std::string target;  ///< "/1.0/instances/c1/console?project=..."
  bool force = false;
  std::function<void()> attached = {};  ///< called once the console is there
};

/// Until the console ends or the user types ctrl+a q. Errors: the server's; unavailable.
Task<Result<>> attach_console(Client& client, ConsoleSpec spec);

/// Listens on `socket` (a path that does not exist yet, in a directory of the caller's) and joins each connection with the screen,
/// until the task is cancelled or the screen ends. `ready` is called once it listens.
Task<Result<>> serve_screen(Client& client, ConsoleSpec spec, std::string protocol, std::string socket,
                            std::function<void()> ready);

/// Joins a connected socket with the SFTP server of an instance until one of them ends. `target`: ".../sftp?project=...".
Task<Result<>> join_sftp(Client& client, std::string target, int socket);

}  // namespace virga::client
