#include "wire/http/server.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/stat.h>
#include <sys/un.h>

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <cerrno>
#include <cstring>
#include <list>
#include <unordered_map>

#include "base/log.h"
#include "io/file.h"
#include "wire/http/address.h"
#include "wire/http/connection.h"

namespace asio = boost::asio;

namespace virga::http {
namespace {

constexpr auto await_ec = asio::as_tuple(asio::use_awaitable);
constexpr int accept_batch = 64;

struct Listener {
  io::UniqueFd fd;
  int family = AF_UNIX;
  std::string path;  ///< of a unix socket: removed at the end
  std::shared_ptr<asio::ssl::context> tls;
  std::size_t per_peer = 0;
  std::size_t total = 0;
  std::unordered_map<std::string, std::size_t> of_peer;
  TaskGroup::Id task = 0;
};

void release(Listener& listener, const std::string& peer) {
  if (--listener.of_peer[peer] == 0) listener.of_peer.erase(peer);
}

void set_option(int fd, int level, int name, int value) {
  ::setsockopt(fd, level, name, &value, sizeof value);
}

void tune_tcp(int fd) {
  set_option(fd, IPPROTO_TCP, TCP_NODELAY, 1);
  // A peer whose machine died is noticed within about a minute, also by a WebSocket that waits for ever.
  set_option(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
  set_option(fd, IPPROTO_TCP, TCP_KEEPIDLE, 30);
  set_option(fd, IPPROTO_TCP, TCP_KEEPINTVL, 10);
  set_option(fd, IPPROTO_TCP, TCP_KEEPCNT, 3);
  set_option(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, 60'000);
}

bool hung_up(int fd) {
  pollfd p{fd, POLLRDHUP, 0};
  return ::poll(&p, 1, 0) == 1 && (p.revents & (POLLRDHUP | POLLHUP | POLLERR)) != 0;
}

}  // namespace

struct Server::State {
  struct Entry {
    Transport* transport;
    std::weak_ptr<ConnectionState> connection;
    TaskGroup::Id task;
  };

  State(Executor executor, Handler handler, ServerOptions options)
      : group(executor), changed(executor), context(std::make_shared<ConnectionContext>()) {
    context->handler = std::move(handler);
    context->options = std::move(options);
    spare = io::open_path("/dev/null", O_RDONLY).value_or(io::UniqueFd());
  }

  const Limits& limits() const { return context->options.limits; }

  TaskGroup group;
  Notification changed;  ///< the first connection has come
  std::shared_ptr<ConnectionContext> context;
  std::list<Entry> entries;
  std::list<std::shared_ptr<Listener>> listeners;
  io::UniqueFd spare;  ///< given up for a moment when descriptors run out, to turn a client away instead of spinning
  bool sweeping = false;
  bool stopping = false;
};

namespace {

/// Counts a connection from accept until its socket is gone, wherever a WebSocket was handed to.
class Lease {
 public:
  Lease(std::weak_ptr<void> state, std::function<void()> release) : state_(std::move(state)), release_(std::move(release)) {}
  ~Lease() {
    if (state_.lock()) release_();
  }
  Lease(const Lease&) = delete;
  Lease& operator=(const Lease&) = delete;

 private:
  std::weak_ptr<void> state_;
  std::function<void()> release_;
};

}  // namespace

/// The tasks of a server; they hold its state, not the server.
struct ServerTasks {
  using State = Server::State;

  /// Enforces every deadline: one timer for all connections instead of one for each wait.
  static Task<> sweep(std::shared_ptr<State> state) {
    const auto interval = std::clamp(state->limits().header_timeout / 6, Milliseconds(5), Milliseconds(500));
    // Also while stopping: the last requests have their deadlines too. A cancel between two waits is seen here only.
    while (!co_await is_cancelled()) {
      if (state->entries.empty()) {
        if (!co_await state->changed.wait()) co_return;
        continue;
      }
      if (!co_await sleep_for(interval)) co_return;
      const auto now = std::chrono::steady_clock::now();
      for (auto& entry : state->entries) {
        if (entry.transport->deadline <= now) entry.transport->expire();
        auto connection = entry.connection.lock();
        if (connection && connection->in_handler && connection->request.cancel_on_hangup && hung_up(entry.transport->fd()))
          state->group.cancel(entry.task);
      }
    }
  }

  static Task<> accept_loop(std::shared_ptr<State> state, std::shared_ptr<Listener> listener) {
    asio::posix::stream_descriptor waiter(co_await asio::this_coro::executor, ::fcntl(listener->fd.get(), F_DUPFD_CLOEXEC, 3));
    while (!state->stopping) {
      auto [ec] = co_await waiter.async_wait(asio::posix::stream_descriptor::wait_read, await_ec);
      if (ec) co_return;
      for (int i = 0; i < accept_batch; ++i) {
        sockaddr_storage address{};
        socklen_t size = sizeof address;
        io::UniqueFd fd(::accept4(listener->fd.get(), reinterpret_cast<sockaddr*>(&address), &size, SOCK_CLOEXEC | SOCK_NONBLOCK));
        if (fd) {
          admit(state, listener, std::move(fd), reinterpret_cast<sockaddr*>(&address));
          continue;
        }
        if (errno == EAGAIN || errno == EWOULDBLOCK) break;
        if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
          log::warn("no descriptor or memory left for a client: {}", std::strerror(errno));
          state->spare.reset();
          io::UniqueFd turned_away(::accept4(listener->fd.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
          turned_away.reset();
          state->spare = io::open_path("/dev/null", O_RDONLY).value_or(io::UniqueFd());
          if (!co_await sleep_for(Milliseconds(20))) co_return;
          break;
        }
        // ECONNABORTED and its kin concern one client only.
      }
    }
  }

  static void admit(const std::shared_ptr<State>& state, const std::shared_ptr<Listener>& listener, io::UniqueFd fd,
                    const sockaddr* address) {
    auto connection = std::make_shared<ConnectionState>();
    std::string key, host;
    if (listener->family == AF_UNIX) {
      ucred credentials{};
      socklen_t size = sizeof credentials;
      if (::getsockopt(fd.get(), SOL_SOCKET, SO_PEERCRED, &credentials, &size) != 0) return;
      // A long list takes a few turns of the loop instead of fifty.
      set_option(fd.get(), SOL_SOCKET, SO_SNDBUF, 1 << 20);
      connection->peer.local = true;
      connection->peer.uid = credentials.uid;
      connection->peer.gid = credentials.gid;
      connection->peer.pid = credentials.pid;
      connection->peer.address = "@";
      key = fmt::format("{}", credentials.uid);
    } else {
      tune_tcp(fd.get());
      connection->peer.address = format_address(address);
      host = host_of(address);
      key = network_of(host);
    }
    const auto& trusts_proxy = state->context->options.trusts_proxy;
    const bool proxied = listener->tls && trusts_proxy && trusts_proxy(host);
    auto& mine = listener->of_peer[key];
    // Whose connections a proxy passes on is not known yet.
    if (listener->total >= state->limits().max_connections || (mine >= listener->per_peer && !proxied)) {
      if (mine == 0) listener->of_peer.erase(key);
      if (!listener->tls) {
        static constexpr std::string_view full =
            "HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
        [[maybe_unused]] auto ignored = ::send(fd.get(), full.data(), full.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
      }
      return;
    }
    ++mine;
    ++listener->total;
    const int family = listener->family;
    const int raw = fd.release();
    connection->transport = std::make_unique<Transport>(Transport::Socket(
        state->group.executor(), asio::generic::stream_protocol(family, family == AF_UNIX ? 0 : IPPROTO_TCP), raw));
    connection->transport->deadline = std::chrono::steady_clock::now() + state->limits().idle_timeout;
    auto entry = state->entries.insert(state->entries.end(), {connection->transport.get(), connection, 0});
    auto* books = state.get();
    auto counted = std::make_shared<std::string>(key);
    if (proxied) {
      connection->count_as = [listener, counted](const std::string& behind) {
        const auto peer = network_of(behind);
        auto& others = listener->of_peer[peer];
        const bool room = others < listener->per_peer;
        if (room) ++others;
        if (others == 0) listener->of_peer.erase(peer);
        if (!room) return false;
        release(*listener, *counted);
        *counted = peer;
        return true;
      };
    }
    connection->transport->lease = std::make_shared<Lease>(state, [books, listener, counted, entry] {
      books->entries.erase(entry);
      --listener->total;
      release(*listener, *counted);
    });
    auto context = state->context;
    auto tls = listener->tls;
    entry->task = state->group.spawn("http connection", serve_connection(std::move(context), connection, std::move(tls)));
    if (!std::exchange(state->sweeping, true)) state->group.spawn("http deadlines", sweep(state));
    state->changed.notify();
  }

  static void start(const std::shared_ptr<State>& state, Listener listener) {
    auto shared = std::make_shared<Listener>(std::move(listener));
    const auto given = state->limits().max_connections_per_peer;
    shared->per_peer = given != 0 ? given : shared->family == AF_UNIX ? 4096 : 512;
    state->listeners.push_back(shared);
    shared->task = state->group.spawn("http listener", accept_loop(state, shared));
  }
};

Server::Server(Executor executor, Handler handler, ServerOptions options)
    : state_(std::make_shared<State>(std::move(executor), std::move(handler), std::move(options))) {}

Server::~Server() {
  for (auto& l : state_->listeners)
    if (!l->path.empty()) ::unlink(l->path.c_str());
}

Result<> Server::listen_unix(const std::string& path, unsigned mode) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.empty() || path.size() >= sizeof address.sun_path)
    return invalid("socket", fmt::format("the socket path '{}' must have 1 to {} bytes", path, sizeof address.sun_path - 1));
  std::memcpy(address.sun_path, path.c_str(), path.size());
  Listener listener;
  listener.path = path;
  listener.fd.reset(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!listener.fd) return fail_errno(errno, "make a unix socket");
  ::unlink(path.c_str());
  // The mode is right before the socket takes anybody: bind, chmod, listen.
  if (::bind(listener.fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) != 0 || ::chmod(path.c_str(), mode) != 0 ||
      ::listen(listener.fd.get(), 1024) != 0)
    return fail_errno(errno, fmt::format("listen on '{}'", path));
  ServerTasks::start(state_, std::move(listener));
  return {};
}

Result<std::string> Server::listen_tls(const std::string& address, const Identity& identity) {
  VIRGA_TRY(auto parsed, parse_address(address));
  Listener listener;
  listener.family = parsed.get()->sa_family;
  VIRGA_TRY(listener.tls, make_server_context(identity));
  listener.fd.reset(::socket(listener.family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, IPPROTO_TCP));
  if (!listener.fd) return fail_errno(errno, "make a TCP socket");
  set_option(listener.fd.get(), SOL_SOCKET, SO_REUSEADDR, 1);
  if (listener.family == AF_INET6) set_option(listener.fd.get(), IPPROTO_IPV6, IPV6_V6ONLY, 0);
  if (::bind(listener.fd.get(), parsed.get(), parsed.size) != 0 || ::listen(listener.fd.get(), 1024) != 0)
    return fail_errno(errno, fmt::format("listen on '{}'", address));
  sockaddr_storage bound{};
  socklen_t size = sizeof bound;
  ::getsockname(listener.fd.get(), reinterpret_cast<sockaddr*>(&bound), &size);
  ServerTasks::start(state_, std::move(listener));
  return format_address(reinterpret_cast<sockaddr*>(&bound));
}

void Server::stop_listening() noexcept {
  for (auto& l : state_->listeners) {
    if (!l->path.empty()) ::unlink(l->path.c_str());
    l->path.clear();
    // Frees the address at once; the descriptors are closed when the task ends.
    ::shutdown(l->fd.get(), SHUT_RDWR);
    state_->group.cancel(l->task);
  }
  state_->listeners.clear();
}

Task<> Server::stop(Milliseconds grace) {
  auto state = state_;
  state->stopping = true;
  state->context->closing = true;
  stop_listening();
  for (auto& entry : state->entries) {
    auto connection = entry.connection.lock();
    if (connection && connection->idle) entry.transport->abort();
  }
  const auto until = std::chrono::steady_clock::now() + grace;
  while (!state->entries.empty() && std::chrono::steady_clock::now() < until)
    if (!co_await sleep_for(Milliseconds(20))) break;
  state->group.cancel();
  for (auto& entry : state->entries) entry.transport->abort();
  co_await state->group.join();
}

void Server::close_certificate(std::string_view fingerprint) noexcept {
  for (auto& entry : state_->entries) {
    auto connection = entry.connection.lock();
    if (!connection) continue;
    const auto& shown = connection->peer.certificate;
    if ((!shown || shown->fingerprint != fingerprint) && connection->request.vouched_by != fingerprint) continue;
    // A client that takes its own certificate away still gets the answer.
    connection->last = true;
    if (!connection->in_handler) entry.transport->abort();
  }
}

std::size_t Server::connections() const noexcept {
  return state_->entries.size();
}

}  // namespace virga::http
