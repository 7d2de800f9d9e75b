#include "wire/http/transport.h"

#include <fmt/format.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509_vfy.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include <array>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/buffer.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <cerrno>

namespace asio = boost::asio;

namespace virga::http {
namespace {

constexpr auto await_ec = asio::as_tuple(asio::use_awaitable);
constexpr std::size_t write_step = 64u << 10;

}  // namespace

PeerCertificate describe(X509* certificate);  // tls.cc

Transport::Transport(Socket socket) : socket_(std::move(socket)) {
  boost::system::error_code ec;
  socket_.native_non_blocking(true, ec);
}

Transport::~Transport() = default;

Error Transport::failure(const boost::system::error_code& ec, std::string_view what) const {
  if (expired_) return Error(ErrorKind::timeout, fmt::format("{}: the other side is too slow", what));
  if (aborted_) return Error(ErrorKind::unavailable, fmt::format("{}: the connection was closed", what));
  if (ec == asio::error::operation_aborted) return Error(ErrorKind::cancelled, fmt::format("{}: cancelled", what));
  return Error(ErrorKind::unavailable, fmt::format("{}: {}", what, ec.message()));
}

Task<Result<>> Transport::handshake_server(std::shared_ptr<asio::ssl::context> context) {
  context_ = std::move(context);
  tls_ = std::make_unique<Tls>(socket_, *context_);
  auto [ec] = co_await tls_->async_handshake(asio::ssl::stream_base::server, await_ec);
  if (ec) co_return fail(failure(ec, "TLS handshake"));
  co_return Result<>{};
}

Task<Result<>> Transport::handshake_client(std::shared_ptr<asio::ssl::context> context, std::string server_name) {
  context_ = std::move(context);
  tls_ = std::make_unique<Tls>(socket_, *context_);
  auto* ssl = tls_->native_handle();
  // An address is not allowed in SNI, and is compared with other fields of the certificate.
  if (X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl), server_name.c_str()) != 1) {
    SSL_set_tlsext_host_name(ssl, server_name.c_str());
    SSL_set1_host(ssl, server_name.c_str());
  }
  auto [ec] = co_await tls_->async_handshake(asio::ssl::stream_base::client, await_ec);
  if (ec) co_return fail(failure(ec, "TLS handshake"));
  co_return Result<>{};
}

std::optional<PeerCertificate> Transport::peer_certificate() const {
  if (!tls_) return std::nullopt;
  std::unique_ptr<X509, decltype(&X509_free)> certificate(SSL_get1_peer_certificate(tls_->native_handle()), X509_free);
  if (!certificate) return std::nullopt;
  return describe(certificate.get());
}

Task<Result<bool>> Transport::peek(char& first) {
  while (true) {
    auto [ec] = co_await socket_.async_wait(Socket::wait_read, await_ec);
    if (expired_ || ec) co_return fail(failure(ec, "read"));
    const auto n = ::recv(socket_.native_handle(), &first, 1, MSG_PEEK | MSG_DONTWAIT);
    if (n >= 0) co_return n == 1;
    if (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR) continue;
    ec.assign(errno, boost::system::system_category());
    co_return fail(failure(ec, "read"));
  }
}

Task<Result<std::size_t>> Transport::read_some(char* into, std::size_t size) {
  boost::system::error_code ec;
  std::size_t n = 0;
  if (tls_) {
    std::tie(ec, n) = co_await tls_->async_read_some(asio::buffer(into, size), await_ec);
    if (ec == asio::ssl::error::stream_truncated) ec = asio::error::eof;
  } else {
    std::tie(ec, n) = co_await socket_.async_read_some(asio::buffer(into, size), await_ec);
  }
  if (expired_ || (ec && ec != asio::error::eof)) co_return fail(failure(ec, "read"));
  co_return n;
}

Task<Result<>> Transport::write(std::string_view head, std::string_view body) {
  std::size_t window = 0;
  while (!head.empty() || !body.empty()) {
    if (aborted_) co_return fail(failure({}, "write"));
    boost::system::error_code ec;
    std::size_t n = 0;
    if (tls_) {
      auto part = head.empty() ? body : head;
      // One record for a small answer instead of two.
      std::string joined;
      if (!head.empty() && !body.empty() && head.size() + body.size() <= 16u << 10) {
        joined.reserve(head.size() + body.size());
        joined.append(head).append(body);
        part = joined;
      }
      std::tie(ec, n) = co_await tls_->async_write_some(asio::buffer(part.substr(0, write_step)), await_ec);
    } else {
      // Most answers fit into the socket's buffer: no need to go through the event loop for them.
      std::array<iovec, 2> parts{{{const_cast<char*>(head.data()), head.size()}, {const_cast<char*>(body.data()), body.size()}}};
      msghdr message{};
      message.msg_iov = parts.data();
      message.msg_iovlen = parts.size();
      const auto sent = ::sendmsg(socket_.native_handle(), &message, MSG_DONTWAIT | MSG_NOSIGNAL);
      if (sent >= 0) {
        n = static_cast<std::size_t>(sent);
      } else if (errno == EAGAIN || errno == EWOULDBLOCK) {
        std::tie(ec) = co_await socket_.async_wait(Socket::wait_write, await_ec);
      } else if (errno != EINTR) {
        ec.assign(errno, boost::system::system_category());
      }
    }
    if (ec) co_return fail(failure(ec, "write"));
    const auto from_head = std::min(n, head.size());
    head.remove_prefix(from_head);
    body.remove_prefix(n - from_head);
    window += n;
    if (write_window.count() != 0 && window >= write_step) {
      window = 0;
      deadline = std::chrono::steady_clock::now() + write_window;
    }
  }
  co_return Result<>{};
}

void Transport::finish_writing() noexcept {
  ::shutdown(socket_.native_handle(), SHUT_WR);
}

void Transport::abort() noexcept {
  if (aborted_) return;
  aborted_ = true;
  ::shutdown(socket_.native_handle(), SHUT_RDWR);
  boost::system::error_code ec;
  socket_.cancel(ec);
}

void Transport::expire() noexcept {
  expired_ = true;
  abort();
}

}  // namespace virga::http
