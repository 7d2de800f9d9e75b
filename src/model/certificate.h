// A client's certificate that the daemon trusts, and the token with which a new client may add its own once.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "base/units.h"

namespace virga {

struct Certificate {
  std::string fingerprint;  ///< SHA-256 of the DER form, 64 lower-case hexadecimal digits
  std::string name;
  std::string description;
  std::string type = "client";
  bool restricted = false;            ///< may use the named projects and nothing else
  std::vector<std::string> projects;  ///< counts only where it is restricted
  std::string certificate;            ///< PEM
  WallTime not_before{};
  WallTime not_after{};
  std::int64_t revision = 0;  ///< of the document; not part of its text
};

json::object encode(const Certificate& certificate);
Result<Certificate> decode_certificate(const json::object& document);
/// Name, description, type and restrictions. Errors: invalid, unsupported (types other than client and metrics).
Result<> check(const Certificate& certificate);

/// What people carry from the server to a new client: base64 of JSON, as the incus client reads and writes it.
struct CertificateToken {
  std::string client_name;
  std::string fingerprint;  ///< of the server's certificate
  std::vector<std::string> addresses;
  std::string secret;
  WallTime expires_at{};
};
std::string encode_token(const CertificateToken& token);
/// Errors: invalid.
Result<CertificateToken> decode_token(std::string_view text);

std::string base64_encode(std::string_view bytes);
/// Standard alphabet, with padding; blanks and line ends are skipped. Errors: invalid.
Result<std::string> base64_decode(std::string_view text);

}  // namespace virga
