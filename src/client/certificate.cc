#include "client/certificate.h"

#include "wire/http/tls.h"

namespace virga::client {

Result<WallTime> certificate_expiry(std::string_view pem) {
  VIRGA_TRY(auto certificate, http::describe_certificate(pem));
  return certificate.not_after;
}

}  // namespace virga::client
