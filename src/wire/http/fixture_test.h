// For tests: a server on a private unix socket and on a loopback TLS port, its event loop on a thread of its own, so that a test
// can speak to it with plain blocking sockets.
#pragma once

#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <future>
#include <optional>
#include <string>
#include <thread>

#include "io/fd.h"
#include "wire/http/client.h"
#include "wire/http/server.h"

namespace virga::http::testing {

class Loop {
 public:
  Loop() : thread_([this] { io_.run(); }) {}
  ~Loop() {
    guard_.reset();
    thread_.join();
  }
  Executor executor() { return io_.get_executor(); }
  /// Runs a coroutine on the loop and waits for what it returns.
  template <class F>
  auto run(F function) {
    using T = typename std::invoke_result_t<F>::value_type;
    std::promise<std::optional<T>> promise;
    auto future = promise.get_future();
    TaskGroup group(executor());
    auto body = [&]() -> Task<> { promise.set_value(std::optional<T>(co_await function())); };
    boost::asio::post(io_, [&] { group.spawn("test", body()); });
    auto out = std::move(*future.get());
    quiet(group);
    return out;
  }
  /// Runs a plain function on the loop.
  template <class F>
  void call(F function) {
    std::promise<void> promise;
    boost::asio::post(io_, [&] {
      function();
      promise.set_value();
    });
    promise.get_future().get();
  }

 private:
  /// The group belongs to the loop: it is empty once a round has passed after the promise was kept.
  void quiet(TaskGroup& group) {
    bool empty = false;
    while (!empty) call([&] { empty = group.size() == 0; });
  }
  boost::asio::io_context io_;
  boost::asio::executor_work_guard<boost::asio::io_context::executor_type> guard_{io_.get_executor()};
  std::thread thread_;
};

struct Done {};

/// A directory that goes away.
class TemporaryDirectory {
 public:
  TemporaryDirectory() {
    std::string pattern = "/tmp/virga-http-XXXXXX";
    path_ = ::mkdtemp(pattern.data());
  }
  ~TemporaryDirectory() { [[maybe_unused]] auto n = std::system(("rm -rf '" + path_ + "'").c_str()); }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

class ServerFixture {
 public:
  explicit ServerFixture(Handler handler, ServerOptions options = {}) {
    loop.call([&] {
      server.emplace(loop.executor(), std::move(handler), std::move(options));
      auto ok = server->listen_unix(socket_path());
      ASSERT_TRUE(ok) << ok.error().text();
    });
  }
  ~ServerFixture() {
    loop.run([&]() -> Task<Done> {
      co_await server->stop();
      co_return Done{};
    });
    loop.call([&] { server.reset(); });
  }
  std::string socket_path() const { return directory.path() + "/s"; }

  /// A raw connection to the unix socket; reads time out after 20 s, so that a broken server fails a test instead of hanging it.
  io::UniqueFd connect() const {
    io::UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    socket_path().copy(address.sun_path, sizeof address.sun_path - 1);
    timeval patience{20, 0};
    ::setsockopt(fd.get(), SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    if (::connect(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) != 0) fd.reset();
    return fd;
  }
  static bool send(const io::UniqueFd& fd, std::string_view bytes) {
    while (!bytes.empty()) {
      const auto n = ::send(fd.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
      if (n <= 0) return false;
      bytes.remove_prefix(static_cast<std::size_t>(n));
    }
    return true;
  }
  /// Everything until the server closes; "(no end)" is appended when it does not.
  static std::string read_to_end(const io::UniqueFd& fd) {
    std::string out;
    char buffer[4096];
    while (true) {
      const auto n = ::recv(fd.get(), buffer, sizeof buffer, 0);
      if (n > 0) out.append(buffer, static_cast<std::size_t>(n));
      if (n == 0 || (n < 0 && errno == ECONNRESET)) return out;
      if (n < 0) return out + "(no end)";
    }
  }
  /// Reads until `text` has come (true) or the end.
  static bool read_until(const io::UniqueFd& fd, std::string& out, std::string_view text) {
    char buffer[4096];
    while (out.find(text) == std::string::npos) {
      const auto n = ::recv(fd.get(), buffer, sizeof buffer, 0);
      if (n <= 0) return false;
      out.append(buffer, static_cast<std::size_t>(n));
    }
    return true;
  }
  /// Sends bytes on a fresh connection and returns all that comes back until the server closes.
  std::string raw(std::string_view bytes) const {
    auto fd = connect();
    send(fd, bytes);
    return read_to_end(fd);
  }

  Loop loop;
  TemporaryDirectory directory;
  std::optional<Server> server;
};

}  // namespace virga::http::testing
