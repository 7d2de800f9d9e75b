// The trust store: certificates of clients that may come in over HTTPS, and tokens with which new ones get in, once each.
// Reads are from memory; event loop only.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/task.h"
#include "engine/cache.h"
#include "engine/caller.h"
#include "engine/events/events.h"
#include "engine/operations/operations.h"
#include "model/certificate.h"
#include "store/store.h"

namespace virga::engine {

using CertificatePtr = std::shared_ptr<const Certificate>;

class Certificates {
 public:
  Certificates(Executor executor, Store& store, Events& events, Operations& operations,
               const Clock& clock = Events::system_clock());

  /// What tokens tell clients about this server: where it listens, and its certificate's fingerprint.
  struct ServerInfo {
    std::string fingerprint;
    std::vector<std::string> addresses;
  };
  void set_server_info(std::function<ServerInfo()> info) { server_info_ = std::move(info); }
  /// How long a new token is good, from a moment on; a day where nothing is set.
  void set_token_expiry(std::function<WallTime(WallTime now)> expiry) { token_expiry_ = std::move(expiry); }
  /// Called when a certificate is trusted no more, or for less, so that its connections can be closed.
  void on_removed(std::function<void(const std::string& fingerprint)> hook) { on_removed_ = std::move(hook); }

  /// Loads all, and makes the operations of the tokens that are still open.
  Task<Result<>> start();

  /// The certificate with exactly this fingerprint, if it is trusted now: null when it is unknown, expired or not yet valid.
  CertificatePtr trusted(std::string_view fingerprint) const;
  /// By the beginning of a fingerprint. Errors: not_found, invalid (ambiguous).
  Result<CertificatePtr> get(std::string_view fingerprint_prefix) const;
  std::vector<CertificatePtr> list() const;

  struct Request {
    std::string name;  ///< empty: the subject's common name
    std::string description;
    std::string type = "client";
    bool restricted = false;
    std::vector<std::string> projects;
    std::string certificate;  ///< PEM or base64 of DER; not used for tokens
  };
  /// Errors: invalid, unsupported, exists.
  Task<Result<CertificatePtr>> add(Request request, Caller caller);
  /// Makes a token and the operation (class token) that stands for it; cancelling that withdraws the token.
  /// The secret is in Operation::to_json_for_creator(). Errors: invalid, unsupported, unavailable (too many).
  Task<Result<OperationPtr>> create_token(Request request, Caller caller);
  /// Trusts the certificate of an unknown client that shows a token. Exactly one use of a token succeeds.
  /// Errors: denied (whatever is wrong with the token), exists, invalid.
  Task<Result<CertificatePtr>> add_by_token(std::string token, std::string certificate, Caller caller);

  struct Update {
    std::string name;
    std::string description;
    std::string type = "client";
    bool restricted = false;
    std::vector<std::string> projects;
    std::string certificate;  ///< PEM or base64 of DER, which takes the place of the present one; empty: that stays
  };
  /// Errors: not_found, conflict, exists (the new certificate is trusted already), invalid, unsupported.
  Task<Result<CertificatePtr>> update(std::string fingerprint, Update update, std::optional<Revision> expected, Caller caller);
  /// Errors: not_found.
  Task<Result<>> remove(std::string fingerprint, Caller caller);
  /// A project is renamed, or removed (empty new name): who is restricted to it follows in the same transaction, so that nobody
  /// gets into a later project of that name.
  void project_moved(const std::string& name, const std::string& new_name, Transaction& transaction) const;
  WallTime now() const { return clock_.now(); }

 private:
  struct Token {
    std::string name;
    std::string description;
    std::string type = "client";
    bool restricted = false;
    std::vector<std::string> projects;
    WallTime expires_at{};
    std::int64_t revision = 0;
  };
  static json::object encode(const Token& token);
  static Result<Token> decode_token_row(const json::object& document);
  Task<Result<CertificatePtr>> commit_new(Certificate certificate, Transaction transaction, Caller caller);
  Result<OperationPtr> start_token_operation(const std::string& key, const Token& token, std::string secret, Caller caller);
  Task<Result<>> watch_token(std::string key, Operation& operation);
  /// Ends what was opened with rights that a certificate has no more.
  void withdraw(const std::string& fingerprint);
  Result<Certificate> make(const Request& request) const;
  /// Takes fingerprint, text and dates from a certificate that can be one of a client now. Errors: invalid.
  Result<> take_certificate(Certificate& into, std::string_view text, std::string* common_name = nullptr) const;

  Executor executor_;
  Store& store_;
  Events& events_;
  Operations& operations_;
  const Clock& clock_;
  Cache<Certificate> cache_;
  Cache<Token> tokens_;
  Notification tokens_changed_;
  std::function<ServerInfo()> server_info_;
  std::function<WallTime(WallTime)> token_expiry_;
  std::function<void(const std::string&)> on_removed_;
};

}  // namespace virga::engine
