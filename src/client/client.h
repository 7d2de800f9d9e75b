// The API as the command line (and later peer nodes) call it: envelopes opened, errors as values, operations awaited. One request
// at a time; waiting for an operation with progress opens a second connection. Event loop only.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/json.h"
#include "base/task.h"
#include "client/answer.h"
#include "wire/http/client.h"

namespace virga::client {

struct Call {
  std::string method = "GET";
  std::string target = {};  ///< from Url::text()
  std::optional<json::value> body = {};
  std::string if_match = {};  ///< an ETag: the object must not have changed since
};

struct Upload {
  std::string target;
  std::vector<std::pair<std::string, std::string>> headers;
  /// Fills the buffer, returns the bytes, 0 at the end.
  std::function<Result<std::size_t>(std::span<char>)> read;
  std::optional<std::uint64_t> length;
};

using OperationWatcher = std::function<void(const json::object& operation)>;

class Client {
 public:
  explicit Client(http::Endpoint endpoint) : endpoint_(endpoint), http_(std::move(endpoint)) {}

  /// Errors: unavailable (nobody listens), denied (the socket's permissions), timeout.
  Task<Result<>> connect();
  /// Errors: those of connect() and open_envelope().
  Task<Result<Answer>> call(Call call);
  Task<Result<Answer>> upload(Upload upload);
  /// Streams a body that is not an envelope; returns the answer's headers. Errors: the server's, and what `sink` returned.
  Task<Result<http::ClientResponse>> download(std::string target, std::function<Result<>(std::string_view)> sink);
  /// The answer as it came, whatever its status.
  Task<Result<http::ClientResponse>> raw(std::string method, std::string target, std::string body);
  Task<Result<std::unique_ptr<http::WebSocket>>> websocket(std::string target);
  /// A connection of its own that becomes a plain stream of bytes of that protocol.
  Task<Result<std::unique_ptr<ByteStream>>> upgrade(std::string target, std::string protocol);

  /// Waits until the operation has ended and returns it as it is then; look at outcome(). `watcher`, where given, sees it about
  /// five times a second meanwhile. Errors: those of call(); cancelled (the waiting was, the operation goes on).
  Task<Result<json::object>> wait(std::string operation, OperationWatcher watcher = {});
  /// Asks the server to cancel it. Errors: invalid (it cannot be cancelled), not_found.
  Task<Result<>> cancel(std::string operation);

  const http::Endpoint& endpoint() const noexcept { return endpoint_; }

 private:
  Task<> watch(std::string operation, OperationWatcher watcher);
  http::Endpoint endpoint_;
  http::Client http_;
};

}  // namespace virga::client
