// Certificates: our own (self-signed, made at the first start), and reading those of others. TLS 1.3 only; trust is by fingerprint.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "wire/http/message.h"

namespace virga::http {

/// A certificate with its private key, both PEM.
struct Identity {
  std::string certificate;
  std::string key;
};

/// An ECDSA P-384 certificate that is good for ten years as a server and as a client. `names` are host names or addresses.
/// Errors: internal.
Result<Identity> make_self_signed(const std::string& common_name, const std::vector<std::string>& names);

/// Reads the first certificate of a PEM text. Errors: invalid.
Result<PeerCertificate> describe_certificate(std::string_view pem);

/// The common name of the subject, empty where there is none. Errors: invalid.
Result<std::string> certificate_common_name(std::string_view pem);

}  // namespace virga::http
