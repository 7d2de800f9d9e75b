#include "wire/qmp/client.h"

#include <fmt/format.h>
#include <sys/socket.h>

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/buffer.hpp>
#include <boost/asio/local/stream_protocol.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <deque>
#include <map>

#include "base/log.h"
#include "io/unix_socket.h"
#include "wire/qmp/message.h"

namespace asio = boost::asio;

namespace virga::qmp {
namespace {

constexpr auto await_ec = asio::as_tuple(asio::use_awaitable);
/// Commands are small; a QEMU that reads none of them gets no more than this.
constexpr std::size_t max_unsent = 1u << 20;
/// A large line is read in pieces of this size, with the loop free in between.
constexpr std::size_t read_size = 64u << 10;

struct Pending {
  explicit Pending(const Executor& executor) : answered(executor) {}
  Notification answered;
  std::optional<Result<json::value>> result;
};

}  // namespace

/// Shared by the client and its two background tasks; the tasks end when the socket is closed.
struct Client::State : std::enable_shared_from_this<State> {
  State(const Executor& executor, int fd)
      : socket(executor, asio::local::stream_protocol(), fd), tasks(executor), greeted(executor), unsent_grew(executor) {}

  asio::local::stream_protocol::socket socket;
  TaskGroup tasks;
  Notification greeted;
  Notification unsent_grew;
  std::optional<Greeting> greeting;
  std::map<std::uint64_t, std::shared_ptr<Pending>> pending;
  std::string unsent;
  std::deque<std::pair<std::size_t, io::UniqueFd>> unsent_fds;  ///< with the byte of `unsent` that each goes along with
  std::uint64_t next_id = 1;
  std::function<void(Event)> event_handler;
  std::function<void(Error)> close_handler;
  std::optional<Error> closed;
  bool abandoned = false;  ///< by the destructor: no handler is called

  void close(Error why) {
    if (closed) return;
    closed = std::move(why);
    boost::system::error_code ignored;
    socket.close(ignored);
    auto waiting = std::exchange(pending, {});
    for (auto& [id, p] : waiting) {
      p->result = fail(*closed);
      p->answered.notify();
    }
    greeted.notify();
    unsent_grew.notify();
    if (abandoned) return;
    if (auto handler = std::exchange(close_handler, nullptr)) handler(*closed);
  }

  void take(Message message) {
    if (auto* event = std::get_if<EventMessage>(&message)) {
      // A copy: the handler may replace itself or destroy the client.
      if (auto handler = event_handler) handler(Event{std::move(event->name), std::move(event->data)});
    } else if (auto* reply = std::get_if<Reply>(&message)) {
      auto it = pending.find(reply->id);
      if (it == pending.end()) return;  // it came after the time-out
      auto p = std::move(it->second);
      pending.erase(it);
      p->result = std::move(reply->result);
      p->answered.notify();
    } else if (!greeting) {
      greeting = std::get<Greeting>(std::move(message));
      greeted.notify();
    }
  }

  static Task<> read_lines(std::shared_ptr<State> self) {
    std::string buffer;
    std::size_t searched = 0;
    while (!self->closed) {
      const auto filled = buffer.size();
      buffer.resize(filled + read_size);
      auto [ec, n] = co_await self->socket.async_read_some(asio::buffer(buffer.data() + filled, read_size), await_ec);
      buffer.resize(filled + n);
      if (ec) {
        self->close(Error(ErrorKind::unavailable, "QEMU closed the monitor connection"));
        co_return;
      }
      std::size_t start = 0;
      for (auto end = buffer.find('\n', searched); end != std::string::npos; end = buffer.find('\n', start)) {
        std::string_view line(buffer.data() + start, end - start);
        if (!line.empty() && line.back() == '\r') line.remove_suffix(1);
        start = end + 1;
        if (line.empty()) continue;
        auto message = parse_message(line);
        if (!message) {
          self->close(Error(ErrorKind::unavailable, fmt::format("QEMU's monitor sent nonsense: {}", message.error().chain())));
          co_return;
        }
        self->take(std::move(*message));
        if (self->closed) co_return;
      }
      buffer.erase(0, start);
      searched = buffer.size();
      if (buffer.size() > max_line) {
        self->close(Error(ErrorKind::unavailable, "QEMU's monitor sent a line longer than 16 MiB"));
        co_return;
      }
    }
  }

  static Task<> write_commands(std::shared_ptr<State> self) {
    std::string sending;
    while (!self->closed) {
      if (self->unsent.empty()) {
        co_await self->unsent_grew.wait();
        continue;
      }
      sending.clear();
      sending.swap(self->unsent);
      auto fds = std::exchange(self->unsent_fds, {});
      for (std::size_t done = 0; done < sending.size() && !self->closed;) {
        auto [ec] = co_await self->socket.async_wait(asio::local::stream_protocol::socket::wait_write, await_ec);
        if (self->closed) co_return;
        const bool with_fd = !fds.empty() && fds.front().first == done;
        const auto until = fds.size() > (with_fd ? 1u : 0u) ? fds[with_fd ? 1 : 0].first : sending.size();
        const auto n =
            ec ? -1 : self->send(std::string_view(sending).substr(done, until - done), with_fd ? fds.front().second.get() : -1);
        if (n < 0 && !ec && (errno == EAGAIN || errno == EINTR)) continue;
        if (n <= 0) {
          self->close(Error(ErrorKind::unavailable, "QEMU closed the monitor connection"));
          co_return;
        }
        if (with_fd) fds.pop_front();
        done += static_cast<std::size_t>(n);
      }
    }
  }

  ssize_t send(std::string_view bytes, int fd) {
    iovec io{const_cast<char*>(bytes.data()), bytes.size()};
    alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
    msghdr message{};
    message.msg_iov = &io;
    message.msg_iovlen = 1;
    if (fd >= 0) {
      message.msg_control = control;
      message.msg_controllen = sizeof control;
      auto* header = CMSG_FIRSTHDR(&message);
      header->cmsg_level = SOL_SOCKET;
      header->cmsg_type = SCM_RIGHTS;
      header->cmsg_len = CMSG_LEN(sizeof(int));
      std::memcpy(CMSG_DATA(header), &fd, sizeof fd);
    }
    return ::sendmsg(socket.native_handle(), &message, MSG_DONTWAIT | MSG_NOSIGNAL);
  }

  static Task<Result<json::value>> run(std::shared_ptr<State> self, std::string command, json::object arguments,
                                       Milliseconds timeout, io::UniqueFd fd = {}) {
    if (self->closed) co_return fail(Error(*self->closed).wrap(fmt::format("QMP command '{}'", command)));
    const auto id = self->next_id++;
    auto line = format_command(command, arguments, id);
    if (self->unsent.size() + line.size() > max_unsent)
      co_return fail(ErrorKind::unavailable, fmt::format("QMP command '{}': QEMU does not read its monitor", command));
    auto mine = std::make_shared<Pending>(self->tasks.executor());
    self->pending.emplace(id, mine);
    if (fd) self->unsent_fds.emplace_back(self->unsent.size(), std::move(fd));
    self->unsent += line;
    self->unsent_grew.notify();
    if (!mine->result) co_await mine->answered.wait_for(timeout);
    if (!mine->result) {
      self->pending.erase(id);
      if (co_await is_cancelled()) co_return fail(ErrorKind::cancelled, fmt::format("QMP command '{}' was cancelled", command));
      co_return fail(ErrorKind::timeout,
                     fmt::format("QMP command '{}': no answer from QEMU within {} ms", command, timeout.count()));
    }
    if (!*mine->result) co_return fail(std::move(*mine->result).error().wrap(fmt::format("QMP command '{}'", command)));
    co_return std::move(*mine->result);
  }
};

Client::Client(std::shared_ptr<State> state) : state_(std::move(state)) {}

Client::~Client() {
  state_->abandoned = true;
  state_->event_handler = nullptr;
  state_->close(Error(ErrorKind::unavailable, "the monitor connection was closed"));
}

Task<Result<std::unique_ptr<Client>>> Client::connect(std::string path, Milliseconds timeout) {
  const auto began = std::chrono::steady_clock::now();
  VIRGA_CO_TRY(auto socket, co_await io::connect_unix(std::move(path), timeout));
  const auto used = std::chrono::duration_cast<Milliseconds>(std::chrono::steady_clock::now() - began);
  co_return co_await negotiate(std::move(socket), std::max(timeout - used, Milliseconds(1)));
}

Task<Result<std::unique_ptr<Client>>> Client::negotiate(io::UniqueFd socket, Milliseconds timeout) {
  auto state = std::make_shared<State>(co_await current_executor(), socket.release());
  std::unique_ptr<Client> client(new Client(state));
  state->tasks.spawn("qmp reader", State::read_lines(state));
  state->tasks.spawn("qmp writer", State::write_commands(state));
  if (!state->greeting && !state->closed) co_await state->greeted.wait_for(timeout);
  if (state->closed) co_return fail(*state->closed);
  if (!state->greeting) {
    if (co_await is_cancelled()) co_return fail(ErrorKind::cancelled, "cancelled while waiting for QEMU's greeting");
    co_return fail(ErrorKind::timeout, fmt::format("no greeting on QEMU's monitor within {} ms", timeout.count()));
  }
  auto agreed = co_await client->execute("qmp_capabilities", {}, timeout);
  if (!agreed) co_return fail(std::move(agreed).error());
  co_return client;
}

Task<Result<json::value>> Client::execute(std::string command, json::object arguments, Milliseconds timeout) {
  // Not a coroutine itself: what runs owns the state, so that destroying the client meanwhile is safe.
  return State::run(state_, std::move(command), std::move(arguments), timeout);
}

Task<Result<json::value>> Client::execute_with(io::UniqueFd fd, std::string command, json::object arguments, Milliseconds timeout) {
  return State::run(state_, std::move(command), std::move(arguments), timeout, std::move(fd));
}

void Client::on_event(std::function<void(Event)> handler) {
  state_->event_handler = std::move(handler);
}

void Client::on_close(std::function<void(Error)> handler) {
  if (state_->closed) {
    auto tell = [](std::shared_ptr<State> state, std::function<void(Error)> h) -> Task<> {
      if (!state->abandoned) h(*state->closed);
      co_return;
    };
    state_->tasks.spawn("qmp closed", tell(state_, std::move(handler)));
    return;
  }
  state_->close_handler = std::move(handler);
}

bool Client::connected() const noexcept {
  return !state_->closed;
}
const std::string& Client::version() const noexcept {
  return state_->greeting->version;
}

}  // namespace virga::qmp
