#include "wire/http/websocket.h"

#include <fmt/format.h>
#include <openssl/evp.h>
#include <openssl/rand.h>
#include <openssl/sha.h>

#include <array>
#include <cstring>

#include "wire/http/parse.h"
#include "wire/http/transport.h"

namespace virga::http {
namespace {

enum Opcode : std::uint8_t { op_continuation = 0, op_text = 1, op_binary = 2, op_close = 8, op_ping = 9, op_pong = 10 };
constexpr std::size_t read_step = 16u << 10;
constexpr Milliseconds goodbye{3'000};
constexpr Milliseconds last_answer{30'000};  ///< of a peer to whom a task of ours listens; a person may have stopped his terminal

struct FrameHead {
  bool final = false;
  std::uint8_t opcode = 0;
  bool masked = false;
  std::uint64_t length = 0;
  std::array<unsigned char, 4> mask{};
  std::size_t size = 0;  ///< of the head itself
};

enum class Decoded { more, frame, malformed };

Decoded decode_head(std::string_view bytes, FrameHead& head) {
  if (bytes.size() < 2) return Decoded::more;
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(bytes[i]); };
  head.final = (byte(0) & 0x80) != 0;
  head.opcode = byte(0) & 0x0f;
  if ((byte(0) & 0x70) != 0) return Decoded::malformed;
  head.masked = (byte(1) & 0x80) != 0;
  head.length = byte(1) & 0x7f;
  head.size = 2;
  const std::size_t extended = head.length == 126 ? 2 : head.length == 127 ? 8 : 0;
  const std::size_t all = 2 + extended + (head.masked ? 4 : 0);
  if (bytes.size() < all) return Decoded::more;
  if (extended != 0) {
    head.length = 0;
    for (std::size_t i = 0; i < extended; ++i) head.length = head.length << 8 | byte(2 + i);
    if (head.length < 126 || (extended == 8 && head.length <= 0xffff)) return Decoded::malformed;
  }
  if (head.masked) std::memcpy(head.mask.data(), bytes.data() + 2 + extended, 4);
  head.size = all;
  const bool control = head.opcode >= 8;
  if (control ? head.opcode > op_pong || !head.final || head.length > 125 : head.opcode > op_binary) return Decoded::malformed;
  return Decoded::frame;
}

void apply_mask(char* data, std::size_t size, const std::array<unsigned char, 4>& mask, std::size_t offset = 0) {
  for (std::size_t i = 0; i < size; ++i) data[i] = static_cast<char>(static_cast<unsigned char>(data[i]) ^ mask[(i + offset) & 3]);
}

bool allowed_close_code(std::uint16_t code) {
  return (code >= 1000 && code <= 1014 && code != 1004 && code != 1005 && code != 1006) || (code >= 3000 && code <= 4999);
}

}  // namespace

struct WebSocket::Impl {
  Impl(std::unique_ptr<Transport> t, Role r, std::size_t max, std::string early)
      : transport(std::move(t)), role(r), max_message(max), inbox(std::move(early)), writing(transport->executor()) {}

  std::unique_ptr<Transport> transport;
  Role role;
  std::size_t max_message;
  std::string inbox;
  AsyncMutex writing;
  bool close_sent = false;
  bool close_received = false;
  bool reading = false;
  bool broken = false;

  bool open() const { return !close_sent && !close_received && !broken && !transport->aborted(); }

  Task<Result<>> fill() {
    const auto have = inbox.size();
    inbox.resize(have + read_step);
    auto n = co_await transport->read_some(inbox.data() + have, read_step);
    inbox.resize(have + (n ? *n : 0));
    if (!n) co_return fail(std::move(n).error());
    if (*n == 0) co_return fail(ErrorKind::unavailable, "the WebSocket's other side is gone");
    co_return Result<>{};
  }

  Task<Result<>> write_frame(std::uint8_t opcode, std::string payload) {
    auto guard = co_await writing.lock();
    if (!guard) co_return fail(std::move(guard).error());
    if (close_sent || broken || transport->aborted()) co_return fail(ErrorKind::unavailable, "the WebSocket is closed");
    if (opcode == op_close) close_sent = true;
    std::string head;
    head.push_back(static_cast<char>(0x80 | opcode));
    const auto mask_bit = role == Role::client ? 0x80u : 0u;
    const std::uint64_t size = payload.size();
    const int extended = size < 126 ? 0 : size <= 0xffff ? 2 : 8;
    head.push_back(static_cast<char>(mask_bit | (extended == 0 ? size : extended == 2 ? 126u : 127u)));
    for (int i = extended - 1; i >= 0; --i) head.push_back(static_cast<char>(size >> (8 * i) & 0xff));
    if (role == Role::client) {
      std::array<unsigned char, 4> mask{};
      RAND_bytes(mask.data(), static_cast<int>(mask.size()));
      head.append(reinterpret_cast<char*>(mask.data()), mask.size());
      apply_mask(payload.data(), payload.size(), mask);
    }
    auto written = co_await transport->write(head, payload);
    // Half a frame may be on its way: nothing sensible can follow it.
    if (!written) broken = true;
    co_return written;
  }

  Task<Result<>> write_close(std::uint16_t code, std::string_view reason) {
    std::string payload;
    if (code != 1005) {
      payload.push_back(static_cast<char>(code >> 8));
      payload.push_back(static_cast<char>(code & 0xff));
      payload.append(reason.substr(0, 120));
    }
    return write_frame(op_close, std::move(payload));
  }

  Task<Result<Message>> violation(std::uint16_t code, std::string text) {
    if (!close_sent) (void)co_await write_close(code, text);
    transport->finish_writing();
    broken = true;
    co_return fail(ErrorKind::invalid, fmt::format("WebSocket: {}", text));
  }

  Task<Result<Message>> on_close(std::string payload) {
    Message message;
    message.kind = Kind::close;
    message.code = 1005;
    if (payload.size() == 1) co_return co_await violation(1002, "malformed close frame");
    if (payload.size() >= 2) {
      message.code =
          static_cast<std::uint16_t>(static_cast<unsigned char>(payload[0]) << 8 | static_cast<unsigned char>(payload[1]));
      message.data = payload.substr(2);
      if (!allowed_close_code(message.code) || !valid_utf8(message.data))
        co_return co_await violation(1002, "malformed close frame");
    }
    close_received = true;
    if (!close_sent) (void)co_await write_close(message.code, {});
    if (role == Role::server) transport->finish_writing();
    co_return message;
  }

  Task<Result<Message>> read_message() {
    if (close_received || broken || transport->aborted()) co_return fail(ErrorKind::unavailable, "the WebSocket is closed");
    std::string assembled;
    std::uint8_t kind = op_continuation;
    while (true) {
      FrameHead head;
      Decoded decoded;
      while ((decoded = decode_head(inbox, head)) == Decoded::more) VIRGA_CO_CHECK(co_await fill());
      if (decoded == Decoded::malformed || head.masked != (role == Role::server))
        co_return co_await violation(1002, "malformed frame");
      const bool control = head.opcode >= 8;
      if (!control && (head.length > max_message || assembled.size() + head.length > max_message))
        co_return co_await violation(1009, "the message is too long");
      if (!control && (head.opcode == op_continuation) != (kind != op_continuation))
        co_return co_await violation(1002, "frames out of order");
      const auto length = static_cast<std::size_t>(head.length);
      inbox.reserve(head.size + length);
      while (inbox.size() < head.size + length) VIRGA_CO_CHECK(co_await fill());
      std::string payload = inbox.substr(head.size, length);
      inbox.erase(0, head.size + length);
      if (head.masked) apply_mask(payload.data(), payload.size(), head.mask);
      if (head.opcode == op_close) co_return co_await on_close(std::move(payload));
      if (head.opcode == op_ping) {
        if (!close_sent) VIRGA_CO_CHECK(co_await write_frame(op_pong, std::move(payload)));
        continue;
      }
      if (head.opcode == op_pong) continue;
      if (kind == op_continuation) kind = head.opcode;
      if (assembled.empty()) {
        assembled = std::move(payload);
      } else {
        assembled += payload;
      }
      if (!head.final) continue;
      if (kind == op_text && !valid_utf8(assembled)) co_return co_await violation(1007, "text that is not UTF-8");
      Message message;
      message.kind = kind == op_text ? Kind::text : Kind::binary;
      message.data = std::move(assembled);
      co_return message;
    }
  }
};

WebSocket::WebSocket(std::unique_ptr<Transport> transport, Role role, std::size_t max_message, std::string early)
    : impl_(std::make_shared<Impl>(std::move(transport), role, max_message, std::move(early))) {}

WebSocket::~WebSocket() {
  abort();
}

Task<Result<WebSocket::Message>> WebSocket::read() {
  auto impl = impl_;
  impl->reading = true;
  auto message = co_await impl->read_message();
  impl->reading = false;
  co_return message;
}

Task<Result<>> WebSocket::write_text(std::string text) {
  auto impl = impl_;
  co_return co_await impl->write_frame(op_text, std::move(text));
}

Task<Result<>> WebSocket::write_binary(std::string bytes) {
  auto impl = impl_;
  co_return co_await impl->write_frame(op_binary, std::move(bytes));
}

Task<Result<>> WebSocket::ping() {
  auto impl = impl_;
  co_return co_await impl->write_frame(op_ping, {});
}

Task<> WebSocket::close(std::uint16_t code, std::string reason) {
  auto impl = impl_;
  if (impl->transport->aborted()) co_return;
  if (!impl->close_sent && !impl->broken) (void)co_await impl->write_close(code, reason);
  if (impl->role == Role::server) impl->transport->finish_writing();
  // A task that reads sees the peer's answer and the end itself, but does not wait for ever for a peer that says nothing; otherwise
  // it is awaited here, so that what was sent last arrives.
  if (impl->reading && impl->role == Role::server) impl->transport->deadline = std::chrono::steady_clock::now() + last_answer;
  if (!impl->reading && !impl->close_received && !impl->broken) {
    const auto until = std::chrono::steady_clock::now() + goodbye;
    TaskGroup watchdog(impl->transport->executor());
    auto expire = [impl, until]() -> Task<> {
      const auto left = std::chrono::duration_cast<Milliseconds>(until - std::chrono::steady_clock::now());
      if (co_await sleep_for(left)) impl->transport->abort();
    };
    watchdog.spawn("websocket goodbye", expire());
    while (true) {
      auto message = co_await impl->read_message();
      if (!message || message->kind == Kind::close) break;
    }
    watchdog.cancel();
    co_await watchdog.join();
  }
  if (!impl->reading) impl->transport->abort();
}

void WebSocket::abort() noexcept {
  impl_->transport->abort();
}
bool WebSocket::is_open() const noexcept {
  return impl_->open();
}

std::string websocket_accept(std::string_view key) {
  const std::string text = std::string(key) + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
  std::array<unsigned char, SHA_DIGEST_LENGTH> digest{};
  SHA1(reinterpret_cast<const unsigned char*>(text.data()), text.size(), digest.data());
  std::array<unsigned char, 64> out{};
  EVP_EncodeBlock(out.data(), digest.data(), static_cast<int>(digest.size()));
  return reinterpret_cast<char*>(out.data());
}

}  // namespace virga::http
