// Reading X.509 certificates that strangers send.
#pragma once

#include <string>
#include <string_view>

#include "base/error.h"
#include "base/units.h"

namespace virga::engine {

struct ParsedCertificate {
  std::string pem;
  std::string fingerprint;  ///< SHA-256 of the DER form
  std::string common_name;  ///< of the subject; may be empty
  WallTime not_before{};
  WallTime not_after{};
  bool for_clients = true;  ///< false: its extended key usage names other uses only, such as TLS servers
};

/// Takes one certificate as PEM or as base64 of DER. Errors: invalid (not a certificate, more than one, a key that is too weak).
Result<ParsedCertificate> parse_certificate(std::string_view text);

}  // namespace virga::engine
