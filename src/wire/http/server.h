// The HTTP/1.1 server: unix sockets (the kernel tells who is there) and TCP with TLS 1.3 (a client certificate is asked for, any is
// accepted and handed on). Strict and bounded: what two readers could read differently is refused with 400 and the connection
// closed.
//
//   listener -> connection (one task each) -> head parsed -> handler -> answer        every wait has a deadline that a sweep
//   enforces
//
// Runs on the executor it was given; everything here is called on that event loop.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "base/error.h"
#include "base/task.h"
#include "wire/http/message.h"
#include "wire/http/tls.h"
#include "wire/http/websocket.h"

namespace virga::http {

struct Limits {
  Milliseconds header_timeout{3'000};     ///< from a request's first byte to the end of its head; also for the TLS handshake
  Milliseconds idle_timeout{30'000};      ///< between requests
  Milliseconds transfer_timeout{30'000};  ///< for each 64 KiB of a body, in either direction
  std::size_t max_header = 64u << 10;
  std::size_t max_header_fields = 128;
  std::size_t max_connections = 8'192;       ///< of one listener
  std::size_t max_connections_per_peer = 0;  ///< per address or user; 0: 4096 on unix sockets, 512 on TCP
  std::size_t max_message = 1u << 20;        ///< of a WebSocket
};

struct ServerOptions {
  Limits limits;
  /// Whether the machine with this address is a proxy that says in a PROXY header whose connections it passes on; empty: none is.
  std::function<bool(const std::string& host)> trusts_proxy;
  /// Header lines ("Name: value\r\n" each) that every answer carries.
  std::string common_headers;
  /// The JSON body of an answer to a request that never reached the handler.
  std::function<std::string(int status, std::string_view message)> error_body;
};

class Server {
 public:
  Server(Executor executor, Handler handler, ServerOptions options = {});
  ~Server();
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;

  /// Listens on a path; a socket file that is there is replaced. Errors: invalid (path too long), what bind says.
  Result<> listen_unix(const std::string& path, unsigned mode = 0660);
  /// Listens on "ADDRESS:PORT" or "[ADDRESS]:PORT" (port 0: any free one) and returns the address in use. Errors: invalid, exists
  /// (in use).
  Result<std::string> listen_tls(const std::string& address, const Identity& identity);
  /// Gives its addresses back, at once; connections go on. It may listen again.
  void stop_listening() noexcept;
  /// Stops listening and closes idle connections; requests and WebSockets may go on for `grace`, then they are cancelled and waited
  /// for.
  Task<> stop(Milliseconds grace = Milliseconds(0));
  /// Ends all connections, WebSockets too, of clients that showed this certificate, or a token that stands for it, as it is trusted
  /// no more; a request that is being handled is the connection's last.
  void close_certificate(std::string_view fingerprint) noexcept;
  std::size_t connections() const noexcept;

 private:
  friend struct ServerTasks;
  struct State;
  std::shared_ptr<State> state_;
};

}  // namespace virga::http
