// Getting to know a server: its certificate before it is trusted, and coming into its trust store with a token.
#pragma once

#include <string>

#include "base/error.h"
#include "base/task.h"
#include "client/client.h"
#include "model/certificate.h"

namespace virga::client {

struct ServerLook {
  std::string certificate;  ///< PEM
  std::string fingerprint;
  bool known_to_authorities = false;  ///< the system's authorities vouch for it under this name
};
/// Errors: unavailable, timeout.
Task<Result<ServerLook>> look_at_server(http::Endpoint endpoint);

/// What people carry: base64 of JSON. Errors: invalid.
Result<CertificateToken> parse_token(const std::string& text);

/// Whether the server trusts the certificate we show. Errors: those of Client::call().
Task<Result<bool>> is_trusted(Client& client);
/// Shows the token; the certificate of this connection becomes trusted. Errors: denied (the token is not valid any more).
Task<Result<>> join(Client& client, std::string token, std::string name);

/// Proves, until it expires, that who shows it has the certificate's key. Errors: invalid (the key, the certificate).
Result<std::string> bearer_token(const http::Identity& identity, WallTime now, WallTime expires_at);

}  // namespace virga::client
