// A client's WebSocket as an operation sees it.
#pragma once

#include <memory>

#include "engine/operations/channel.h"
#include "wire/http/websocket.h"

namespace virga::api {

class SocketChannel final : public engine::Channel {
 public:
  explicit SocketChannel(std::unique_ptr<http::WebSocket> socket);
  ~SocketChannel() override;
  Task<Result<engine::Message>> read() override;
  Task<Result<>> write(engine::Message message) override;
  Task<> close() override;

 private:
  std::unique_ptr<http::WebSocket> socket_;
};

}  // namespace virga::api
