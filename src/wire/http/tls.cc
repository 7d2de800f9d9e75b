#include "wire/http/tls.h"

#include <arpa/inet.h>
#include <fmt/format.h>
#include <openssl/bio.h>
#include <openssl/ec.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

#include <array>
#include <boost/asio/ssl/context.hpp>
#include <ctime>

#include "base/free_with.h"
#include "base/random.h"
#include "base/unix_time.h"
#include "wire/http/client.h"
#include "wire/http/transport.h"

namespace virga::http {
namespace {

using Bio = std::unique_ptr<BIO, FreeWith<BIO_free>>;
using Certificate = std::unique_ptr<X509, FreeWith<X509_free>>;
using Key = std::unique_ptr<EVP_PKEY, FreeWith<EVP_PKEY_free>>;

std::string openssl_error() {
  std::array<char, 256> text{};
  ERR_error_string_n(ERR_get_error(), text.data(), text.size());
  ERR_clear_error();
  return text.data();
}

tl::unexpected<Error> fail_openssl(std::string_view what) {
  return fail(ErrorKind::internal, fmt::format("{}: {}", what, openssl_error()));
}

std::string drain(BIO* bio) {
  char* data = nullptr;
  const long size = BIO_get_mem_data(bio, &data);
  return size > 0 ? std::string(data, static_cast<std::size_t>(size)) : std::string();
}

Bio memory(std::string_view text) {
  return Bio(BIO_new_mem_buf(text.data(), static_cast<int>(text.size())));
}

Result<Certificate> parse_certificate(std::string_view pem) {
  if (pem.size() > 64u << 10) return fail(ErrorKind::invalid, "the certificate is too long");
  auto bio = memory(pem);
  Certificate certificate(PEM_read_bio_X509(bio.get(), nullptr, nullptr, nullptr));
  if (!certificate) {
    ERR_clear_error();
    return fail(ErrorKind::invalid, "not a PEM certificate");
  }
  return certificate;
}

WallTime to_time(const ASN1_TIME* time) {
  std::tm tm{};
  if (ASN1_TIME_to_tm(time, &tm) != 1) return WallTime{};
  return time_of_unix(timegm(&tm));
}

bool add_extension(X509* certificate, int nid, const std::string& value) {
  X509V3_CTX context;
  X509V3_set_ctx_nodb(&context);
  X509V3_set_ctx(&context, certificate, certificate, nullptr, nullptr, 0);
  X509_EXTENSION* extension = X509V3_EXT_conf_nid(nullptr, &context, nid, value.c_str());
  if (extension == nullptr) return false;
  const bool ok = X509_add_ext(certificate, extension, -1) == 1;
  X509_EXTENSION_free(extension);
  return ok;
}

/// "DNS:host,IP:192.0.2.1"; a name that is neither is left out, since it is spliced into OpenSSL's little language.
std::string alternative_names(const std::vector<std::string>& names) {
  std::string out;
  for (const auto& name : names) {
    std::array<unsigned char, 16> raw{};
    const bool address = inet_pton(AF_INET, name.c_str(), raw.data()) == 1 || inet_pton(AF_INET6, name.c_str(), raw.data()) == 1;
    const bool plain =
        !name.empty() && name.size() < 254 &&
        name.find_first_not_of("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-") == std::string::npos;
    if (!address && !plain) continue;
    out += fmt::format("{}{}:{}", out.empty() ? "" : ",", address ? "IP" : "DNS", name);
  }
  return out;
}

void restrict_versions(SSL_CTX* context) {
  SSL_CTX_set_min_proto_version(context, TLS1_3_VERSION);
  SSL_CTX_set_options(context, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION);
  SSL_CTX_set_mode(context, SSL_MODE_RELEASE_BUFFERS);
}

Result<> use_identity(SSL_CTX* context, const Identity& identity) {
  VIRGA_TRY(auto certificate, parse_certificate(identity.certificate));
  auto bio = memory(identity.key);
  Key key(PEM_read_bio_PrivateKey(bio.get(), nullptr, nullptr, nullptr));
  if (!key) {
    ERR_clear_error();
    return fail(ErrorKind::invalid, "not a PEM private key");
  }
  if (SSL_CTX_use_certificate(context, certificate.get()) != 1 || SSL_CTX_use_PrivateKey(context, key.get()) != 1 ||
      SSL_CTX_check_private_key(context) != 1)
    return fail(ErrorKind::invalid, fmt::format("certificate and key do not fit: {}", openssl_error()));
  return {};
}

int accept_any(int, X509_STORE_CTX*) {
  return 1;
}

int choose_protocol(SSL*, const unsigned char** out, unsigned char* out_length, const unsigned char* in, unsigned in_length,
                    void*) {
  static constexpr unsigned char ours[] = {8, 'h', 't', 't', 'p', '/', '1', '.', '1'};
  unsigned char* chosen = nullptr;
  if (SSL_select_next_proto(&chosen, out_length, ours, sizeof ours, in, in_length) != OPENSSL_NPN_NEGOTIATED)
    return SSL_TLSEXT_ERR_NOACK;
  *out = chosen;
  return SSL_TLSEXT_ERR_OK;
}

}  // namespace

PeerCertificate describe(X509* certificate) {
  PeerCertificate out;
  unsigned char* der = nullptr;
  const int size = i2d_X509(certificate, &der);
  if (size > 0) out.fingerprint = sha256_hex(std::string_view(reinterpret_cast<char*>(der), static_cast<std::size_t>(size)));
  OPENSSL_free(der);
  Bio bio(BIO_new(BIO_s_mem()));
  PEM_write_bio_X509(bio.get(), certificate);
  out.pem = drain(bio.get());
  out.not_before = to_time(X509_get0_notBefore(certificate));
  out.not_after = to_time(X509_get0_notAfter(certificate));
  return out;
}

Result<Identity> make_self_signed(const std::string& common_name, const std::vector<std::string>& names) {
  Key key(EVP_EC_gen("P-384"));
  if (!key) return fail_openssl("make a key");
  Certificate certificate(X509_new());
  X509_set_version(certificate.get(), 2);
  std::array<unsigned char, 16> serial{};
  if (RAND_bytes(serial.data(), static_cast<int>(serial.size())) != 1) return fail_openssl("make a serial number");
  serial[0] &= 0x7f;
  std::unique_ptr<BIGNUM, FreeWith<BN_free>> number(BN_bin2bn(serial.data(), static_cast<int>(serial.size()), nullptr));
  BN_to_ASN1_INTEGER(number.get(), X509_get_serialNumber(certificate.get()));
  X509_gmtime_adj(X509_getm_notBefore(certificate.get()), -60);
  X509_time_adj_ex(X509_getm_notAfter(certificate.get()), 3650, 0, nullptr);
  auto* subject = X509_get_subject_name(certificate.get());
  auto entry = [&](const char* field, const std::string& value) {
    X509_NAME_add_entry_by_txt(subject, field, MBSTRING_UTF8, reinterpret_cast<const unsigned char*>(value.data()),
                               static_cast<int>(value.size()), -1, 0);
  };
  entry("O", "virga");
  entry("CN", common_name.substr(0, 64));
  X509_set_issuer_name(certificate.get(), subject);
  X509_set_pubkey(certificate.get(), key.get());
  const auto alternatives = alternative_names(names);
  bool ok = add_extension(certificate.get(), NID_basic_constraints, "critical,CA:FALSE") &&
            add_extension(certificate.get(), NID_key_usage, "critical,digitalSignature,keyEncipherment") &&
            add_extension(certificate.get(), NID_ext_key_usage, "serverAuth,clientAuth") &&
            (alternatives.empty() || add_extension(certificate.get(), NID_subject_alt_name, alternatives));
  if (!ok || X509_sign(certificate.get(), key.get(), EVP_sha384()) == 0) return fail_openssl("make a certificate");
  Bio out(BIO_new(BIO_s_mem()));
  Identity identity;
  PEM_write_bio_X509(out.get(), certificate.get());
  identity.certificate = drain(out.get());
  out.reset(BIO_new(BIO_s_mem()));
  PEM_write_bio_PKCS8PrivateKey(out.get(), key.get(), nullptr, nullptr, 0, nullptr, nullptr);
  identity.key = drain(out.get());
  return identity;
}

Result<PeerCertificate> describe_certificate(std::string_view pem) {
  VIRGA_TRY(auto certificate, parse_certificate(pem));
  return describe(certificate.get());
}

Result<std::string> certificate_common_name(std::string_view pem) {
  VIRGA_TRY(auto certificate, parse_certificate(pem));
  std::array<char, 256> text{};
  const int size = X509_NAME_get_text_by_NID(X509_get_subject_name(certificate.get()), NID_commonName, text.data(), text.size());
  return size > 0 ? std::string(text.data(), static_cast<std::size_t>(size)) : std::string();
}

Result<std::shared_ptr<boost::asio::ssl::context>> make_server_context(const Identity& identity) {
  auto context = std::make_shared<boost::asio::ssl::context>(boost::asio::ssl::context::tls_server);
  auto* raw = context->native_handle();
  restrict_versions(raw);
  VIRGA_CHECK(use_identity(raw, identity));
  // A certificate is asked for, and every one is accepted here: who is trusted is looked up by fingerprint for each request.
  SSL_CTX_set_verify(raw, SSL_VERIFY_PEER, accept_any);
  // No resumption: a certificate that was revoked must not come back with an old ticket.
  SSL_CTX_set_session_cache_mode(raw, SSL_SESS_CACHE_OFF);
  SSL_CTX_set_num_tickets(raw, 0);
  SSL_CTX_set_alpn_select_cb(raw, choose_protocol, nullptr);
  return context;
}

Result<std::shared_ptr<boost::asio::ssl::context>> make_client_context(const Endpoint& endpoint) {
  auto context = std::make_shared<boost::asio::ssl::context>(boost::asio::ssl::context::tls_client);
  auto* raw = context->native_handle();
  restrict_versions(raw);
  if (endpoint.identity) VIRGA_CHECK(use_identity(raw, *endpoint.identity));
  const bool pinned = !endpoint.server_fingerprint.empty() || endpoint.accept_any_server;
  // Public servers, whose certificates authorities have signed, may be older than ours.
  if (!pinned) SSL_CTX_set_min_proto_version(raw, TLS1_2_VERSION);
  if (!pinned) SSL_CTX_set_default_verify_paths(raw);
  SSL_CTX_set_verify(raw, pinned ? SSL_VERIFY_NONE : SSL_VERIFY_PEER, nullptr);
  return context;
}

}  // namespace virga::http
