#include "engine/certificates/x509.h"

#include <openssl/asn1.h>
#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>

#include <ctime>
#include <memory>

#include "base/free_with.h"
#include "base/random.h"
#include "base/unix_time.h"
#include "model/certificate.h"

namespace virga::engine {
namespace {

using X509Ptr = std::unique_ptr<X509, FreeWith<X509_free>>;
using BioPtr = std::unique_ptr<BIO, FreeWith<BIO_free_all>>;

constexpr std::size_t max_text = 64u << 10;

tl::unexpected<Error> not_a_certificate() {
  ERR_clear_error();
  return invalid("certificate", "this is not an X.509 certificate in PEM form or as base64 of DER");
}

X509Ptr read_der(std::string_view der) {
  const auto* at = reinterpret_cast<const unsigned char*>(der.data());
  const auto* const end = at + der.size();
  X509Ptr x509(d2i_X509(nullptr, &at, static_cast<long>(der.size())));
  if (at != end) x509.reset();
  return x509;
}

Result<WallTime> time_of(const ASN1_TIME* time) {
  std::tm tm{};
  if (ASN1_TIME_to_tm(time, &tm) != 1) return invalid("certificate", "the certificate's dates cannot be read");
  return time_of_unix(::timegm(&tm));  // "for ever" is written as the year 9999
}

}  // namespace

Result<ParsedCertificate> parse_certificate(std::string_view text) {
  if (text.size() > max_text) return invalid("certificate", "a certificate is not that large");
  constexpr std::string_view begin = "-----BEGIN CERTIFICATE-----", end = "-----END CERTIFICATE-----";
  std::string_view body = text;
  if (const auto at = text.find(begin); at != std::string_view::npos) {
    const auto stop = text.find(end, at);
    if (stop == std::string_view::npos) return not_a_certificate();
    if (text.find(begin, at + 1) != std::string_view::npos) return invalid("certificate", "send one certificate, not a chain");
    body = text.substr(at + begin.size(), stop - at - begin.size());
  }
  const auto der = base64_decode(body);
  if (!der || der->empty()) return not_a_certificate();
  const X509Ptr x509 = read_der(*der);
  if (!x509) return not_a_certificate();

  ParsedCertificate out;
  out.fingerprint = sha256_hex(*der);
  VIRGA_TRY(out.not_before, time_of(X509_get0_notBefore(x509.get())));
  VIRGA_TRY(out.not_after, time_of(X509_get0_notAfter(x509.get())));
  const EVP_PKEY* key = X509_get0_pubkey(x509.get());
  if (key == nullptr) return not_a_certificate();
  if (EVP_PKEY_get_security_bits(key) < 112)
    return invalid("certificate", "the certificate's key is too weak: use RSA with 2048 bits or more, or an elliptic curve");

  // Without the extension a certificate is for any use.
  if ((X509_get_extension_flags(x509.get()) & EXFLAG_INVALID) != 0) return not_a_certificate();
  if ((X509_get_extension_flags(x509.get()) & EXFLAG_XKUSAGE) != 0)
    out.for_clients = (X509_get_extended_key_usage(x509.get()) & (XKU_SSL_CLIENT | XKU_ANYEKU)) != 0;

  char name[256] = {};
  if (X509_NAME_get_text_by_NID(X509_get_subject_name(x509.get()), NID_commonName, name, sizeof name) > 0) {
    for (const char c : std::string_view(name)) out.common_name += static_cast<unsigned char>(c) < 0x20 || c == 0x7f ? '?' : c;
  }
  const BioPtr bio(BIO_new(BIO_s_mem()));
  if (!bio || PEM_write_bio_X509(bio.get(), x509.get()) != 1) return fail(ErrorKind::internal, "cannot write a certificate");
  char* data = nullptr;
  const long size = BIO_get_mem_data(bio.get(), &data);
  out.pem.assign(data, static_cast<std::size_t>(size));
  return out;
}

}  // namespace virga::engine
