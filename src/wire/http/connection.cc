#include "wire/http/connection.h"

#include <fmt/format.h>

#include <array>
#include <charconv>
#include <vector>

#include "base/log.h"
#include "wire/http/body_reader.h"
#include "wire/http/parse.h"
#include "wire/http/proxy_header.h"
#include "wire/http/raw_stream.h"

namespace virga::http {
namespace {

using SteadyClock = std::chrono::steady_clock;
constexpr std::size_t read_step = 4u << 10;
constexpr std::size_t file_step = 256u << 10;
constexpr std::size_t drain_limit = 256u << 10;

/// A name in a header must not begin a header of its own (S47); the router encodes names, this is the last line.
void append_clean(std::string& out, std::string_view value) {
  for (char c : value) out.push_back(static_cast<unsigned char>(c) < 0x20 || c == 0x7f ? ' ' : c);
}

void append_number(std::string& out, std::uint64_t n) {
  std::array<char, 24> digits;
  const auto end = std::to_chars(digits.data(), digits.data() + digits.size(), n).ptr;
  out.append(digits.data(), end);
}

class Connection {
 public:
  Connection(ConnectionContext& context, ConnectionState& state)
      : context_(context),
        limits_(context.options.limits),
        state_(state),
        body_(*state.transport, inbox_, limits_.transfer_timeout),
        request_(state.request) {
    transport().write_window = limits_.transfer_timeout;
  }

  Task<> run() {
    while (co_await serve_one()) {
    }
    if (state_.transport) transport().abort();
  }

 private:
  Transport& transport() { return *state_.transport; }
  void set_deadline(Milliseconds from_now) { transport().deadline = SteadyClock::now() + from_now; }
  void no_deadline() { transport().deadline = Transport::SteadyTime::max(); }

  /// False when the connection is to end.
  Task<bool> serve_one() {
    if (!co_await read_head()) co_return false;
    Request& request = request_;
    request.path.clear();
    request.query.clear();
    request.headers.clear();
    request.trailing_slash = false;
    request.slash_in_segment = false;
    request.cancel_on_hangup = false;
    request.vouched_by.clear();
    request.peer = &state_.peer;
    request.body = &body_;
    Framing framing;
    if (auto refusal = parse_head(head_, limits_.max_header_fields, request, framing)) {
      co_await refuse(refusal->status, refusal->reason);
      co_return false;
    }
    body_.begin(framing);
    Response response = co_await call_handler();
    state_.in_handler = false;
    if (auto* upgrade = std::get_if<UpgradeBody>(&response.body)) {
      co_await run_upgrade(std::move(*upgrade));
      co_return false;
    }
    if (auto* raw = std::get_if<RawUpgradeBody>(&response.body)) {
      co_await run_raw_upgrade(std::move(*raw));
      co_return false;
    }
    if (co_await is_cancelled()) co_return false;
    const bool keep =
        framing.keep_alive && !response.close && !context_.closing && !state_.last && (body_.done() || can_skip_body());
    if (!co_await send(response, keep)) co_return false;
    if (!keep) {
      co_await linger();
      co_return false;
    }
    while (!body_.done()) {
      std::array<char, 1024> scrap;
      if (!co_await body_.read_some(scrap)) co_return false;
    }
    co_return true;
  }

  /// A small rest of a body that nobody wanted is read away; a large one costs the connection.
  bool can_skip_body() const { return !body_.awaits_continue() && body_.length() && *body_.length() <= drain_limit; }

  Task<bool> read_head() {
    scanner_.reset();
    state_.idle = inbox_.empty();
    if (inbox_.empty()) {
      set_deadline(limits_.idle_timeout);
    } else {
      set_deadline(limits_.header_timeout);
    }
    while (true) {
      if (!inbox_.empty()) {
        const auto found = scanner_.scan(inbox_);
        if (found == HeadScanner::State::malformed) {
          co_await refuse(400, "malformed line ending or character in the head");
          co_return false;
        }
        if (found == HeadScanner::State::complete && scanner_.length() <= limits_.max_header) break;
        if (inbox_.size() >= limits_.max_header) {
          co_await refuse(431, "the head is too large");
          co_return false;
        }
      }
      const auto have = inbox_.size();
      inbox_.resize(have + read_step);
      auto n = co_await transport().read_some(inbox_.data() + have, read_step);
      inbox_.resize(have + (n ? *n : 0));
      if (!n || *n == 0) co_return false;
      if (have == 0) set_deadline(limits_.header_timeout);
      state_.idle = false;
    }
    no_deadline();
    head_.assign(inbox_, 0, scanner_.length());
    inbox_.erase(0, scanner_.length());
    if (inbox_.capacity() > 16u << 10 && inbox_.size() < read_step) inbox_.shrink_to_fit();
    co_return true;
  }

  Task<Response> call_handler() {
    std::string thrown;
    try {
      state_.in_handler = true;
      co_return co_await context_.handler(request_);
    } catch (const std::exception& e) {
      thrown = e.what();
    }
    log::error("handler of {} {} threw: {}", to_string(request_.method), request_.target, thrown);
    co_return error_response(500, "internal error");
  }

  Response error_response(int status, std::string_view reason) const {
    Response response;
    response.status = status;
    response.close = true;
    if (context_.options.error_body) {
      response.body = context_.options.error_body(status, reason);
    } else {
      response.content_type = "text/plain";
      response.body = fmt::format("{}\n", reason);
    }
    return response;
  }

  Task<> refuse(int status, std::string_view reason) {
    request_.method = Method::get;
    Response response = error_response(status, reason);
    if (co_await send(response, false)) co_await linger();
  }

  /// Reads what the client is still sending for a moment, so that the kernel does not throw the answer away with a reset.
  Task<> linger() {
    transport().finish_writing();
    set_deadline(Milliseconds(1000));
    std::vector<char> scrap(16u << 10);
    std::size_t total = 0;
    while (total < drain_limit) {
      auto n = co_await transport().read_some(scrap.data(), scrap.size());
      if (!n || *n == 0) break;
      total += *n;
    }
  }

  void write_head(const Response& response, std::uint64_t length, bool keep) {
    out_.clear();
    out_.append("HTTP/1.1 ");
    append_number(out_, static_cast<std::uint64_t>(response.status));
    out_.push_back(' ');
    out_.append(reason_phrase(response.status));
    out_.append("\r\n");
    if (!response.content_type.empty()) out_.append("Content-Type: ").append(response.content_type).append("\r\n");
    for (const auto& [name, value] : response.headers) {
      append_clean(out_, name);
      out_.append(": ");
      append_clean(out_, value);
      out_.append("\r\n");
    }
    out_.append(context_.options.common_headers);
    if (!keep) out_.append("Connection: close\r\n");
    out_.append("Content-Length: ");
    append_number(out_, length);
    out_.append("\r\n\r\n");
  }

  static std::uint64_t length_of(const Response& response) {
    struct Measure {
      std::uint64_t operator()(const std::string& s) const { return s.size(); }
      std::uint64_t operator()(const std::shared_ptr<const std::string>& s) const { return s->size(); }
      std::uint64_t operator()(const FileBody& f) const { return f.length; }
      std::uint64_t operator()(const PartsBody& parts) const {
        std::uint64_t sum = 0;
        for (const auto& part : parts) sum += std::visit(*this, part);
        return sum;
      }
      std::uint64_t operator()(const StreamBody& s) const { return s.length; }
      std::uint64_t operator()(const UpgradeBody&) const { return 0; }
      std::uint64_t operator()(const RawUpgradeBody&) const { return 0; }
    };
    return std::visit(Measure{}, response.body);
  }

  Task<bool> send(Response& response, bool keep) {
    std::string_view text;
    if (auto* own = std::get_if<std::string>(&response.body)) text = *own;
    if (auto* shared = std::get_if<std::shared_ptr<const std::string>>(&response.body)) text = **shared;
    write_head(response, length_of(response), keep);
    set_deadline(limits_.transfer_timeout);
    const bool head_only = request_.method == Method::head;
    bool ok = (co_await transport().write(out_, head_only ? std::string_view() : text)).has_value();
    if (ok && !head_only) ok = co_await send_files(response);
    no_deadline();
    if (out_.capacity() > 64u << 10) std::string().swap(out_);
    co_return ok;
  }

  Task<bool> send_files(Response& response) {
    if (auto* file = std::get_if<FileBody>(&response.body)) co_return co_await send_file(*file);
    if (auto* stream = std::get_if<StreamBody>(&response.body)) co_return co_await send_stream(*stream);
    auto* parts = std::get_if<PartsBody>(&response.body);
    if (parts == nullptr) co_return true;
    for (auto& part : *parts) {
      bool ok = false;
      if (auto* file = std::get_if<FileBody>(&part)) {
        ok = co_await send_file(*file);
      } else {
        set_deadline(limits_.transfer_timeout);
        ok = (co_await transport().write(std::get<std::string>(part), {})).has_value();
      }
      if (!ok) co_return false;
    }
    co_return true;
  }

  Task<bool> send_file(FileBody& file) {
    std::string buffer;
    while (file.length > 0) {
      const auto want = static_cast<std::size_t>(std::min<std::uint64_t>(file.length, file_step));
      buffer.resize(want);
      auto read = [&]() -> ssize_t { return ::pread(file.fd.get(), buffer.data(), want, static_cast<off_t>(file.offset)); };
      no_deadline();
      const ssize_t n = co_await context_.files()->run(read);
      if (n <= 0) {
        log::error("a file that is being sent ended early or cannot be read");
        co_return false;
      }
      set_deadline(limits_.transfer_timeout);
      if (!co_await transport().write(std::string_view(buffer).substr(0, static_cast<std::size_t>(n)), {})) co_return false;
      file.offset += static_cast<std::uint64_t>(n);
      file.length -= static_cast<std::uint64_t>(n);
    }
    co_return true;
  }

  Task<bool> send_stream(StreamBody& stream) {
    while (stream.length > 0) {
      no_deadline();  // who makes the bytes has a clock of its own
      auto piece = co_await stream.next();
      if (!piece || piece->empty()) co_return false;
      if (piece->size() > stream.length) piece->resize(static_cast<std::size_t>(stream.length));
      set_deadline(limits_.transfer_timeout);
      if (!co_await transport().write(*piece, {})) co_return false;
      stream.length -= piece->size();
    }
    co_return true;
  }

  Task<> run_raw_upgrade(RawUpgradeBody upgrade) {
    out_.assign("HTTP/1.1 101 Switching Protocols\r\nUpgrade: ").append(upgrade.protocol).append("\r\nConnection: Upgrade\r\n\r\n");
    set_deadline(limits_.transfer_timeout);
    if (!co_await transport().write(out_, {})) co_return;
    no_deadline();
    transport().write_window = Milliseconds(0);
    auto stream = make_transport_stream(std::move(state_.transport), std::move(inbox_));
    co_await upgrade.serve(std::move(stream));
  }

  Task<> run_upgrade(UpgradeBody upgrade) {
    if (!request_.websocket) {
      co_await refuse(400, "not a WebSocket handshake");
      co_return;
    }
    out_ = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ";
    out_.append(websocket_accept(request_.headers.get("sec-websocket-key"))).append("\r\n\r\n");
    set_deadline(limits_.transfer_timeout);
    if (!co_await transport().write(out_, {})) co_return;
    no_deadline();
    transport().write_window = Milliseconds(0);  // a terminal may be held for minutes; dead peers are found by the kernel
    auto socket =
        std::make_unique<WebSocket>(std::move(state_.transport), WebSocket::Role::server, limits_.max_message, std::move(inbox_));
    co_await upgrade(std::move(socket));
  }

  ConnectionContext& context_;
  const Limits& limits_;
  ConnectionState& state_;
  std::string inbox_;  ///< read but not used yet
  std::string head_;   ///< of the request that is served; the request's views point into it
  std::string out_;
  HeadScanner scanner_;
  BodyReader body_;
  Request& request_;
};

}  // namespace

BlockingPool* ConnectionContext::files() {
  if (!files_) files_ = std::make_unique<BlockingPool>("http-files", 2);
  return files_.get();
}

Task<> serve_connection(std::shared_ptr<ConnectionContext> context, std::shared_ptr<ConnectionState> connection,
                        std::shared_ptr<boost::asio::ssl::context> tls) {
  if (tls) {
    connection->transport->deadline = SteadyClock::now() + context->options.limits.header_timeout;
    if (connection->count_as) {
      auto client = co_await read_proxy_header(*connection->transport);
      if (!client) {
        log::debug("{}: {}", connection->peer.address, client.error().chain());
        co_return;
      }
      if (*client && !connection->count_as((*client)->host)) co_return;
      if (*client) connection->peer.address = (*client)->address;
    }
    auto shaken = co_await connection->transport->handshake_server(std::move(tls));
    if (!shaken) {
      log::debug("{}: {}", connection->peer.address, shaken.error().chain());
      co_return;
    }
    connection->peer.certificate = connection->transport->peer_certificate();
  }
  Connection c(*context, *connection);
  co_await c.run();
}

}  // namespace virga::http
