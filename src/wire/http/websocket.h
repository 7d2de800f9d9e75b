// One WebSocket (RFC 6455), server or client side. One task reads at a time; any number write, whole messages in the order they
// asked. A write waits until the bytes are handed to the kernel, so a peer that does not read stops its writer and nobody else.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "base/error.h"
#include "base/task.h"

namespace virga::http {

class Transport;

class WebSocket {
 public:
  enum class Role { server, client };
  enum class Kind { text, binary, close };
  struct Message {
    Kind kind = Kind::text;
    std::string data;        ///< of a close: the reason
    std::uint16_t code = 0;  ///< of a close; 1005 when the peer gave none
  };

  /// `early` are bytes that were read behind the handshake already.
  WebSocket(std::unique_ptr<Transport> transport, Role role, std::size_t max_message, std::string early);
  ~WebSocket();
  WebSocket(const WebSocket&) = delete;
  WebSocket& operator=(const WebSocket&) = delete;

  /// The next message; pings are answered on the way. A close message is the last one. Errors: unavailable (the peer is gone),
  /// invalid (protocol violation or a message that is too long: the socket is closed with the fitting code), cancelled.
  Task<Result<Message>> read();
  /// Errors: unavailable (closed or the peer is gone), cancelled.
  Task<Result<>> write_text(std::string text);
  Task<Result<>> write_binary(std::string bytes);
  Task<Result<>> ping();
  /// Says goodbye, waits a short while for the peer's answer and closes. Safe to call twice.
  Task<> close(std::uint16_t code = 1000, std::string reason = {});
  /// Ends everything at once; pending reads and writes return unavailable.
  void abort() noexcept;
  bool is_open() const noexcept;

 private:
  struct Impl;
  std::shared_ptr<Impl> impl_;
};

/// The Sec-WebSocket-Accept value that answers a Sec-WebSocket-Key.
std::string websocket_accept(std::string_view key);

}  // namespace virga::http
