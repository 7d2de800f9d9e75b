#include "client/exec.h"

#include <fmt/format.h>
#include <unistd.h>

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/signal_set.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <csignal>

#include "client/terminal.h"
#include "client/url.h"

namespace virga::client {
namespace {

/// How long the streams may go on after the command has ended: a server closes them before it says so.
constexpr Milliseconds drain_time{5'000};

/// How long a person looks at nothing before he is told why: the agent of a machine that has just been started takes a while.
constexpr Milliseconds patience{2'000};

json::object request_body(const ExecSpec& spec) {
  json::object body;
  body["command"] = to_json(spec.command);
  body["wait-for-websocket"] = true;
  body["interactive"] = spec.interactive;
  body["environment"] = to_json(spec.environment);
  if (spec.interactive) {
    auto [columns, rows] = terminal_size();
    body["width"] = columns;
    body["height"] = rows;
  }
  body["record-output"] = false;
  body["user"] = spec.user;
  body["group"] = spec.group;
  body["cwd"] = spec.cwd;
  return body;
}

using Socket = std::unique_ptr<http::WebSocket>;

class Session {
 public:
  Session(Client& client, Executor executor) : client_(client), tasks_(executor), readers_(executor) {}

  Task<Result<ExecOutcome>> run(ExecSpec spec) {
    // A reader of our output that goes away is told to the command, rather than killing us.
    std::signal(SIGPIPE, SIG_IGN);
    Call start{.method = "POST", .target = spec.target, .body = request_body(spec)};
    VIRGA_CO_TRY(auto answer, co_await client_.call(std::move(start)));
    if (answer.operation.empty() || !answer.metadata.is_object())
      co_return fail(ErrorKind::invalid, "the server did not start an operation");
    VIRGA_CO_CHECK(co_await connect(answer));

    std::optional<RawTerminal> raw;
    if (spec.interactive && ::isatty(STDIN_FILENO) == 1) raw.emplace(STDIN_FILENO);
    if (control_) {
      tasks_.spawn("exec signals", forward_signals(spec.interactive));
      tasks_.spawn("exec control", discard(*control_));
    }
    tasks_.spawn("exec stdin", spec.without_stdin ? end_of_input() : copy_input());
    readers_.spawn("exec stdout", copy_output(*(spec.interactive ? in_ : out_), STDOUT_FILENO));
    if (!spec.interactive) {
      readers_.spawn("exec stderr", copy_output(*err_, STDERR_FILENO));
      // Nothing comes on it but the server's goodbye, which must be answered.
      tasks_.spawn("exec stdin's end", discard(*in_));
    }

    // On its own connection: this one is busy with the wait.
    if (spec.waiting) tasks_.spawn("exec notice", tell_if_not_begun(answer.operation, spec.waiting));
    auto ended = co_await client_.wait(answer.operation);
    co_await drain();
    tasks_.cancel();
    for (auto* socket : {&in_, &out_, &err_, &control_})
      if (*socket) (*socket)->abort();
    co_await tasks_.join();
    if (!ended) co_return fail(std::move(ended).error());
    co_return outcome_of(*ended);
  }

 private:
  /// Descriptors by name: "0" is the terminal or stdin, "1" and "2" the output streams.
  Task<Result<>> connect(const Answer& answer) {
    Fields operation(answer.metadata.get_object());
    VIRGA_CO_TRY(auto metadata, operation.object("metadata"));
    VIRGA_CO_TRY(auto fds, Fields(metadata).string_map("fds"));
    for (auto [name, socket] : {std::pair{"0", &in_}, {"1", &out_}, {"2", &err_}, {"control", &control_}}) {
      auto secret = fds.find(name);
      if (secret == fds.end()) continue;
      auto target =
          Url(answer.operation.substr(0, answer.operation.find('?')) + "/websocket").query("secret", secret->second).text();
      VIRGA_CO_TRY(*socket, co_await client_.websocket(std::move(target)));
    }
    if (!in_ || (!fds.contains("1") && fds.contains("2")))
      co_return fail(ErrorKind::invalid, "the server offers no streams for the command");
    co_return Result<>();
  }

  Task<> tell_if_not_begun(std::string operation, std::function<void()> tell) {
    if (!co_await sleep_for(patience)) co_return;
    Client other(client_.endpoint());
    Call look{.method = "GET", .target = operation};
    auto now = co_await other.call(std::move(look));
    if (!now || !now->metadata.is_object()) co_return;
    auto metadata = Fields(now->metadata.get_object()).object("metadata");
    if (!metadata) co_return;
    const auto* started = metadata->if_contains("virga_started");
    if (started != nullptr && started->is_bool() && !started->get_bool()) tell();
  }

  Task<> copy_input() {
    std::vector<char> buffer(32u << 10);
    for (;;) {
      auto n = co_await read_stream(STDIN_FILENO, buffer);
      if (!n || *n == 0) break;
      std::string piece(buffer.data(), *n);
      if (!co_await in_->write_binary(std::move(piece))) co_return;
    }
    co_await end_of_input();
  }

  /// An empty text message says that no more will come, while the other direction stays open.
  Task<> end_of_input() { (void)co_await in_->write_text(""); }

  Task<> copy_output(http::WebSocket& socket, int fd) {
    for (;;) {
      auto message = co_await socket.read();
      if (!message) co_return;
      if (message->kind != http::WebSocket::Kind::binary) break;
      if (!co_await write_stream(fd, message->data)) {
        // Nobody reads what the command prints: the broken connection gives it the broken pipe it would have got here.
        socket.abort();
        co_return;
      }
    }
    // The server waits for this before it calls the command ended.
    co_await socket.close();
  }

  Task<> discard(http::WebSocket& socket) {
    for (;;) {
      auto message = co_await socket.read();
      if (!message || message->kind == http::WebSocket::Kind::close) co_return;
    }
  }

  Task<> forward_signals(bool interactive) {
    boost::asio::signal_set signals(co_await current_executor(), SIGWINCH, SIGTERM, SIGHUP);
    for (int signal : {SIGINT, SIGQUIT, SIGUSR1, SIGUSR2}) signals.add(signal);
    for (;;) {
      auto [error, signal] = co_await signals.async_wait(boost::asio::as_tuple(boost::asio::use_awaitable));
      if (error) co_return;
      std::string text;
      if (signal == SIGWINCH) {
        if (!interactive) continue;
        auto [columns, rows] = terminal_size();
        if (columns == 0) continue;
        text = resize_message(columns, rows);
      } else {
        text = signal_message(signal);
      }
      if (!co_await control_->write_text(std::move(text))) co_return;
    }
  }

  Task<> drain() {
    TaskGroup patience(co_await current_executor());
    patience.spawn("exec drain", give_up_later());
    co_await readers_.join();
    patience.cancel();
    co_await patience.join();
  }

  Task<> give_up_later() {
    if (co_await sleep_for(drain_time)) readers_.cancel();
  }

  static Result<ExecOutcome> outcome_of(const json::object& operation) {
    std::int64_t code = -1;
    if (auto metadata = Fields(operation).object("metadata")) code = Fields(*metadata).integer("return", -1).value_or(-1);
    auto ok = outcome(operation);
    if (!ok && code <= 0) return fail(std::move(ok).error());
    if (ok && code < 0) return fail(ErrorKind::internal, "the server did not say how the command ended");
    return ExecOutcome{static_cast<int>(code), ok ? std::string() : ok.error().chain()};
  }

  Client& client_;
  Socket in_, out_, err_, control_;
  TaskGroup tasks_;
  TaskGroup readers_;
};

}  // namespace

std::string resize_message(unsigned columns, unsigned rows) {
  return json::serialize(json::object{{"command", "window-resize"},
                                      {"args", {{"width", fmt::format("{}", columns)}, {"height", fmt::format("{}", rows)}}}});
}

std::string signal_message(int signal) {
  return json::serialize(json::object{{"command", "signal"}, {"signal", signal}});
}

Task<Result<ExecOutcome>> exec(Client& client, ExecSpec spec) {
  Session session(client, co_await current_executor());
  co_return co_await session.run(std::move(spec));
}

}  // namespace virga::client
