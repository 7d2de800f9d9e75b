// Who this server is: its UUID, and the key and certificate it shows over HTTPS. Made once, at the first start.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/json.h"
#include "base/units.h"

namespace virga::engine {

struct Identity {
  std::string uuid;
  std::string certificate;  ///< PEM
  std::string key;          ///< PEM; never shown or logged
  std::string fingerprint;  ///< SHA-256 of the certificate's DER form
  std::int64_t revision = 0;
};

/// A P-384 key and a self-signed certificate for ten years. `host_name` goes into it where it is a proper host name.
Result<Identity> make_identity(std::string_view host_name, WallTime now);

json::object encode(const Identity& identity);
Result<Identity> decode_identity(const json::object& document);

}  // namespace virga::engine
