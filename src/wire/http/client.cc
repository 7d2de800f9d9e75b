#include "wire/http/client.h"

#include <fmt/format.h>
#include <netinet/tcp.h>
#include <openssl/evp.h>
#include <openssl/rand.h>
#include <sys/un.h>

#include <array>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/connect.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <cstring>

#include "base/json.h"
#include "base/random.h"
#include "wire/http/address.h"
#include "wire/http/body_reader.h"
#include "wire/http/parse.h"
#include "wire/http/raw_stream.h"
#include "wire/http/transport.h"

namespace asio = boost::asio;

namespace virga::http {
namespace {

constexpr auto await_ec = asio::as_tuple(asio::use_awaitable);
constexpr std::size_t max_head = 64u << 10;
constexpr std::size_t max_fields = 256;
constexpr std::size_t copy_step = 64u << 10;

ErrorKind kind_of_status(int status) {
  switch (status) {
    case 400:
    case 413:
    case 415:
      return ErrorKind::invalid;
    case 401:
    case 403:
      return ErrorKind::denied;
    case 404:
      return ErrorKind::not_found;
    case 409:
      return ErrorKind::exists;
    case 412:
      return ErrorKind::conflict;
    case 501:
      return ErrorKind::unsupported;
    case 502:
    case 503:
      return ErrorKind::unavailable;
    case 504:
      return ErrorKind::timeout;
    default:
      return ErrorKind::internal;
  }
}

/// The server's own words out of {"error": "..."}.
std::string refusal_text(const std::string& body, int status) {
  if (auto object = parse_json_object(body)) {
    auto text = Fields(*object).string("error");
    if (text && !text->empty()) return *text;
  }
  return fmt::format("the server answered {} {}", status, reason_phrase(status));
}

}  // namespace

struct Client::Impl {
  Endpoint endpoint;
  std::unique_ptr<Transport> transport;
  std::string inbox;
  std::optional<PeerCertificate> certificate;
  Reach peer_reach = Reach::global;
  bool used = false;  ///< the connection has carried a request already: the server may have closed it meanwhile

  std::string name() const {
    return endpoint.unix_path.empty() ? fmt::format("{}:{}", endpoint.host, endpoint.port) : endpoint.unix_path;
  }

  Task<Result<std::unique_ptr<Transport>>> connect_unix() {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    const auto& path = endpoint.unix_path;
    if (path.size() >= sizeof address.sun_path) co_return invalid("socket", fmt::format("the socket path '{}' is too long", path));
    std::memcpy(address.sun_path, path.c_str(), path.size());
    Transport::Socket socket(co_await asio::this_coro::executor, asio::generic::stream_protocol(AF_UNIX, 0));
    auto [ec] = co_await socket.async_connect(asio::generic::stream_protocol::endpoint(&address, sizeof address), await_ec);
    if (ec == boost::system::errc::permission_denied)
      co_return fail(Error(ErrorKind::denied, fmt::format("connect to '{}': permission denied", path))
                         .with_hint("run as root or as the daemon's user"));
    if (ec)
      co_return fail(
          Error(ErrorKind::unavailable, fmt::format("connect to '{}': {}", path, ec.message())).with_hint("is virgad running?"));
    co_return std::make_unique<Transport>(std::move(socket));
  }

  /// The addresses of a host that the endpoint may reach. A name is looked up once, and the very addresses that were judged are
  /// connected to. Errors: unavailable, denied.
  Task<Result<std::vector<asio::ip::tcp::endpoint>>> look_up(std::string host, std::uint16_t port, bool judge) {
    asio::ip::tcp::resolver resolver(co_await asio::this_coro::executor);
    auto [error, found] = co_await resolver.async_resolve(host, std::to_string(port), await_ec);
    if (error) co_return fail(ErrorKind::unavailable, fmt::format("look up '{}': {}", host, error.message()));
    std::vector<asio::ip::tcp::endpoint> out;
    auto worst = Reach::global;
    for (const auto& entry : found) {
      const auto address = parse_ip(host_of(entry.endpoint().data()));
      const auto reach = address ? reach_of(*address) : Reach::never;
      if (!judge || (reach != Reach::never && reach <= endpoint.reach)) {
        out.push_back(entry.endpoint());
      } else {
        worst = std::max(worst, reach);
      }
    }
    if (out.empty())
      co_return fail(ErrorKind::denied,
                     fmt::format("'{}' is a {} address, which may not be reached from here", host, to_string(worst)));
    co_return out;
  }

  Task<Result<std::unique_ptr<Transport>>> connect_tcp() {
    auto executor = co_await asio::this_coro::executor;
    const bool proxied = !endpoint.proxy_host.empty();
    VIRGA_CO_TRY(const auto addresses, co_await look_up(proxied ? endpoint.proxy_host : endpoint.host,
                                                        proxied ? endpoint.proxy_port : endpoint.port, !proxied));
    asio::ip::tcp::socket socket(executor);
    auto [ec, used_address] = co_await asio::async_connect(socket, addresses, await_ec);
    if (ec) co_return fail(ErrorKind::unavailable, fmt::format("connect to '{}': {}", name(), ec.message()));
    const auto peer = parse_ip(host_of(used_address.data()));
    peer_reach = !proxied && peer ? reach_of(*peer) : Reach::global;
    const int on = 1;
    ::setsockopt(socket.native_handle(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    const int family = used_address.address().is_v6() ? AF_INET6 : AF_INET;
    boost::system::error_code release_error;
    const int fd = socket.release(release_error);
    auto out = std::make_unique<Transport>(Transport::Socket(executor, asio::generic::stream_protocol(family, IPPROTO_TCP), fd));
    if (proxied) VIRGA_CO_CHECK(co_await pass_proxy(*out));
    co_return out;
  }

  /// Asks the proxy for a tunnel. A literal address is judged all the same; a name is the proxy's business.
  Task<Result<>> pass_proxy(Transport& to) {
    if (endpoint.plain) co_return Result<>{};  // such requests are sent to the proxy itself, with the whole URL
    if (const auto address = parse_ip(endpoint.host); address && !may_reach(*address, endpoint.reach))
      co_return fail(ErrorKind::denied, fmt::format("'{}' may not be reached from here", endpoint.host));
    const auto authority =
        endpoint.host.find(':') == std::string::npos ? name() : fmt::format("[{}]:{}", endpoint.host, endpoint.port);
    const auto head = fmt::format("CONNECT {0} HTTP/1.1\r\nHost: {0}\r\nUser-Agent: virga\r\n\r\n", authority);
    VIRGA_CO_CHECK(co_await to.write(head, {}));
    std::string storage;
    VIRGA_CO_TRY(const auto answer, co_await read_answer_head(to, storage));
    if (answer.status / 100 != 2 || !inbox.empty())
      co_return fail(ErrorKind::unavailable, fmt::format("the proxy '{}:{}' does not connect to '{}': it answered {}",
                                                         endpoint.proxy_host, endpoint.proxy_port, name(), answer.status));
    co_return Result<>{};
  }

  Task<Result<std::unique_ptr<Transport>>> connect_tls() {
    VIRGA_CO_TRY(auto out, co_await connect_tcp());
    if (endpoint.plain) co_return out;
    auto context = make_client_context(endpoint);
    if (!context) co_return fail(std::move(context).error());
    auto shaken = co_await out->handshake_client(std::move(*context), endpoint.host);
    if (!shaken) co_return fail(std::move(shaken).error().wrap(fmt::format("connect to '{}'", name())));
    certificate = out->peer_certificate();
    if (!certificate) co_return fail(ErrorKind::denied, fmt::format("'{}' showed no certificate", name()));
    if (!endpoint.server_fingerprint.empty() && !equal_constant_time(endpoint.server_fingerprint, certificate->fingerprint))
      co_return fail(ErrorKind::denied,
                     fmt::format("the certificate of '{}' is not the one that was trusted: its fingerprint is {}", name(),
                                 certificate->fingerprint));
    co_return out;
  }

  Task<Result<std::unique_ptr<Transport>>> open() {
    auto executor = co_await asio::this_coro::executor;
    if (!endpoint.unix_path.empty()) co_return co_await connect_unix();
    // The attempt runs as a task of its own, so that the clock can end it wherever it hangs.
    struct Attempt {
      explicit Attempt(Executor e) : group(e), done(e) {}
      TaskGroup group;
      Notification done;
      std::optional<Result<std::unique_ptr<Transport>>> result;
    } attempt(executor);
    auto body = [this, &attempt]() -> Task<> {
      attempt.result.emplace(co_await connect_tls());
      attempt.done.notify();
    };
    attempt.group.spawn("connect", body());
    bool in_time = true;
    if (!attempt.result) in_time = co_await attempt.done.wait_for(endpoint.connect_timeout);
    const bool finished = attempt.result.has_value();
    attempt.group.cancel();
    co_await attempt.group.join();
    if (attempt.result && (finished || *attempt.result)) co_return std::move(*attempt.result);
    if (!in_time && co_await is_cancelled()) co_return fail(ErrorKind::cancelled, "cancelled while connecting");
    co_return fail(ErrorKind::timeout,
                   fmt::format("connect to '{}': no answer within {} ms", name(), endpoint.connect_timeout.count()));
  }

  Task<Result<>> ensure() {
    if (transport) co_return Result<>{};
    inbox.clear();
    VIRGA_CO_TRY(transport, co_await open());
    inbox.clear();
    used = false;
    co_return Result<>{};
  }

  /// The Host field: without the port where it is the scheme's own, as some servers insist.
  std::string authority() const {
    if (!endpoint.unix_path.empty()) return "unix.socket";
    const bool v6 = endpoint.host.find(':') != std::string::npos;
    const auto host = v6 ? fmt::format("[{}]", endpoint.host) : endpoint.host;
    return endpoint.port == (endpoint.plain ? 80 : 443) ? host : fmt::format("{}:{}", host, endpoint.port);
  }

  std::string head_of(const ClientRequest& r) const {
    const bool to_proxy = endpoint.plain && !endpoint.proxy_host.empty();
    std::string out = fmt::format("{} {}{} HTTP/1.1\r\nHost: {}\r\nUser-Agent: virga\r\n", r.method,
                                  to_proxy ? "http://" + authority() : std::string(), r.target, authority());
    bool has_type = false;
    for (const auto& [n, v] : r.headers) {
      out += fmt::format("{}: {}\r\n", n, v);
      has_type = has_type || equals_ignoring_case(n, "content-type");
    }
    if (r.streams_upload()) {
      if (!has_type) out += "Content-Type: application/octet-stream\r\n";
      out += r.upload_length ? fmt::format("Content-Length: {}\r\n", *r.upload_length) : "Transfer-Encoding: chunked\r\n";
      out += "Expect: 100-continue\r\n";
    } else if (!r.body.empty() || r.method == "POST" || r.method == "PUT" || r.method == "PATCH") {
      if (!has_type && !r.body.empty()) out += "Content-Type: application/json\r\n";
      out += fmt::format("Content-Length: {}\r\n", r.body.size());
    }
    out += "\r\n";
    return out;
  }

  Task<Result<std::string>> read_head(Transport& from) {
    HeadScanner scanner;
    while (true) {
      if (!inbox.empty()) {
        const auto state = scanner.scan(inbox);
        if (state == HeadScanner::State::malformed)
          co_return fail(ErrorKind::invalid, fmt::format("'{}' does not answer in HTTP", name()));
        if (state == HeadScanner::State::complete) break;
        if (inbox.size() > max_head)
          co_return fail(ErrorKind::invalid, fmt::format("the head of the answer of '{}' is too long", name()));
      }
      const auto have = inbox.size();
      inbox.resize(have + 4096);
      auto n = co_await from.read_some(inbox.data() + have, 4096);
      inbox.resize(have + (n ? *n : 0));
      if (!n) co_return fail(std::move(n).error());
      if (*n == 0) co_return fail(ErrorKind::unavailable, fmt::format("'{}' closed the connection without an answer", name()));
    }
    std::string head = inbox.substr(0, scanner.length());
    inbox.erase(0, scanner.length());
    co_return head;
  }

  Task<Result<>> send_upload(const ClientRequest& r) {
    std::string buffer(copy_step, '\0');
    std::uint64_t sent = 0;
    while (true) {
      Result<std::size_t> given = 0;
      if (r.produce) {
        given = co_await r.produce(std::span<char>(buffer));
      } else {
        given = r.upload(std::span<char>(buffer));
      }
      VIRGA_CO_TRY(const std::size_t n, std::move(given));
      if (r.upload_length) {
        if (n == 0 && sent != *r.upload_length) co_return fail(ErrorKind::invalid, "the file changed its size while it was sent");
        if (n == 0) co_return Result<>{};
        sent += n;
        if (sent > *r.upload_length) co_return fail(ErrorKind::invalid, "the file changed its size while it was sent");
        VIRGA_CO_CHECK(co_await transport->write(std::string_view(buffer).substr(0, n), {}));
      } else {
        if (n == 0) co_return co_await transport->write("0\r\n\r\n", {});
        const auto size_line = fmt::format("{:x}\r\n", n);
        buffer.resize(n);
        buffer.append("\r\n");
        VIRGA_CO_CHECK(co_await transport->write(size_line, buffer));
        buffer.resize(copy_step);
      }
    }
  }

  Task<Result<AnswerHead>> read_answer_head(Transport& from, std::string& storage) {
    AnswerHead answer;
    VIRGA_CO_TRY(storage, co_await read_head(from));
    if (parse_answer_head(storage, max_fields, answer))
      co_return fail(ErrorKind::invalid, fmt::format("malformed answer from '{}'", name()));
    co_return answer;
  }

  /// `began` tells whether anything came back: only before that may a request be sent a second time.
  Task<Result<ClientResponse>> exchange(const ClientRequest& r, bool& began) {
    const auto head = head_of(r);
    auto written = co_await transport->write(head, r.streams_upload() ? std::string_view() : std::string_view(r.body));
    if (!written && written.error().kind() != ErrorKind::unavailable) co_return fail(std::move(written).error());
    // A server that refuses a body closes while it is being sent; its answer, where there is one, says more than the broken pipe.
    std::string storage;
    auto first = co_await read_answer_head(*transport, storage);
    if (!first) co_return fail(written ? std::move(first).error() : std::move(written).error());
    auto answer = std::move(*first);
    began = true;
    if (r.streams_upload() && answer.status == 100) {
      auto sent = co_await send_upload(r);
      // A server that refuses half-way answers and closes; its words say more than the broken pipe.
      if (!sent && sent.error().kind() != ErrorKind::unavailable) co_return fail(std::move(sent).error());
      VIRGA_CO_TRY(answer, co_await read_answer_head(*transport, storage));
    }
    ClientResponse out;
    out.status = answer.status;
    for (const auto& [n, v] : answer.headers) out.headers.emplace_back(n, v);
    const bool bodyless = r.method == "HEAD" || answer.status == 204 || answer.status == 304;
    BodyReader body(*transport, inbox, Milliseconds(0));
    const bool until_end = !bodyless && !answer.framing.chunked && !answer.framing.content_length;
    body.begin(bodyless ? Framing{} : answer.framing, until_end);
    if (r.receive && out.status >= 200 && out.status < 300) {
      VIRGA_CO_CHECK(co_await r.receive(out, body));
      if (!body.done()) transport.reset();  // the taker had enough
    } else if (r.download && out.status >= 200 && out.status < 300) {
      std::string buffer(copy_step, '\0');
      while (!body.done()) {
        VIRGA_CO_TRY(const std::size_t n, co_await body.read_some(buffer));
        if (n != 0) VIRGA_CO_CHECK(r.download(std::string_view(buffer).substr(0, n)));
      }
    } else {
      VIRGA_CO_TRY(out.body, co_await body.read_all(r.max_body));
    }
    // An upload that was refused before it was sent leaves the connection in an unknown state.
    if (!answer.framing.keep_alive || until_end || (r.streams_upload() && out.status >= 400)) transport.reset();
    co_return out;
  }

  Task<Result<ClientResponse>> request(const ClientRequest& r) {
    for (int attempt = 0;; ++attempt) {
      VIRGA_CO_CHECK(co_await ensure());
      const bool reused = std::exchange(used, true);
      bool began = false;
      auto response = co_await exchange(r, began);
      if (response) co_return response;
      transport.reset();
      const bool again = reused && !began && attempt == 0 && response.error().kind() == ErrorKind::unavailable;
      if (!again) co_return response;
    }
  }
};

std::string_view ClientResponse::header(std::string_view name) const noexcept {
  for (const auto& [n, v] : headers)
    if (equals_ignoring_case(n, name)) return v;
  return {};
}

Client::Client(Endpoint endpoint) : impl_(std::make_unique<Impl>()) {
  impl_->endpoint = std::move(endpoint);
}
Client::~Client() = default;
Client::Client(Client&&) noexcept = default;
Client& Client::operator=(Client&&) noexcept = default;

Task<Result<>> Client::connect() {
  co_return co_await impl_->ensure();
}

Task<Result<ClientResponse>> Client::request(ClientRequest request) {
  co_return co_await impl_->request(request);
}

namespace {

/// Asks on a fresh connection for a change of protocol. Afterwards the transport and what came behind the head are the caller's.
template <class Impl>
Task<Result<std::string>> switch_protocol(Impl& upgrade, ClientRequest request, std::string accept_key) {
  VIRGA_CO_CHECK(co_await upgrade.ensure());
  const auto head = upgrade.head_of(request);
  VIRGA_CO_CHECK(co_await upgrade.transport->write(head, {}));
  std::string storage;
  VIRGA_CO_TRY(auto answer, co_await upgrade.read_answer_head(*upgrade.transport, storage));
  if (answer.status != 101) {
    BodyReader body(*upgrade.transport, upgrade.inbox, Milliseconds(0));
    body.begin(answer.framing);
    auto text = co_await body.read_all(1u << 20);
    co_return fail(kind_of_status(answer.status), refusal_text(text.value_or(""), answer.status));
  }
  co_return std::string(accept_key.empty() ? std::string_view() : answer.headers.get(accept_key));
}

}  // namespace

Task<Result<std::unique_ptr<WebSocket>>> Client::websocket(std::string target,
                                                           std::vector<std::pair<std::string, std::string>> headers) {
  Impl upgrade;
  upgrade.endpoint = impl_->endpoint;
  std::array<unsigned char, 16> nonce{};
  RAND_bytes(nonce.data(), static_cast<int>(nonce.size()));
  std::array<unsigned char, 32> encoded{};
  EVP_EncodeBlock(encoded.data(), nonce.data(), static_cast<int>(nonce.size()));
  const std::string key = reinterpret_cast<char*>(encoded.data());
  ClientRequest request;
  request.target = std::move(target);
  request.headers = std::move(headers);
  for (const auto& [name, value] : std::initializer_list<std::pair<const char*, std::string>>{
           {"Connection", "Upgrade"}, {"Upgrade", "websocket"}, {"Sec-WebSocket-Version", "13"}, {"Sec-WebSocket-Key", key}})
    request.headers.emplace_back(name, value);
  VIRGA_CO_TRY(const auto accepted, co_await switch_protocol(upgrade, std::move(request), "sec-websocket-accept"));
  if (accepted != websocket_accept(key)) co_return fail(ErrorKind::invalid, "the server's WebSocket handshake is wrong");
  constexpr std::size_t max_message = 16u << 20;
  co_return std::make_unique<WebSocket>(std::move(upgrade.transport), WebSocket::Role::client, max_message,
                                        std::move(upgrade.inbox));
}

Task<Result<std::unique_ptr<ByteStream>>> Client::upgrade(std::string target, std::string protocol) {
  Impl upgrade;
  upgrade.endpoint = impl_->endpoint;
  ClientRequest request;
  request.target = std::move(target);
  request.headers = {{"Connection", "Upgrade"}, {"Upgrade", std::move(protocol)}};
  VIRGA_CO_CHECK(co_await switch_protocol(upgrade, std::move(request), {}));
  co_return make_transport_stream(std::move(upgrade.transport), std::move(upgrade.inbox));
}

const std::optional<PeerCertificate>& Client::server_certificate() const noexcept {
  return impl_->certificate;
}
Reach Client::peer_reach() const noexcept {
  return impl_->peer_reach;
}
const Endpoint& Client::endpoint() const noexcept {
  return impl_->endpoint;
}

}  // namespace virga::http
