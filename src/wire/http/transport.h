// A connected stream socket, plain or with TLS: what server, client and WebSocket share. Internal to wire/http (Asio and OpenSSL
// are heavy). One reader and one writer at a time. `deadline` is only data here; who owns the connection enforces it.
#pragma once

#include <boost/asio/generic/stream_protocol.hpp>
#include <boost/asio/ssl/context.hpp>
#include <boost/asio/ssl/stream.hpp>
#include <chrono>
#include <cstddef>
#include <memory>
#include <optional>
#include <string_view>

#include "base/error.h"
#include "base/task.h"
#include "wire/http/message.h"
#include "wire/http/tls.h"

namespace virga::http {

class Transport {
 public:
  using Socket = boost::asio::generic::stream_protocol::socket;
  using Tls = boost::asio::ssl::stream<Socket&>;
  using SteadyTime = std::chrono::steady_clock::time_point;

  explicit Transport(Socket socket);
  ~Transport();

  Task<Result<>> handshake_server(std::shared_ptr<boost::asio::ssl::context> context);
  /// `server_name`: the host's name or address, which the certificate must bear where authorities decide.
  Task<Result<>> handshake_client(std::shared_ptr<boost::asio::ssl::context> context, std::string server_name);
  bool secure() const noexcept { return tls_ != nullptr; }
  /// The certificate the other side showed.
  std::optional<PeerCertificate> peer_certificate() const;

  /// Looks at the first byte that is to be read, before any handshake; false at the end of the stream. Errors: as read_some.
  Task<Result<bool>> peek(char& first);
  /// At least one byte; 0 at the end of the stream. Errors: unavailable, timeout (expire() was called), cancelled.
  Task<Result<std::size_t>> read_some(char* into, std::size_t size);
  /// All of head and then body. Errors: as read_some.
  Task<Result<>> write(std::string_view head, std::string_view body);
  /// Tells the peer that nothing more comes, so that it can read the last answer before the connection dies.
  void finish_writing() noexcept;
  /// Ends both directions now; pending calls return.
  void abort() noexcept;
  /// abort() because the deadline has passed: errors say timeout.
  void expire() noexcept;
  bool aborted() const noexcept { return aborted_; }
  int fd() noexcept { return socket_.native_handle(); }
  Executor executor() { return socket_.get_executor(); }

  /// When set, the deadline is moved on after each 64 KiB written, by this much; 0: writes have no deadline of their own.
  Milliseconds write_window{0};
  SteadyTime deadline = SteadyTime::max();
  /// Keeps the server's books; released with the connection.
  std::shared_ptr<void> lease;

 private:
  Error failure(const boost::system::error_code& ec, std::string_view what) const;
  Socket socket_;
  std::shared_ptr<boost::asio::ssl::context> context_;
  std::unique_ptr<Tls> tls_;
  bool aborted_ = false;
  bool expired_ = false;
};

/// The server's side: TLS 1.3, any client certificate. Errors: invalid (certificate and key do not fit).
Result<std::shared_ptr<boost::asio::ssl::context>> make_server_context(const Identity& identity);
struct Endpoint;
/// The client's side; the server's certificate is checked by authorities here only when the endpoint pins nothing.
Result<std::shared_ptr<boost::asio::ssl::context>> make_client_context(const Endpoint& endpoint);

}  // namespace virga::http
