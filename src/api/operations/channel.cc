#include "api/operations/channel.h"

namespace virga::api {

using engine::Message;

SocketChannel::SocketChannel(std::unique_ptr<http::WebSocket> socket) : socket_(std::move(socket)) {}
SocketChannel::~SocketChannel() = default;

Task<Result<Message>> SocketChannel::read() {
  VIRGA_CO_TRY(auto message, co_await socket_->read());
  Message out;
  switch (message.kind) {
    case http::WebSocket::Kind::text:
      out.kind = Message::Kind::text;
      break;
    case http::WebSocket::Kind::binary:
      out.kind = Message::Kind::binary;
      break;
    case http::WebSocket::Kind::close:
      out.kind = Message::Kind::close;
      break;
  }
  out.data = std::move(message.data);
  co_return out;
}

Task<Result<>> SocketChannel::write(Message message) {
  switch (message.kind) {
    case Message::Kind::text:
      co_return co_await socket_->write_text(std::move(message.data));
    case Message::Kind::binary:
      co_return co_await socket_->write_binary(std::move(message.data));
    case Message::Kind::close:
      co_await socket_->close();
      break;
  }
  co_return Result<>{};
}

Task<> SocketChannel::close() {
  return socket_->close();
}

}  // namespace virga::api
