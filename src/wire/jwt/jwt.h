// Bearer tokens that a certificate's holder signs for himself: JSON Web Tokens (RFC 7519) with the certificate's key. The algorithm
// follows from the key, never from the token. Pure.
#pragma once

#include <string>
#include <string_view>

#include "base/error.h"
#include "base/units.h"

namespace virga::jwt {

struct Claims {
  std::string subject;  ///< the certificate's fingerprint
  WallTime issued_at{};
  WallTime not_before{};
  WallTime expires_at{};
};

/// Errors: invalid (no key, or of a kind that cannot sign tokens).
Result<std::string> sign(const Claims& claims, std::string_view private_key_pem);

/// Whom a token speaks of, before anything about it is known to be true. Errors: invalid.
Result<std::string> unverified_subject(std::string_view token);
/// The claims, when the certificate's key has signed them and `now` lies in their time. Errors: denied; does not say why.
Result<Claims> verify(std::string_view token, std::string_view certificate_pem, WallTime now);

}  // namespace virga::jwt
