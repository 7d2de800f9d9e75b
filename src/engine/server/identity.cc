#include "engine/server/identity.h"

#include <openssl/bio.h>
#include <openssl/ec.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>

#include <array>
#include <memory>

#include "base/free_with.h"
#include "base/random.h"
#include "model/name.h"

namespace virga::engine {
namespace {

using Key = std::unique_ptr<EVP_PKEY, FreeWith<EVP_PKEY_free>>;
using Cert = std::unique_ptr<X509, FreeWith<X509_free>>;
using Bio = std::unique_ptr<BIO, FreeWith<BIO_free_all>>;
using Extension = std::unique_ptr<X509_EXTENSION, FreeWith<X509_EXTENSION_free>>;
using Number = std::unique_ptr<BIGNUM, FreeWith<BN_free>>;

tl::unexpected<Error> failed(const char* doing) {
  char text[256] = "no reason given";
  if (const unsigned long code = ERR_get_error(); code != 0) ERR_error_string_n(code, text, sizeof text);
  ERR_clear_error();
  return fail(ErrorKind::internal, std::string(doing) + ": " + text);
}

bool add_extension(X509* x509, int nid, const std::string& value) {
  X509V3_CTX context;
  X509V3_set_ctx_nodb(&context);
  X509V3_set_ctx(&context, x509, x509, nullptr, nullptr, 0);
  const Extension extension(X509V3_EXT_conf_nid(nullptr, &context, nid, value.c_str()));
  return extension && X509_add_ext(x509, extension.get(), -1) == 1;
}

bool set_serial(X509* x509) {
  std::array<unsigned char, 16> bytes{};
  if (RAND_bytes(bytes.data(), static_cast<int>(bytes.size())) != 1) return false;
  bytes[0] &= 0x7f;
  const Number number(BN_bin2bn(bytes.data(), static_cast<int>(bytes.size()), nullptr));
  return number && BN_to_ASN1_INTEGER(number.get(), X509_get_serialNumber(x509)) != nullptr;
}

bool add_name(X509_NAME* name, const char* part, const std::string& value) {
  const auto* bytes = reinterpret_cast<const unsigned char*>(value.data());
  return X509_NAME_add_entry_by_txt(name, part, MBSTRING_UTF8, bytes, static_cast<int>(value.size()), -1, 0) == 1;
}

std::string contents(BIO* bio) {
  char* data = nullptr;
  const long size = BIO_get_mem_data(bio, &data);
  return {data, static_cast<std::size_t>(size)};
}

bool proper_host_name(std::string_view name) {
  if (name.empty() || name.size() > 64) return false;
  for (const char c : name) {
    const bool ok = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '.';
    if (!ok) return false;
  }
  return true;
}

}  // namespace

Result<Identity> make_identity(std::string_view host_name, WallTime now) {
  // The name goes into OpenSSL's extension syntax: nothing but letters, digits, dashes and dots may get there.
  const std::string host = proper_host_name(host_name) ? std::string(host_name) : "localhost";
  const Key key(EVP_EC_gen("P-384"));
  const Cert x509(X509_new());
  if (!key || !x509) return failed("make a key");
  const std::time_t from = std::chrono::system_clock::to_time_t(now - std::chrono::hours(1));
  const std::time_t until = std::chrono::system_clock::to_time_t(now + std::chrono::hours(24 * 3650));
  X509_NAME* name = X509_get_subject_name(x509.get());
  const bool built = X509_set_version(x509.get(), X509_VERSION_3) == 1 && set_serial(x509.get()) &&
                     ASN1_TIME_set(X509_getm_notBefore(x509.get()), from) != nullptr &&
                     ASN1_TIME_set(X509_getm_notAfter(x509.get()), until) != nullptr &&
                     X509_set_pubkey(x509.get(), key.get()) == 1 && add_name(name, "O", "virga") &&
                     add_name(name, "CN", "root@" + host.substr(0, 59)) && X509_set_issuer_name(x509.get(), name) == 1 &&
                     add_extension(x509.get(), NID_basic_constraints, "critical,CA:FALSE") &&
                     add_extension(x509.get(), NID_key_usage, "critical,digitalSignature") &&
                     add_extension(x509.get(), NID_ext_key_usage, "serverAuth") &&
                     add_extension(x509.get(), NID_subject_alt_name, "DNS:" + host + ",IP:127.0.0.1,IP:::1");
  if (!built) return failed("make a certificate");
  if (X509_sign(x509.get(), key.get(), EVP_sha384()) == 0) return failed("sign a certificate");

  Identity out;
  out.uuid = random_uuid();
  const Bio certificate(BIO_new(BIO_s_mem())), secret(BIO_new(BIO_s_mem()));
  if (PEM_write_bio_X509(certificate.get(), x509.get()) != 1 ||
      PEM_write_bio_PKCS8PrivateKey(secret.get(), key.get(), nullptr, nullptr, 0, nullptr, nullptr) != 1)
    return failed("write a certificate");
  out.certificate = contents(certificate.get());
  out.key = contents(secret.get());
  unsigned char* der = nullptr;
  const int size = i2d_X509(x509.get(), &der);
  if (size <= 0) return failed("write a certificate");
  out.fingerprint = sha256_hex({reinterpret_cast<const char*>(der), static_cast<std::size_t>(size)});
  OPENSSL_free(der);
  return out;
}

json::object encode(const Identity& i) {
  return {{"uuid", i.uuid}, {"certificate", i.certificate}, {"key", i.key}, {"fingerprint", i.fingerprint}};
}

Result<Identity> decode_identity(const json::object& document) {
  const Fields f(document);
  Identity i;
  VIRGA_TRY(i.uuid, f.string("uuid"));
  VIRGA_TRY(i.certificate, f.string("certificate"));
  VIRGA_TRY(i.key, f.string("key"));
  VIRGA_TRY(i.fingerprint, f.string("fingerprint"));
  return i;
}

}  // namespace virga::engine
