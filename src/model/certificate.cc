#include "model/certificate.h"

#include <array>

#include "model/name.h"

namespace virga {
namespace {
constexpr std::string_view alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
}

json::object encode(const Certificate& c) {
  return {{"fingerprint", c.fingerprint},         {"name", c.name},
          {"description", c.description},         {"type", c.type},
          {"restricted", c.restricted},           {"projects", to_json(c.projects)},
          {"certificate", c.certificate},         {"not_before", format_time(c.not_before)},
          {"not_after", format_time(c.not_after)}};
}

Result<Certificate> decode_certificate(const json::object& document) {
  const Fields f(document);
  Certificate c;
  VIRGA_TRY(c.fingerprint, f.string("fingerprint"));
  VIRGA_TRY(c.name, f.string("name"));
  VIRGA_TRY(c.description, f.string("description"));
  VIRGA_TRY(c.type, f.string("type"));
  VIRGA_TRY(c.restricted, f.boolean("restricted"));
  VIRGA_TRY(c.projects, f.strings("projects"));
  VIRGA_TRY(c.certificate, f.string("certificate"));
  VIRGA_TRY(const std::string before, f.string("not_before"));
  VIRGA_TRY(c.not_before, parse_time(before));
  VIRGA_TRY(const std::string after, f.string("not_after"));
  VIRGA_TRY(c.not_after, parse_time(after));
  return c;
}

Result<> check(const Certificate& c) {
  if (c.name.empty() || c.name.size() > 200) return invalid("name", "a certificate's name has 1 to 200 bytes");
  for (const char ch : c.name)
    if (static_cast<unsigned char>(ch) < 0x20 || ch == 0x7f)
      return invalid("name", "a certificate's name has no control characters");
  VIRGA_CHECK(check_description(c.description));
  if (c.type == "server")
    return tl::unexpected<Error>(
        Error(ErrorKind::unsupported, "certificates of type '" + c.type + "' are not supported yet").with_field("type"));
  if (c.type != "client" && c.type != "metrics") return invalid("type", "a certificate's type is 'client' or 'metrics'");
  if (c.projects.size() > 1000) return invalid("projects", "a certificate is restricted to at most 1000 projects");
  for (const auto& project : c.projects)
    if (auto ok = check_object_name("project", project); !ok) return fail(std::move(ok).error().with_field("projects"));
  return {};
}

std::string encode_token(const CertificateToken& t) {
  return base64_encode(json::serialize(json::object{{"client_name", t.client_name},
                                                    {"fingerprint", t.fingerprint},
                                                    {"addresses", to_json(t.addresses)},
                                                    {"secret", t.secret},
                                                    {"expires_at", format_time(t.expires_at)}}));
}

Result<CertificateToken> decode_token(std::string_view text) {
  if (text.size() > 64 * 1024) return invalid("trust_token", "a token is not that long");
  auto decoded = [&]() -> Result<CertificateToken> {
    VIRGA_TRY(const std::string plain, base64_decode(text));
    VIRGA_TRY(const json::object object, parse_json_object(plain));
    const Fields f(object);
    CertificateToken t;
    VIRGA_TRY(t.client_name, f.string("client_name"));
    VIRGA_TRY(t.fingerprint, f.string("fingerprint"));
    VIRGA_TRY(t.addresses, f.strings("addresses"));
    VIRGA_TRY(t.secret, f.string("secret"));
    VIRGA_TRY(const std::string expires, f.string("expires_at", "0001-01-01T00:00:00Z"));
    VIRGA_TRY(t.expires_at, parse_time(expires));
    return t;
  }();
  if (!decoded || decoded->secret.empty()) return invalid("trust_token", "this is not a trust token");
  return decoded;
}

std::string base64_encode(std::string_view bytes) {
  std::string out;
  out.reserve((bytes.size() + 2) / 3 * 4);
  for (std::size_t i = 0; i < bytes.size(); i += 3) {
    std::uint32_t group = 0;
    for (std::size_t j = 0; j < 3; ++j) group = group << 8 | (i + j < bytes.size() ? static_cast<unsigned char>(bytes[i + j]) : 0u);
    for (std::size_t j = 0; j < 4; ++j) out += i + j <= bytes.size() ? alphabet[group >> (18 - 6 * j) & 63] : '=';
  }
  return out;
}

Result<std::string> base64_decode(std::string_view text) {
  std::string out;
  std::uint32_t group = 0;
  int digits = 0, padding = 0;
  for (const char c : text) {
    if (c == '\n' || c == '\r' || c == ' ' || c == '\t') continue;
    const auto value = alphabet.find(c);
    const bool pad = c == '=';
    if ((!pad && (value == std::string_view::npos || padding > 0)) || (pad && (digits < 2 || padding >= 2)))
      return fail(ErrorKind::invalid, "this is not base64");
    group = group << 6 | (pad ? 0u : static_cast<std::uint32_t>(value));
    padding += pad ? 1 : 0;
    if (++digits == 4) {
      for (int j = 0; j < 3 - padding; ++j) out += static_cast<char>(group >> (16 - 8 * j) & 255);
      digits = 0;
      group = 0;
      if (padding > 0) padding = 3;  // nothing may follow
    }
  }
  if (digits != 0) return fail(ErrorKind::invalid, "this is not base64: it ends too early");
  return out;
}

}  // namespace virga
