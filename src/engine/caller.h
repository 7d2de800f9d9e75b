// Who asks: made by the API from the peer's credentials or client certificate, carried by operations and events.
#pragma once

#include <string>

namespace virga::engine {

struct Caller {
  std::string username;  ///< the local user's name, or the certificate's fingerprint
  std::string protocol;  ///< "unix", "tls", or "internal" for what the daemon does by itself
  std::string address;   ///< "@" for the unix socket, the peer's address and port for tls
  bool admin = false;
  std::string fingerprint;  ///< of the client's certificate; empty on the unix socket

  /// The same person or program, whatever connection it used: secrets are bound to it.
  bool same_identity(const Caller& other) const {
    return protocol == other.protocol && username == other.username && fingerprint == other.fingerprint;
  }
};

/// The daemon itself: start-up, guests that ended, timers.
inline Caller internal_caller() {
  return {.username = "virgad", .protocol = "internal", .address = "", .admin = true, .fingerprint = ""};
}

}  // namespace virga::engine
