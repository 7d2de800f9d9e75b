#include "client/relay.h"

#include <memory>

#include "wire/http/websocket.h"

namespace virga::client {
namespace {

using Socket = std::shared_ptr<http::WebSocket>;

/// Until one side ends.
Task<> forward(Socket from, Socket to) {
  for (;;) {
    auto message = co_await from->read();
    if (!message || message->kind == http::WebSocket::Kind::close) break;
    auto sent = message->kind == http::WebSocket::Kind::text ? co_await to->write_text(std::move(message->data))
                                                             : co_await to->write_binary(std::move(message->data));
    if (!sent) break;
  }
  co_await to->close();
}

}  // namespace

Task<Result<bool>> relay(http::Endpoint first, http::Endpoint second, std::vector<std::pair<std::string, std::string>> pairs) {
  Client one(std::move(first)), two(std::move(second));
  TaskGroup streams(co_await current_executor());
  Result<bool> out = true;
  for (auto& [left, right] : pairs) {
    auto from = co_await one.websocket(left);
    auto to = from ? co_await two.websocket(right) : Result<std::unique_ptr<http::WebSocket>>(fail(from.error()));
    if (!to) {
      out = fail(std::move(to).error());
      streams.cancel();
      break;
    }
    const Socket a = std::move(*from), b = std::move(*to);
    streams.spawn("there", forward(a, b));
    streams.spawn("back", forward(b, a));
  }
  co_await streams.join();
  co_return out;
}

}  // namespace virga::client
