#include "engine/certificates/service.h"

#include <algorithm>

#include "base/random.h"
#include "engine/certificates/x509.h"
#include "engine/url.h"

namespace virga::engine {
namespace {

constexpr auto token_lifetime = std::chrono::hours(24);
constexpr std::size_t max_tokens = 1000;

std::string certificate_key(std::string_view fingerprint) {
  return "/certificates/" + std::string(fingerprint);
}

/// Who can read the store must not be able to use the tokens in it.
std::string token_key(std::string_view secret) {
  return "/tokens/" + sha256_hex(secret);
}

tl::unexpected<Error> bad_token() {
  return fail(ErrorKind::denied, "this token is not valid: it was used, withdrawn or has expired");
}

}  // namespace

Certificates::Certificates(Executor executor, Store& store, Events& events, Operations& operations, const Clock& clock)
    : executor_(executor),
      store_(store),
      events_(events),
      operations_(operations),
      clock_(clock),
      cache_(store, "/certificates/", decode_certificate),
      tokens_(store, "/tokens/", decode_token_row),
      tokens_changed_(executor) {
  tokens_.on_change([this](const std::string&, const auto&, const auto&) { tokens_changed_.notify(); });
}

json::object Certificates::encode(const Token& t) {
  return {{"name", t.name},
          {"description", t.description},
          {"type", t.type},
          {"restricted", t.restricted},
          {"projects", to_json(t.projects)},
          {"expires_at", format_time(t.expires_at)}};
}

Result<Certificates::Token> Certificates::decode_token_row(const json::object& document) {
  const Fields f(document);
  Token t;
  VIRGA_TRY(t.name, f.string("name"));
  VIRGA_TRY(t.description, f.string("description"));
  VIRGA_TRY(t.type, f.string("type", "client"));
  VIRGA_TRY(t.restricted, f.boolean("restricted"));
  VIRGA_TRY(t.projects, f.strings("projects"));
  VIRGA_TRY(const std::string expires, f.string("expires_at"));
  VIRGA_TRY(t.expires_at, parse_time(expires));
  return t;
}

Task<Result<>> Certificates::start() {
  VIRGA_CO_CHECK(co_await cache_.load());
  VIRGA_CO_CHECK(co_await tokens_.load());
  auto rows = co_await store_.list("/tokens/");
  if (!rows) co_return fail(std::move(rows).error());
  for (const auto& row : *rows) {
    auto token = tokens_.find(row.key);
    if (!token) continue;
    // Its secret is known to nobody here any more; the operation is there to be listed and cancelled.
    auto op = start_token_operation(row.key, *token, "", internal_caller());
    if (!op) co_return fail(std::move(op).error());
  }
  co_return Result<>();
}

CertificatePtr Certificates::trusted(std::string_view fingerprint) const {
  auto certificate = cache_.find(certificate_key(fingerprint));
  const auto now = clock_.now();
  if (!certificate || now < certificate->not_before || now > certificate->not_after) return nullptr;
  return certificate;
}

Result<CertificatePtr> Certificates::get(std::string_view fingerprint_prefix) const {
  const bool plausible = !fingerprint_prefix.empty() && fingerprint_prefix.size() <= 64;
  const auto found = plausible ? cache_.list(certificate_key(fingerprint_prefix)) : std::vector<CertificatePtr>();
  if (found.empty()) return fail(ErrorKind::not_found, "no certificate '" + std::string(fingerprint_prefix.substr(0, 64)) + "'");
  if (found.size() > 1)
    return invalid("fingerprint", "more than one certificate begins with '" + std::string(fingerprint_prefix) + "'");
  return found.front();
}

std::vector<CertificatePtr> Certificates::list() const {
  return cache_.list();
}

Result<> Certificates::take_certificate(Certificate& into, std::string_view text, std::string* common_name) const {
  VIRGA_TRY(ParsedCertificate parsed, parse_certificate(text));
  if (!parsed.for_clients)
    return fail(Error(ErrorKind::invalid, "the certificate is not one of a client: its extended key usage names other uses only")
                    .with_field("certificate")
                    .with_hint("make one with the extended key usage clientAuth, or with none"));
  if (clock_.now() > parsed.not_after) return invalid("certificate", "the certificate has expired");
  if (clock_.now() < parsed.not_before)
    return invalid("certificate", "the certificate is not valid before " + format_time(parsed.not_before));
  into.fingerprint = std::move(parsed.fingerprint);
  into.certificate = std::move(parsed.pem);
  into.not_before = parsed.not_before;
  into.not_after = parsed.not_after;
  if (common_name != nullptr) *common_name = std::move(parsed.common_name);
  return {};
}

Result<Certificate> Certificates::make(const Request& request) const {
  Certificate c;
  std::string common_name;
  VIRGA_CHECK(take_certificate(c, request.certificate, &common_name));
  c.name = !request.name.empty() ? request.name : !common_name.empty() ? common_name : c.fingerprint.substr(0, 12);
  c.description = request.description;
  c.type = request.type;
  c.restricted = request.restricted;
  c.projects = request.projects;
  VIRGA_CHECK(check(c));
  return c;
}

Task<Result<CertificatePtr>> Certificates::commit_new(Certificate c, Transaction t, Caller caller) {
  const std::string key = certificate_key(c.fingerprint);
  t.expect(key, 0).put(key, json::serialize(virga::encode(c)));
  auto revision = co_await store_.commit(std::move(t));
  if (!revision) co_return fail(std::move(revision).error());
  events_.lifecycle("certificate-created", "", certificate_url(c.fingerprint), caller);
  co_return cache_.find(key);
}

Task<Result<CertificatePtr>> Certificates::add(Request request, Caller caller) {
  VIRGA_CO_TRY(Certificate c, make(request));
  const std::string fingerprint = c.fingerprint;
  if (cache_.find(certificate_key(fingerprint)))
    co_return fail(ErrorKind::exists, "certificate '" + fingerprint + "' is trusted already");
  auto made = co_await commit_new(std::move(c), Transaction(), std::move(caller));
  if (!made && made.error().kind() == ErrorKind::conflict)
    co_return fail(ErrorKind::exists, "certificate '" + fingerprint + "' is trusted already");
  co_return made;
}

Task<Result<OperationPtr>> Certificates::create_token(Request request, Caller caller) {
  Certificate like;
  like.name = request.name;
  like.description = request.description;
  like.type = request.type;
  like.restricted = request.restricted;
  like.projects = request.projects;
  VIRGA_CO_CHECK(check(like));
  if (tokens_.size() >= max_tokens) {
    Error e(ErrorKind::unavailable, "there are too many tokens that nobody has used");
    co_return fail(std::move(e).with_hint("withdraw some with 'virga config trust revoke-token'"));
  }
  Token token;
  token.name = request.name;
  token.description = request.description;
  token.type = request.type;
  token.restricted = request.restricted;
  token.projects = request.projects;
  token.expires_at = token_expiry_ ? token_expiry_(clock_.now()) : clock_.now() + token_lifetime;
  std::string secret = random_hex(32);
  const std::string key = token_key(secret);
  Transaction t;
  t.expect(key, 0).put(key, json::serialize(encode(token)));
  auto revision = co_await store_.commit(std::move(t));
  if (!revision) co_return fail(std::move(revision).error());
  events_.lifecycle("certificate-token-created", "", url({"certificates"}), caller);
  co_return start_token_operation(key, token, std::move(secret), std::move(caller));
}

Result<OperationPtr> Certificates::start_token_operation(const std::string& key, const Token& token, std::string secret,
                                                         Caller caller) {
  const ServerInfo info = server_info_ ? server_info_() : ServerInfo();
  OperationSpec spec;
  spec.op_class = OperationClass::token;
  spec.description = "Certificate add token";
  spec.may_cancel = true;
  spec.caller = std::move(caller);
  // The names are those that the incus client looks for.
  spec.metadata = {
      {"request",
       {{"name", token.name}, {"type", token.type}, {"restricted", token.restricted}, {"projects", to_json(token.projects)}}},
      {"fingerprint", info.fingerprint},
      {"addresses", to_json(info.addresses)},
      {"expiresAt", format_time(token.expires_at)},
      {"secret", ""}};
  if (!secret.empty()) spec.secret_metadata = {{"secret", std::move(secret)}};
  return operations_.start(std::move(spec), [this, key](Operation& op) { return watch_token(key, op); });
}

Task<Result<>> Certificates::watch_token(std::string key, Operation&) {
  while (auto token = tokens_.find(key)) {
    const auto left = std::chrono::duration_cast<Milliseconds>(token->expires_at - clock_.now());
    const bool cancelled = co_await is_cancelled();
    if (cancelled && operations_.stopping()) co_return fail(ErrorKind::cancelled, "the daemon is shutting down; the token stays");
    if (cancelled || left <= Milliseconds(0)) {
      co_await shield();
      Transaction t;
      t.expect(key, token->revision).erase(key);
      auto revision = co_await store_.commit(std::move(t));
      if (!revision && revision.error().kind() != ErrorKind::conflict) co_return fail(std::move(revision).error());
      co_return fail(cancelled ? ErrorKind::cancelled : ErrorKind::timeout,
                     cancelled ? "the token was withdrawn" : "the token has expired");
    }
    // The wall clock may jump: look at least once a minute.
    co_await tokens_changed_.wait_for(std::min(left, Milliseconds(60'000)));
  }
  co_return Result<>();
}

Task<Result<CertificatePtr>> Certificates::add_by_token(std::string text, std::string certificate, Caller caller) {
  const auto shown = decode_token(text);
  if (!shown) co_return bad_token();
  const std::string key = token_key(shown->secret);
  const auto token = tokens_.find(key);
  if (!token || clock_.now() >= token->expires_at) co_return bad_token();
  Request request;
  request.name = token->name;
  request.description = token->description;
  request.type = token->type;
  request.restricted = token->restricted;
  request.projects = token->projects;
  request.certificate = std::move(certificate);
  VIRGA_CO_TRY(Certificate c, make(request));
  const std::string fingerprint = c.fingerprint;
  if (cache_.find(certificate_key(fingerprint)))
    co_return fail(ErrorKind::exists, "certificate '" + fingerprint + "' is trusted already");
  Transaction t;
  t.expect(key, token->revision).erase(key);
  auto made = co_await commit_new(std::move(c), std::move(t), std::move(caller));
  if (!made && made.error().kind() == ErrorKind::conflict) {
    if (tokens_.find(key)) co_return fail(ErrorKind::exists, "certificate '" + fingerprint + "' is trusted already");
    co_return bad_token();
  }
  co_return made;
}

void Certificates::withdraw(const std::string& fingerprint) {
  if (on_removed_) on_removed_(fingerprint);
  // Sessions that nobody has joined yet, too.
  operations_.end_sessions(fingerprint);
}

Task<Result<CertificatePtr>> Certificates::update(std::string fingerprint, Update update, std::optional<Revision> expected,
                                                  Caller caller) {
  VIRGA_CO_TRY(const CertificatePtr old, get(fingerprint));
  Certificate next = *old;
  next.name = std::move(update.name);
  next.description = std::move(update.description);
  next.type = std::move(update.type);
  next.restricted = update.restricted;
  next.projects = std::move(update.projects);
  if (!update.certificate.empty()) VIRGA_CO_CHECK(take_certificate(next, update.certificate));
  VIRGA_CO_CHECK(check(next));
  const bool renewed = next.fingerprint != old->fingerprint;
  const std::string old_key = certificate_key(old->fingerprint), key = certificate_key(next.fingerprint);
  const auto taken = [&] { return fail(ErrorKind::exists, "certificate '" + next.fingerprint + "' is trusted already"); };
  if (renewed && cache_.find(key)) co_return taken();
  Transaction t;
  t.expect(old_key, expected.value_or(old->revision));
  if (renewed) t.erase(old_key).expect(key, 0);
  t.put(key, json::serialize(virga::encode(next)));
  auto revision = co_await store_.commit(std::move(t));
  if (!revision) {
    if (renewed && revision.error().kind() == ErrorKind::conflict && cache_.find(key)) co_return taken();
    co_return fail(std::move(revision).error());
  }
  // What is open was opened with the old rights.
  if (renewed || old->type != next.type || old->restricted != next.restricted || old->projects != next.projects)
    withdraw(old->fingerprint);
  events_.lifecycle("certificate-updated", "", certificate_url(next.fingerprint), caller);
  co_return cache_.find(key);
}

Task<Result<>> Certificates::remove(std::string fingerprint, Caller caller) {
  VIRGA_CO_TRY(const CertificatePtr old, get(fingerprint));
  Transaction t;
  t.erase(certificate_key(old->fingerprint));
  auto revision = co_await store_.commit(std::move(t));
  if (!revision) co_return fail(std::move(revision).error());
  withdraw(old->fingerprint);
  events_.lifecycle("certificate-deleted", "", certificate_url(old->fingerprint), caller);
  co_return Result<>();
}

void Certificates::project_moved(const std::string& name, const std::string& new_name, Transaction& transaction) const {
  const auto follow = [&](std::vector<std::string>& projects) {
    const auto at = std::find(projects.begin(), projects.end(), name);
    if (at == projects.end()) return false;
    if (new_name.empty()) {
      projects.erase(at);
    } else {
      *at = new_name;
    }
    return true;
  };
  for (const auto& certificate : cache_.list()) {
    Certificate next = *certificate;
    if (!follow(next.projects)) continue;
    const auto key = certificate_key(next.fingerprint);
    transaction.expect(key, certificate->revision).put(key, json::serialize(virga::encode(next)));
  }
  for (const auto& [key, token] : tokens_.entries()) {
    Token next = *token;
    if (!follow(next.projects)) continue;
    transaction.expect(key, token->revision).put(key, json::serialize(encode(next)));
  }
}

}  // namespace virga::engine
