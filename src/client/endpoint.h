// Where the daemon listens.
#pragma once

#include <functional>
#include <string>

#include "base/error.h"
#include "wire/http/client.h"

namespace virga::client {

using Environment = std::function<const char*(const char*)>;

/// The daemon of this machine: VIRGA_SOCKET, then VIRGA_DIR/unix.socket, then /var/lib/virga/unix.socket.
http::Endpoint local_endpoint(const Environment& environment);

}  // namespace virga::client
