// Unix stream sockets by path. Paths longer than the kernel's 108 bytes work too: the directory is opened and the socket is reached
// through /proc/self/fd.
#pragma once

#include <string>

#include "base/error.h"
#include "base/task.h"
#include "io/fd.h"

namespace virga::io {

/// A listening socket at `path` with these permission bits; a socket of an earlier life is replaced. Errors: not_found (directory).
Result<UniqueFd> listen_unix(const std::string& path, unsigned mode = 0600, int backlog = 16);
/// A connected, non-blocking socket. Waits while the listener's queue is full. Errors: not_found, unavailable (nobody listens),
/// timeout.
Task<Result<UniqueFd>> connect_unix(std::string path, Milliseconds timeout = Milliseconds(2'000));

}  // namespace virga::io
