// An HTTP/1.1 client over a unix socket or TLS, for the command line, for the daemon (see fetch.h) and for tests: one connection
// that is kept and opened again when the server closed it meanwhile; one request at a time. WebSockets get a connection of their
// own. Event loop only.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/task.h"
#include "model/reach.h"
#include "wire/http/message.h"
#include "wire/http/tls.h"
#include "wire/http/websocket.h"

namespace virga::http {

struct Endpoint {
  std::string unix_path;  ///< a unix socket, or
  std::string host;       ///< a host name or address with TLS
  std::uint16_t port = 8443;
  std::optional<Identity> identity;  ///< the client's certificate
  std::string server_fingerprint;    ///< the only server certificate that is accepted; empty: the system's authorities and the host
                                     ///< name decide
  bool accept_any_server = false;    ///< only to look at a certificate before it is trusted
  bool plain = false;                ///< HTTP without TLS: what comes must be verified otherwise, by a digest say
  /// Addresses that lie further inside are not connected to, whatever the host's name resolves to. Not for unix sockets.
  Reach reach = Reach::loopback;
  std::string proxy_host;  ///< an HTTP proxy that is asked to CONNECT; it looks the host's name up by itself
  std::uint16_t proxy_port = 0;
  Milliseconds connect_timeout{10'000};
};

struct ClientResponse {
  int status = 0;
  std::vector<std::pair<std::string, std::string>> headers;
  std::string body;
  /// The first value of that name without case, empty where there is none.
  std::string_view header(std::string_view name) const noexcept;
};

struct ClientRequest {
  std::string method = "GET";
  std::string target;  ///< "/1.0/instances?recursion=1", encoded
  std::vector<std::pair<std::string, std::string>> headers;
  std::string body;  ///< sent as application/json unless a Content-Type header says otherwise
  /// A streamed body instead: fills the buffer, returns the bytes, 0 at the end. May block (the command line's own files).
  std::function<Result<std::size_t>(std::span<char>)> upload;
  /// The same for the daemon, where nothing may block.
  std::function<Task<Result<std::size_t>>(std::span<char>)> produce;
  std::optional<std::uint64_t> upload_length;  ///< Content-Length of the upload; absent: chunked
  /// Where the body of a 2xx answer goes instead of ClientResponse::body.
  std::function<Result<>(std::string_view)> download;
  /// The same for the daemon: takes the body of a 2xx answer as it comes; the server is read only as fast as this goes.
  std::function<Task<Result<>>(const ClientResponse& head, Body& body)> receive;
  std::size_t max_body = 256u << 20;  ///< of an answer that is kept in memory

  bool streams_upload() const noexcept { return upload || produce; }
};

class Client {
 public:
  explicit Client(Endpoint endpoint);
  ~Client();
  Client(Client&&) noexcept;
  Client& operator=(Client&&) noexcept;

  /// Connects now, to tell early whether the server is there. Errors: unavailable (nobody listens, with the path or address),
  /// denied (the socket's permissions, or the server's certificate is not the pinned one), timeout.
  Task<Result<>> connect();
  /// Any status is a success here. A kept connection that turns out closed is opened again once. Errors: those of connect(),
  /// unavailable (the connection broke), invalid (malformed answer), cancelled, and what `upload` or `download` returned.
  Task<Result<ClientResponse>> request(ClientRequest request);
  /// Upgrades on a connection of its own. Errors: those of request(); the server's refusal as an error of the fitting kind with its
  /// text.
  Task<Result<std::unique_ptr<WebSocket>>> websocket(std::string target,
                                                     std::vector<std::pair<std::string, std::string>> headers = {});
  /// The same to a plain stream of bytes of that protocol.
  Task<Result<std::unique_ptr<ByteStream>>> upgrade(std::string target, std::string protocol);
  /// The certificate the server showed; absent over a unix socket or before connect().
  const std::optional<PeerCertificate>& server_certificate() const noexcept;
  /// Where the server lies; global behind a proxy or before connect().
  Reach peer_reach() const noexcept;
  const Endpoint& endpoint() const noexcept;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace virga::http
