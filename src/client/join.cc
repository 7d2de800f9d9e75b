#include "client/join.h"

#include "wire/jwt/jwt.h"

namespace virga::client {

Task<Result<ServerLook>> look_at_server(http::Endpoint endpoint) {
  ServerLook out;
  endpoint.identity.reset();
  endpoint.server_fingerprint.clear();
  auto anyone = endpoint;
  anyone.accept_any_server = true;
  http::Client look(anyone);
  VIRGA_CO_CHECK(co_await look.connect());
  const auto& shown = look.server_certificate();
  if (!shown) co_return fail(ErrorKind::unavailable, "the server showed no certificate");
  out.certificate = shown->pem;
  out.fingerprint = shown->fingerprint;
  http::Client strict(endpoint);
  auto connected = co_await strict.connect();
  out.known_to_authorities =
      connected && strict.server_certificate() && strict.server_certificate()->fingerprint == out.fingerprint;
  co_return out;
}

Result<CertificateToken> parse_token(const std::string& text) {
  return decode_token(text);
}

Task<Result<bool>> is_trusted(Client& client) {
  VIRGA_CO_TRY(auto answer, co_await client.call({.target = "/1.0"}));
  if (!answer.metadata.is_object()) co_return fail(ErrorKind::invalid, "the server's answer is not an object");
  VIRGA_CO_TRY(const auto auth, Fields(answer.metadata.get_object()).string("auth"));
  co_return auth == "trusted";
}

Task<Result<>> join(Client& client, std::string token, std::string name) {
  Call call{.method = "POST", .target = "/1.0/certificates"};
  call.body = json::object{{"type", "client"}, {"name", name}, {"trust_token", token}};
  VIRGA_CO_TRY(auto answer, co_await client.call(std::move(call)));
  co_return Result<>{};
}

Result<std::string> bearer_token(const http::Identity& identity, WallTime now, WallTime expires_at) {
  VIRGA_TRY(const auto certificate, http::describe_certificate(identity.certificate));
  // A server whose clock is a little behind takes it at once.
  const jwt::Claims claims{
      .subject = certificate.fingerprint, .issued_at = now, .not_before = now - std::chrono::minutes(1), .expires_at = expires_at};
  return jwt::sign(claims, identity.key);
}

}  // namespace virga::client
