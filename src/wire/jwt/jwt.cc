#include "wire/jwt/jwt.h"

#include <openssl/bio.h>
#include <openssl/core_names.h>
#include <openssl/ecdsa.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>

#include <chrono>
#include <memory>
#include <optional>

#include "base/free_with.h"
#include "base/json.h"

namespace virga::jwt {
namespace {

using Key = std::unique_ptr<EVP_PKEY, FreeWith<EVP_PKEY_free>>;
using Bio = std::unique_ptr<BIO, FreeWith<BIO_free_all>>;
using Context = std::unique_ptr<EVP_MD_CTX, FreeWith<EVP_MD_CTX_free>>;

constexpr std::size_t max_token = 8192;
constexpr std::string_view alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

std::string encode(std::string_view bytes) {
  std::string out;
  for (std::size_t i = 0; i < bytes.size(); i += 3) {
    std::uint32_t group = 0;
    for (std::size_t k = 0; k < 3; ++k) group = group << 8 | (i + k < bytes.size() ? static_cast<unsigned char>(bytes[i + k]) : 0u);
    for (std::size_t k = 0; k < 4 && i + k <= bytes.size(); ++k) out += alphabet[group >> (18 - 6 * k) & 63];
  }
  return out;
}

std::optional<std::string> decode(std::string_view text) {
  if (text.size() % 4 == 1) return std::nullopt;
  std::string out;
  std::uint32_t group = 0;
  unsigned bits = 0;
  for (const char c : text) {
    const auto value = alphabet.find(c);
    if (value == std::string_view::npos) return std::nullopt;
    group = group << 6 | static_cast<std::uint32_t>(value);
    bits += 6;
    if (bits >= 8) {
      bits -= 8;
      out += static_cast<char>(group >> bits & 0xff);
    }
  }
  if ((group & ((1u << bits) - 1)) != 0) return std::nullopt;  // one token, one spelling
  return out;
}

/// What a key signs with; there is exactly one for each.
struct Algorithm {
  std::string_view name;
  const EVP_MD* digest;     ///< null: the key hashes by itself
  std::size_t number_size;  ///< of each half of an ECDSA signature; 0: another kind
};

std::optional<Algorithm> algorithm_of(const EVP_PKEY* key) {
  switch (EVP_PKEY_get_base_id(key)) {
    case EVP_PKEY_RSA:
      return Algorithm{"RS256", EVP_sha256(), 0};
    case EVP_PKEY_ED25519:
      return Algorithm{"EdDSA", nullptr, 0};
    case EVP_PKEY_EC:
      switch (EVP_PKEY_get_bits(key)) {
        case 256:
          return Algorithm{"ES256", EVP_sha256(), 32};
        case 384:
          return Algorithm{"ES384", EVP_sha384(), 48};
        case 521:
          return Algorithm{"ES512", EVP_sha512(), 66};
        default:
          return std::nullopt;
      }
    default:
      return std::nullopt;
  }
}

Bio memory(std::string_view text) {
  return Bio(BIO_new_mem_buf(text.data(), static_cast<int>(text.size())));
}

/// ECDSA signatures stand in tokens as two numbers of fixed length, in OpenSSL as DER.
std::optional<std::string> to_numbers(std::string_view der, std::size_t size) {
  const auto* at = reinterpret_cast<const unsigned char*>(der.data());
  std::unique_ptr<ECDSA_SIG, FreeWith<ECDSA_SIG_free>> signature(d2i_ECDSA_SIG(nullptr, &at, static_cast<long>(der.size())));
  if (!signature) return std::nullopt;
  std::string out(2 * size, '\0');
  auto* bytes = reinterpret_cast<unsigned char*>(out.data());
  const auto length = static_cast<int>(size);
  if (BN_bn2binpad(ECDSA_SIG_get0_r(signature.get()), bytes, length) != length ||
      BN_bn2binpad(ECDSA_SIG_get0_s(signature.get()), bytes + size, length) != length)
    return std::nullopt;
  return out;
}

std::optional<std::string> to_der(std::string_view numbers, std::size_t size) {
  if (numbers.size() != 2 * size) return std::nullopt;
  const auto* bytes = reinterpret_cast<const unsigned char*>(numbers.data());
  std::unique_ptr<ECDSA_SIG, FreeWith<ECDSA_SIG_free>> signature(ECDSA_SIG_new());
  auto* r = BN_bin2bn(bytes, static_cast<int>(size), nullptr);
  auto* s = BN_bin2bn(bytes + size, static_cast<int>(size), nullptr);
  if (ECDSA_SIG_set0(signature.get(), r, s) != 1) return std::nullopt;
  unsigned char* der = nullptr;
  const int length = i2d_ECDSA_SIG(signature.get(), &der);
  if (length <= 0) return std::nullopt;
  std::string out(reinterpret_cast<char*>(der), static_cast<std::size_t>(length));
  OPENSSL_free(der);
  return out;
}

std::int64_t seconds_of(WallTime time) {
  return std::chrono::duration_cast<std::chrono::seconds>(time.time_since_epoch()).count();
}

struct Parts {
  std::string_view signed_text;
  json::object header, claims;
  std::string signature;
};

std::optional<Parts> take_apart(std::string_view token) {
  if (token.size() > max_token) return std::nullopt;
  const auto first = token.find('.');
  const auto last = token.rfind('.');
  if (first == std::string_view::npos || last == first || token.find('.', first + 1) != last) return std::nullopt;
  const auto header = decode(token.substr(0, first)), claims = decode(token.substr(first + 1, last - first - 1));
  auto signature = decode(token.substr(last + 1));
  if (!header || !claims || !signature) return std::nullopt;
  auto head = parse_json_object(*header), body = parse_json_object(*claims);
  if (!head || !body) return std::nullopt;
  return Parts{token.substr(0, last), std::move(*head), std::move(*body), std::move(*signature)};
}

bool signature_fits(const Parts& parts, EVP_PKEY* key) {
  const auto algorithm = algorithm_of(key);
  if (!algorithm || Fields(parts.header).string("alg").value_or("") != algorithm->name) return false;
  if (parts.header.contains("crit")) return false;  // it asks for something we do not know
  auto signature = std::optional(parts.signature);
  if (algorithm->number_size != 0) signature = to_der(parts.signature, algorithm->number_size);
  const Context context(EVP_MD_CTX_new());
  if (!signature || EVP_DigestVerifyInit(context.get(), nullptr, algorithm->digest, nullptr, key) != 1) return false;
  const auto* bytes = reinterpret_cast<const unsigned char*>(signature->data());
  const auto* text = reinterpret_cast<const unsigned char*>(parts.signed_text.data());
  return EVP_DigestVerify(context.get(), bytes, signature->size(), text, parts.signed_text.size()) == 1;
}

/// A time that is absent is absent; a token without an end is refused elsewhere. Numbers with a fraction are no times of ours.
std::optional<WallTime> time_in(const json::object& claims, std::string_view name) {
  const auto value = Fields(claims).integer(name, 0);
  if (!value || *value < 0 || *value > 9'000'000'000) return std::nullopt;
  return WallTime(std::chrono::seconds(*value));
}

tl::unexpected<Error> refused() {
  ERR_clear_error();
  return fail(ErrorKind::denied, "the bearer token is not valid");
}

}  // namespace

Result<std::string> sign(const Claims& claims, std::string_view private_key_pem) {
  const Bio bio = memory(private_key_pem);
  const Key key(PEM_read_bio_PrivateKey(bio.get(), nullptr, nullptr, nullptr));
  const auto algorithm = key ? algorithm_of(key.get()) : std::nullopt;
  if (!algorithm) return fail(ErrorKind::invalid, "this key cannot sign a token");
  const auto text = encode(json::serialize(json::object{{"alg", algorithm->name}, {"typ", "JWT"}})) + "." +
                    encode(json::serialize(json::object{{"sub", claims.subject},
                                                        {"iat", seconds_of(claims.issued_at)},
                                                        {"nbf", seconds_of(claims.not_before)},
                                                        {"exp", seconds_of(claims.expires_at)}}));
  const Context context(EVP_MD_CTX_new());
  const auto* bytes = reinterpret_cast<const unsigned char*>(text.data());
  std::size_t size = 0;
  if (EVP_DigestSignInit(context.get(), nullptr, algorithm->digest, nullptr, key.get()) != 1 ||
      EVP_DigestSign(context.get(), nullptr, &size, bytes, text.size()) != 1)
    return fail(ErrorKind::internal, "cannot sign a token");
  std::string signature(size, '\0');
  if (EVP_DigestSign(context.get(), reinterpret_cast<unsigned char*>(signature.data()), &size, bytes, text.size()) != 1)
    return fail(ErrorKind::internal, "cannot sign a token");
  signature.resize(size);
  if (algorithm->number_size != 0) {
    auto numbers = to_numbers(signature, algorithm->number_size);
    if (!numbers) return fail(ErrorKind::internal, "cannot sign a token");
    signature = std::move(*numbers);
  }
  return text + "." + encode(signature);
}

Result<std::string> unverified_subject(std::string_view token) {
  const auto parts = take_apart(token);
  const auto subject = parts ? Fields(parts->claims).string("sub").value_or("") : std::string();
  if (subject.empty()) return fail(ErrorKind::invalid, "this is not a bearer token");
  return subject;
}

Result<Claims> verify(std::string_view token, std::string_view certificate_pem, WallTime now) {
  const auto parts = take_apart(token);
  if (!parts) return refused();
  const Bio bio = memory(certificate_pem);
  const std::unique_ptr<X509, FreeWith<X509_free>> certificate(PEM_read_bio_X509(bio.get(), nullptr, nullptr, nullptr));
  EVP_PKEY* key = certificate ? X509_get0_pubkey(certificate.get()) : nullptr;
  if (key == nullptr || !signature_fits(*parts, key)) return refused();
  Claims out;
  out.subject = Fields(parts->claims).string("sub").value_or("");
  const auto issued = time_in(parts->claims, "iat"), from = time_in(parts->claims, "nbf"), until = time_in(parts->claims, "exp");
  if (out.subject.empty() || !issued || !from || !until) return refused();
  out.issued_at = *issued;
  out.not_before = *from;
  out.expires_at = *until;
  // A token without an end (0) has ended.
  if (now >= out.expires_at || now < out.not_before) return refused();
  return out;
}

}  // namespace virga::jwt
