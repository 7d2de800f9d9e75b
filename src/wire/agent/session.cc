#include "wire/agent/session.h"

#include <fmt/format.h>

#include <array>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/buffer.hpp>
#include <boost/asio/local/stream_protocol.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <map>
#include <unordered_map>

#include "base/log.h"
#include "base/random.h"

namespace asio = boost::asio;

namespace virga::agent {
namespace {

constexpr auto await_ec = asio::as_tuple(asio::use_awaitable);
/// Who would send more than this of unsent bytes waits.
constexpr std::size_t queue_room = 256u << 10;
/// Nothing that cannot wait (window, close, hello) comes near this while the other end is sane.
constexpr std::size_t queue_limit = 4u << 20;

struct Request {
  explicit Request(const Executor& executor) : answered(executor) {}
  Type expected{};
  Notification answered;
  std::optional<std::string> payload;
  std::optional<Error> failed;
};

Error gone() {
  return Error(ErrorKind::unavailable, "the connection to the guest's agent is closed");
}

}  // namespace

struct Command::State {
  State(const Executor& executor, std::weak_ptr<Session::State> s, std::uint32_t id)
      : session(std::move(s)), stream(id), changed(executor) {}
  struct Incoming {
    std::string buffer;
    std::uint32_t allowed = output_window;  ///< what the agent may still send
    std::uint32_t taken = 0;                ///< read by the caller and not yet allowed again
    bool ended = false;
  };
  std::weak_ptr<Session::State> session;
  std::uint32_t stream;
  Notification changed;
  std::array<Incoming, 2> incoming;
  std::uint32_t input_room = 0;
  bool started = false;
  bool input_ended = false;
  std::optional<int> exit_code;
  std::optional<Error> lost;

  bool finished() const { return lost || (exit_code && incoming[0].ended && incoming[1].ended); }
  void lose(const Error& why) {
    if (finished()) return;
    lost = why;
    changed.notify();
  }
  static Task<Result<>> write(std::shared_ptr<State> self, std::string bytes);
  static Task<Result<>> close_input(std::shared_ptr<State> self);
  static Task<Result<std::string>> read(std::shared_ptr<State> self, std::size_t which);
  static Task<Result<>> send(std::shared_ptr<State> self, Type type, std::string payload);
  static Task<Result<int>> wait(std::shared_ptr<State> self);
};

struct Session::State : std::enable_shared_from_this<State> {
  State(const Executor& executor, int fd)
      : socket(executor, asio::local::stream_protocol(), fd), tasks(executor), ready_changed(executor), unsent_changed(executor) {}

  asio::local::stream_protocol::socket socket;
  TaskGroup tasks;
  Notification ready_changed;
  Notification unsent_changed;
  Hello hello;
  bool ready = false;
  std::string unsent;
  std::size_t sending_size = 0;
  Decoder decoder;
  std::uint64_t damaged_seen = 0;
  std::uint32_t next_stream = 1;
  std::unordered_map<std::uint32_t, std::shared_ptr<Command::State>> commands;
  std::map<std::uint32_t, std::shared_ptr<Request>> requests;
  std::function<void(Error)> close_handler;
  std::optional<Error> closed;
  bool abandoned = false;

  void close(Error why) {
    if (closed) return;
    closed = std::move(why);
    boost::system::error_code ignored;
    socket.close(ignored);
    forget_session(*closed);
    ready_changed.notify();
    unsent_changed.notify();
    if (abandoned) return;
    if (auto handler = std::exchange(close_handler, nullptr)) handler(*closed);
  }

  void forget_session(const Error& why) {
    ready = false;
    for (auto& [id, command] : std::exchange(commands, {})) command->lose(why);
    for (auto& [id, request] : std::exchange(requests, {})) {
      request->failed = why;
      request->answered.notify();
    }
  }

  std::size_t queued() const { return unsent.size() + sending_size; }

  void push(Type type, std::uint32_t stream, std::string_view payload) {
    if (closed) return;
    if (queued() > queue_limit) {
      close(Error(ErrorKind::unavailable, "the guest's agent reads nothing"));
      return;
    }
    const auto before = unsent.size();
    unsent.resize(before + header_size + payload.size() + payload.size() / 254 + 4);
    const auto n = encode_frame(static_cast<std::uint8_t>(type), stream, payload.data(), payload.size(),
                                reinterpret_cast<Byte*>(unsent.data()) + before);
    unsent.resize(before + n);
    unsent_changed.notify();
  }

  void say_hello() {
    forget_session(Error(ErrorKind::unavailable, "the agent in the guest was restarted"));
    if (queued() > queue_room) {
      close(Error(ErrorKind::unavailable, "the guest's agent starts again and again"));
      return;
    }
    const auto random = random_hex(nonce_size / 2);
    std::memcpy(hello.nonce, random.data(), nonce_size);
    Byte payload[64];
    Writer w(payload, sizeof payload);
    write_hello(w, hello);
    unsent.push_back('\0');
    push(Type::hello, 0, {reinterpret_cast<const char*>(payload), w.size()});
  }

  bool violation(std::string_view what) {
    close(Error(ErrorKind::unavailable, fmt::format("the agent in the guest broke the protocol: {}", what)));
    return false;
  }

  /// False ends the connection.
  bool take(const Frame& frame) {
    const auto type = static_cast<Type>(frame.type);
    if (type == Type::welcome) {
      Reader r(frame.payload, frame.size);
      Hello answer;
      if (read_hello(r, answer) && std::memcmp(answer.nonce, hello.nonce, nonce_size) == 0 && !ready) {
        ready = true;
        damaged_seen = decoder.damaged();
        ready_changed.notify();
      }
      return true;
    }
    if (type == Type::announce) {
      say_hello();
      return !closed;
    }
    if (!ready) return true;  // of an earlier session
    switch (type) {
      case Type::started:
      case Type::data:
      case Type::end:
      case Type::window:
      case Type::exit: {
        auto it = commands.find(frame.stream);
        return it == commands.end() || take_for(*it->second, type, frame);
      }
      case Type::state_reply:
      case Type::power_reply:
      case Type::freeze_reply:
      case Type::thaw_reply:
      case Type::pong: {
        auto it = requests.find(frame.stream);
        if (it == requests.end() || it->second->expected != type) return true;
        auto request = std::move(it->second);
        requests.erase(it);
        request->payload.emplace(reinterpret_cast<const char*>(frame.payload), frame.size);
        request->answered.notify();
        return true;
      }
      default:
        return true;
    }
  }

  bool take_for(Command::State& command, Type type, const Frame& frame) {
    Reader r(frame.payload, frame.size);
    if (type == Type::started) {
      r.u32();  // the pid in the guest: nothing here needs it
      const auto window = r.u32();
      if (!r.ok() || window > (16u << 20)) return violation("bad 'started'");
      command.started = true;
      command.input_room = window;
    } else if (type == Type::exit) {
      const auto code = r.u32();
      if (!r.ok() || code > 255) return violation("bad exit code");
      if (!command.exit_code) command.exit_code = static_cast<int>(code);
    } else {
      const auto channel = r.u8();
      if (!r.ok() || channel > 2) return violation("bad channel");
      if (type == Type::window) {
        const auto more = r.u32();
        if (!r.ok() || channel != 0 || more > (16u << 20) || command.input_room > (16u << 20)) return violation("bad window");
        command.input_room += more;
      } else if (channel == 0) {
        if (type != Type::end) return violation("data in the wrong direction");
        command.input_ended = true;
      } else {
        auto& in = command.incoming[channel - 1u];
        if (in.ended) return violation("a stream went on behind its end");
        if (type == Type::end) {
          in.ended = true;
        } else {
          if (r.left() > in.allowed) return violation("more output than was asked for");
          in.allowed -= static_cast<std::uint32_t>(r.left());
          in.buffer.append(reinterpret_cast<const char*>(r.rest()), r.left());
        }
      }
    }
    command.changed.notify();
    if (command.finished()) commands.erase(command.stream);
    return true;
  }

  static Task<> read_frames(std::shared_ptr<State> self) {
    std::vector<Byte> buffer(16u << 10);
    while (!self->closed) {
      auto [ec, n] = co_await self->socket.async_read_some(asio::buffer(buffer), await_ec);
      if (ec) {
        self->close(Error(ErrorKind::unavailable, "the connection to the guest's agent broke"));
        co_return;
      }
      self->decoder.feed(buffer.data(), n, [&](const Frame& frame) { return self->take(frame); });
      // A frame cut in two while a session stands: the agent died in the middle of it. The next one may not announce itself in one
      // piece.
      if (self->ready && self->decoder.damaged() != self->damaged_seen) self->say_hello();
    }
  }

  static Task<> write_frames(std::shared_ptr<State> self) {
    std::string sending;
    while (!self->closed) {
      if (self->unsent.empty()) {
        co_await self->unsent_changed.wait();
        continue;
      }
      sending.clear();
      sending.swap(self->unsent);
      std::size_t done = 0;
      while (done < sending.size() && !self->closed) {
        self->sending_size = sending.size() - done;
        auto [ec, n] = co_await self->socket.async_write_some(asio::buffer(sending.data() + done, sending.size() - done), await_ec);
        if (ec) {
          self->close(Error(ErrorKind::unavailable, "the connection to the guest's agent broke"));
          co_return;
        }
        done += n;
      }
      self->sending_size = 0;
      self->unsent_changed.notify();
    }
  }

  /// Waits until the queue has room. Errors: unavailable, cancelled, timeout.
  static Task<Result<>> wait_room(std::shared_ptr<State> self, Milliseconds timeout) {
    const auto deadline = std::chrono::steady_clock::now() + std::min(timeout, Milliseconds(86'400'000));
    while (!self->closed && self->queued() > queue_room) {
      const auto left = std::chrono::duration_cast<Milliseconds>(deadline - std::chrono::steady_clock::now());
      if (left.count() <= 0) co_return fail(ErrorKind::unavailable, "the agent in the guest reads nothing");
      if (!co_await self->unsent_changed.wait_for(left) && co_await is_cancelled())
        co_return fail(ErrorKind::cancelled, "cancelled");
    }
    if (self->closed) co_return fail(*self->closed);
    co_return Result<>{};
  }

  static Task<Result<std::string>> ask(std::shared_ptr<State> self, Type type, std::string payload, Type expected,
                                       Milliseconds timeout) {
    if (self->closed) co_return fail(*self->closed);
    if (!self->ready) co_return fail(ErrorKind::unavailable, "no agent answers in the guest");
    VIRGA_CO_CHECK(co_await wait_room(self, timeout));
    if (!self->ready) co_return fail(ErrorKind::unavailable, "no agent answers in the guest");
    const auto id = self->next_stream++;
    auto request = std::make_shared<Request>(self->tasks.executor());
    request->expected = expected;
    self->requests.emplace(id, request);
    self->push(type, id, payload);
    if (!request->payload && !request->failed) co_await request->answered.wait_for(timeout);
    self->requests.erase(id);
    if (request->payload) co_return std::move(*request->payload);
    if (request->failed) co_return fail(*request->failed);
    if (co_await is_cancelled()) co_return fail(ErrorKind::cancelled, "cancelled while waiting for the guest's agent");
    co_return fail(ErrorKind::timeout, fmt::format("the agent in the guest did not answer within {} ms", timeout.count()));
  }

  static Task<Result<std::shared_ptr<Command::State>>> exec(std::shared_ptr<State> self, ExecRequest request, Milliseconds timeout);
  static Task<Result<>> wait_ready(std::shared_ptr<State> self, Milliseconds timeout);
};

Task<Result<>> Command::State::send(std::shared_ptr<State> self, Type type, std::string payload) {
  auto session = self->session.lock();
  if (!session) co_return fail(gone());
  VIRGA_CO_CHECK(co_await Session::State::wait_room(session, Milliseconds::max()));
  if (self->lost) co_return fail(*self->lost);
  if (!self->exit_code) session->push(type, self->stream, payload);
  co_return Result<>{};
}

Task<Result<>> Command::State::write(std::shared_ptr<State> self, std::string bytes) {
  std::size_t done = 0;
  while (done < bytes.size()) {
    if (self->lost) co_return fail(*self->lost);
    if (self->input_ended || self->exit_code) co_return fail(ErrorKind::unavailable, "the command reads no more input");
    auto session = self->session.lock();
    if (!session) co_return fail(gone());
    if (self->input_room == 0) {
      if (!co_await self->changed.wait() && co_await is_cancelled()) co_return fail(ErrorKind::cancelled, "cancelled");
      continue;
    }
    if (session->queued() > queue_room) {
      VIRGA_CO_CHECK(co_await Session::State::wait_room(session, Milliseconds::max()));
      continue;
    }
    const auto n = std::min({bytes.size() - done, static_cast<std::size_t>(self->input_room), max_payload - 1});
    std::string payload(1, static_cast<char>(Channel::input));
    payload.append(bytes, done, n);
    session->push(Type::data, self->stream, payload);
    self->input_room -= static_cast<std::uint32_t>(n);
    done += n;
  }
  co_return Result<>{};
}

Task<Result<>> Command::State::close_input(std::shared_ptr<State> self) {
  if (self->input_ended) co_return Result<>{};
  auto sent = co_await send(self, Type::end, std::string(1, static_cast<char>(Channel::input)));
  self->input_ended = true;
  co_return sent;
}

Task<Result<std::string>> Command::State::read(std::shared_ptr<State> self, std::size_t which) {
  auto& in = self->incoming[which];
  while (in.buffer.empty()) {
    if (in.ended) co_return std::string();
    if (self->lost) co_return fail(*self->lost);
    if (!co_await self->changed.wait() && co_await is_cancelled()) co_return fail(ErrorKind::cancelled, "cancelled");
  }
  std::string out = std::exchange(in.buffer, {});
  in.taken += static_cast<std::uint32_t>(out.size());
  if (auto session = self->session.lock(); session && !in.ended && in.taken >= output_window / 4) {
    Byte payload[8];
    Writer w(payload, sizeof payload);
    w.u8(static_cast<std::uint8_t>(which + 1));
    w.u32(in.taken);
    in.allowed += in.taken;
    in.taken = 0;
    session->push(Type::window, self->stream, {reinterpret_cast<const char*>(payload), w.size()});
  }
  co_return out;
}

Task<Result<int>> Command::State::wait(std::shared_ptr<State> self) {
  while (!self->exit_code) {
    if (self->lost) co_return fail(*self->lost);
    if (!co_await self->changed.wait() && co_await is_cancelled()) co_return fail(ErrorKind::cancelled, "cancelled");
  }
  co_return *self->exit_code;
}

Command::Command(std::shared_ptr<State> state) : state_(std::move(state)) {}
Command::~Command() {
  auto session = state_->session.lock();
  if (!session || state_->finished()) return;
  session->commands.erase(state_->stream);
  session->push(Type::close, state_->stream, {});
}

void Command::abort() noexcept {
  if (state_->finished()) return;
  if (auto session = state_->session.lock()) {
    session->commands.erase(state_->stream);
    session->push(Type::close, state_->stream, {});
  }
  state_->lose(Error(ErrorKind::unavailable, "the command was given up"));
}

Task<Result<>> Command::write(std::string bytes) {
  return State::write(state_, std::move(bytes));
}
Task<Result<>> Command::close_input() {
  return State::close_input(state_);
}
Task<Result<std::string>> Command::read(Channel channel) {
  return State::read(state_, channel == Channel::error ? 1 : 0);
}
Task<Result<>> Command::resize(std::uint16_t columns, std::uint16_t rows) {
  Byte payload[8];
  Writer w(payload, sizeof payload);
  w.u16(columns);
  w.u16(rows);
  return State::send(state_, Type::resize, std::string(reinterpret_cast<const char*>(payload), w.size()));
}
Task<Result<>> Command::signal(int number) {
  return State::send(state_, Type::signal, std::string(1, static_cast<char>(number)));
}
Task<Result<int>> Command::wait() {
  return State::wait(state_);
}

namespace {

Result<std::string> encode_exec(const ExecRequest& request) {
  if (request.argv.empty() || request.argv.size() > max_arguments || request.environment.size() > max_arguments)
    return invalid("command", "a command needs between 1 and 1024 arguments");
  for (const auto* list : {&request.argv, &request.environment})
    for (const auto& s : *list)
      if (s.find('\0') != std::string::npos) return invalid("command", "an argument or variable holds a NUL");
  if (request.cwd.find('\0') != std::string::npos) return invalid("cwd", "the working directory holds a NUL");
  std::vector<Byte> payload(max_payload);
  Writer w(payload.data(), payload.size());
  w.u8(static_cast<std::uint8_t>((request.terminal ? exec_terminal : 0) | (request.files ? exec_files : 0)));
  w.u16(request.columns);
  w.u16(request.rows);
  w.u32(request.uid);
  w.u32(request.gid);
  w.text(request.cwd.data(), request.cwd.size());
  for (const auto* list : {&request.argv, &request.environment}) {
    w.u16(static_cast<std::uint16_t>(list->size()));
    for (const auto& s : *list) w.text(s.data(), s.size());
  }
  if (!w.ok()) return invalid("command", "the command and its environment are longer than 32 KiB");
  return std::string(reinterpret_cast<const char*>(payload.data()), w.size());
}

}  // namespace

Task<Result<std::shared_ptr<Command::State>>> Session::State::exec(std::shared_ptr<State> self, ExecRequest request,
                                                                   Milliseconds timeout) {
  VIRGA_CO_TRY(auto payload, encode_exec(request));
  if (self->closed) co_return fail(*self->closed);
  VIRGA_CO_CHECK(co_await wait_room(self, timeout));
  if (!self->ready) co_return fail(ErrorKind::unavailable, "no agent answers in the guest");
  if (self->commands.size() >= max_commands)
    co_return fail(ErrorKind::busy, fmt::format("{} commands run in the guest already", max_commands));
  const auto id = self->next_stream++;
  auto command = std::make_shared<Command::State>(self->tasks.executor(), self->weak_from_this(), id);
  self->commands.emplace(id, command);
  self->push(Type::exec, id, payload);
  const auto deadline = std::chrono::steady_clock::now() + timeout;
  std::optional<Error> failed;
  while (!command->started && !command->exit_code && !failed) {
    const auto left = std::chrono::duration_cast<Milliseconds>(deadline - std::chrono::steady_clock::now());
    if (command->lost) {
      failed = *command->lost;
    } else if (left.count() <= 0) {
      failed = Error(ErrorKind::unavailable,
                     fmt::format("the agent in the guest did not start the command within {} ms", timeout.count()));
    } else if (!co_await command->changed.wait_for(left) && co_await is_cancelled()) {
      failed = Error(ErrorKind::cancelled, "cancelled while the guest's agent starts a command");
    }
  }
  if (!failed) co_return command;
  if (self->commands.erase(id) > 0) self->push(Type::close, id, {});
  co_return fail(std::move(*failed));
}

Task<Result<>> Session::State::wait_ready(std::shared_ptr<State> self, Milliseconds timeout) {
  const auto deadline = std::chrono::steady_clock::now() + timeout;
  while (!self->ready) {
    if (self->closed) co_return fail(*self->closed);
    const auto left = std::chrono::duration_cast<Milliseconds>(deadline - std::chrono::steady_clock::now());
    if (left.count() <= 0)
      co_return fail(ErrorKind::timeout, fmt::format("no agent answered in the guest within {} ms", timeout.count()));
    if (!co_await self->ready_changed.wait_for(left) && co_await is_cancelled())
      co_return fail(ErrorKind::cancelled, "cancelled while waiting for the guest's agent");
  }
  co_return Result<>{};
}

Session::Session(const Executor& executor, io::UniqueFd socket) : state_(std::make_shared<State>(executor, socket.release())) {
  state_->say_hello();
  state_->tasks.spawn("agent reader", State::read_frames(state_));
  state_->tasks.spawn("agent writer", State::write_frames(state_));
}

Session::~Session() {
  state_->abandoned = true;
  state_->close(gone());
}

bool Session::ready() const noexcept {
  return state_->ready;
}
bool Session::connected() const noexcept {
  return !state_->closed;
}
Task<Result<>> Session::wait_ready(Milliseconds timeout) {
  return State::wait_ready(state_, timeout);
}
void Session::on_close(std::function<void(Error)> handler) {
  state_->close_handler = std::move(handler);
}

Task<Result<std::unique_ptr<Command>>> Session::exec(ExecRequest request, Milliseconds timeout) {
  auto started = co_await State::exec(state_, std::move(request), timeout);
  if (!started) co_return fail(std::move(started).error());
  co_return std::unique_ptr<Command>(new Command(std::move(*started)));
}

namespace {

Task<Result<GuestState>> parse_reply(Task<Result<std::string>> answer) {
  auto payload = co_await std::move(answer);
  if (!payload) co_return fail(std::move(payload).error());
  co_return parse_state(reinterpret_cast<const Byte*>(payload->data()), payload->size());
}

Task<Result<>> agreed(Task<Result<std::string>> answer) {
  auto payload = co_await std::move(answer);
  if (!payload) co_return fail(std::move(payload).error());
  if (!payload->empty() && payload->front() != 0) co_return fail(ErrorKind::unavailable, "the agent cannot do it");
  co_return Result<>{};
}

}  // namespace

Task<Result<GuestState>> Session::state(Milliseconds timeout) {
  return parse_reply(State::ask(state_, Type::state, {}, Type::state_reply, timeout));
}
Task<Result<>> Session::power(Power action, Milliseconds timeout) {
  return agreed(State::ask(state_, Type::power, std::string(1, static_cast<char>(action)), Type::power_reply, timeout));
}
Task<Result<>> Session::ping(Milliseconds timeout) {
  return agreed(State::ask(state_, Type::ping, {}, Type::pong, timeout));
}
Task<Result<>> Session::freeze(Milliseconds longest, Milliseconds timeout) {
  std::string payload(4, '\0');
  Writer w(reinterpret_cast<Byte*>(payload.data()), payload.size());
  w.u32(static_cast<std::uint32_t>(std::clamp<std::int64_t>(longest.count(), 1, 600'000)));
  return agreed(State::ask(state_, Type::freeze, std::move(payload), Type::freeze_reply, timeout));
}
Task<Result<>> Session::thaw(Milliseconds timeout) {
  return agreed(State::ask(state_, Type::thaw, {}, Type::thaw_reply, timeout));
}

}  // namespace virga::agent
