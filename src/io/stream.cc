#include "io/stream.h"

#include <sys/socket.h>

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/buffer.hpp>
#include <boost/asio/generic/stream_protocol.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/asio/write.hpp>

namespace asio = boost::asio;

namespace virga::io {
namespace {

constexpr auto await_ec = asio::as_tuple(asio::use_awaitable);
constexpr std::size_t step = 64u << 10;

class SocketStream final : public ByteStream {
 public:
  SocketStream(const Executor& executor, UniqueFd fd, std::shared_ptr<void> keep)
      : socket_(std::make_shared<Socket>(executor, asio::generic::stream_protocol(AF_UNIX, 0), fd.release())),
        keep_(std::move(keep)) {}
  ~SocketStream() override { abort(); }

  Task<Result<std::string>> read() override {
    auto socket = socket_;  // we may be destroyed while it waits
    std::string buffer(step, '\0');
    auto [ec, n] = co_await socket->async_read_some(asio::buffer(buffer), await_ec);
    if (ec == asio::error::eof) co_return std::string();
    if (ec) co_return fail(co_await failure(ec));
    buffer.resize(n);
    co_return buffer;
  }

  Task<Result<>> write(std::string bytes) override {
    auto socket = socket_;
    auto [ec, n] = co_await asio::async_write(*socket, asio::buffer(bytes), await_ec);
    if (ec) co_return fail(co_await failure(ec));
    co_return Result<>{};
  }

  void abort() noexcept override {
    boost::system::error_code ignored;
    socket_->close(ignored);
  }

 private:
  using Socket = asio::generic::stream_protocol::socket;
  static Task<Error> failure(boost::system::error_code ec) {
    if (co_await is_cancelled()) co_return Error(ErrorKind::cancelled, "cancelled");
    co_return Error(ErrorKind::unavailable, "the stream broke: " + ec.message());
  }
  std::shared_ptr<Socket> socket_;
  std::shared_ptr<void> keep_;
};

}  // namespace

std::unique_ptr<ByteStream> make_stream(const Executor& executor, UniqueFd socket, std::shared_ptr<void> keep) {
  return std::make_unique<SocketStream>(executor, std::move(socket), std::move(keep));
}

Result<SocketPair> make_socket_pair() {
  int ends[2];
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) return fail_errno(errno, "socketpair");
  return SocketPair{UniqueFd(ends[0]), UniqueFd(ends[1])};
}

}  // namespace virga::io
