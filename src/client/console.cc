#include "client/console.h"

#include <sys/socket.h>
#include <unistd.h>

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/signal_set.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <csignal>

#include "client/exec.h"
#include "client/terminal.h"
#include "client/url.h"
#include "io/process.h"
#include "io/stream.h"
#include "io/unix_socket.h"

namespace virga::client {
namespace {

using Socket = std::unique_ptr<http::WebSocket>;

/// A console operation that was started, and how its sockets are reached.
struct Started {
  std::string operation;
  std::string data, control;  ///< targets of the WebSockets; `data` again for each connection of a screen
};

Task<Result<Started>> start(Client& client, const ConsoleSpec& spec, json::object body) {
  body["force"] = spec.force;
  Call call{.method = "POST", .target = spec.target, .body = std::move(body)};
  VIRGA_CO_TRY(auto answer, co_await client.call(std::move(call)));
  if (answer.operation.empty() || !answer.metadata.is_object())
    co_return fail(ErrorKind::invalid, "the server did not start an operation");
  Fields operation(answer.metadata.get_object());
  VIRGA_CO_TRY(auto metadata, operation.object("metadata"));
  VIRGA_CO_TRY(auto fds, Fields(metadata).string_map("fds"));
  Started out;
  out.operation = answer.operation.substr(0, answer.operation.find('?'));
  auto target = [&](const char* name) {
    auto secret = fds.find(name);
    return secret == fds.end() ? std::string() : Url(out.operation + "/websocket").query("secret", secret->second).text();
  };
  out.data = target("0");
  out.control = target("control");
  if (out.data.empty() || out.control.empty()) co_return fail(ErrorKind::invalid, "the server offers no console");
  co_return out;
}

Task<> discard(http::WebSocket& socket) {
  while (true) {
    auto message = co_await socket.read();
    if (!message || message->kind == http::WebSocket::Kind::close) co_return;
  }
}

Task<> follow_window(http::WebSocket& control) {
  boost::asio::signal_set signals(co_await current_executor(), SIGWINCH);
  while (true) {
    if (auto [columns, rows] = terminal_size(); columns > 0)
      if (auto text = resize_message(columns, rows); !co_await control.write_text(std::move(text))) co_return;
    auto [error, signal] = co_await signals.async_wait(boost::asio::as_tuple(boost::asio::use_awaitable));
    if (error) co_return;
  }
}

Task<> to_terminal(http::WebSocket& data, TaskGroup& tasks) {
  while (true) {
    auto message = co_await data.read();
    if (!message || message->kind != http::WebSocket::Kind::binary) break;
    if (!co_await write_stream(STDOUT_FILENO, message->data)) break;
  }
  tasks.cancel();
}

/// ctrl+a q detaches; ctrl+a ctrl+a is one ctrl+a for the guest.
Task<> from_terminal(http::WebSocket& data, TaskGroup& tasks) {
  std::vector<char> buffer(4096);
  bool escape = false, detached = false;
  while (!detached) {
    auto n = co_await read_stream(STDIN_FILENO, buffer);
    if (!n || *n == 0) break;
    std::string typed;
    for (std::size_t i = 0; i < *n && !detached; ++i) {
      const char c = buffer[i];
      if (escape) {
        detached = c == 'q';
        if (!detached) typed += c == '\x01' ? std::string(1, c) : std::string("\x01") + c;
        escape = false;
      } else if (c == '\x01') {
        escape = true;
      } else {
        typed.push_back(c);
      }
    }
    if (!typed.empty() && !co_await data.write_binary(std::move(typed))) break;
  }
  // What was typed last is still on its way to the guest, and its echo back.
  if (!detached) (void)co_await sleep_for(Milliseconds(500));
  tasks.cancel();
}

Task<> socket_to_stream(http::WebSocket& from, ByteStream& to) {
  while (true) {
    auto message = co_await from.read();
    if (!message || message->kind == http::WebSocket::Kind::close) break;
    if (!co_await to.write(std::move(message->data))) break;
  }
  to.abort();
}

Task<> stream_to_socket(ByteStream& from, http::WebSocket& to) {
  while (true) {
    auto bytes = co_await from.read();
    if (!bytes || bytes->empty()) break;
    if (!co_await to.write_binary(std::move(*bytes))) break;
  }
  co_await to.close();
}

Task<> join_screen(Client& client, std::string target, io::UniqueFd connection) {
  auto socket = co_await client.websocket(std::move(target));
  if (!socket) co_return;
  auto stream = io::make_stream(co_await current_executor(), std::move(connection));
  TaskGroup pumps(co_await current_executor());
  pumps.spawn("screen", socket_to_stream(**socket, *stream));
  co_await stream_to_socket(*stream, **socket);
  co_await shield();
  co_await pumps.join();
}

Task<> accept_screens(Client& client, std::string target, int listener, TaskGroup& connections) {
  while (co_await io::wait_readable(listener)) {
    io::UniqueFd connection(::accept4(listener, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
    if (connection) {
      connections.spawn("screen", join_screen(client, target, std::move(connection)));
    } else if (!co_await sleep_for(Milliseconds(100))) {  // no descriptor left for it: it still waits, and would be seen at once
      break;
    }
  }
}

/// The server's goodbye: the machine has stopped, or somebody has taken the console.
Task<> cancel_at_end(http::WebSocket& control, TaskGroup& tasks) {
  co_await discard(control);
  tasks.cancel();
}

Task<> cancel_at_interrupt(TaskGroup& tasks) {
  boost::asio::signal_set signals(co_await current_executor(), SIGINT, SIGTERM);
  (void)co_await signals.async_wait(boost::asio::as_tuple(boost::asio::use_awaitable));
  tasks.cancel();
}

Task<> copy(ByteStream& from, ByteStream& to) {
  while (true) {
    auto bytes = co_await from.read();
    if (!bytes || bytes->empty()) break;
    if (!co_await to.write(std::move(*bytes))) break;
  }
  from.abort();
  to.abort();
}

}  // namespace

Task<Result<>> attach_console(Client& client, ConsoleSpec spec) {
  std::signal(SIGPIPE, SIG_IGN);
  json::object body{{"type", "console"}};
  if (auto [columns, rows] = terminal_size(); columns > 0) {
    body["width"] = columns;
    body["height"] = rows;
  }
  VIRGA_CO_TRY(auto started, co_await start(client, spec, std::move(body)));
  VIRGA_CO_TRY(auto control, co_await client.websocket(started.control));
  VIRGA_CO_TRY(auto data, co_await client.websocket(started.data));
  if (spec.attached) spec.attached();
  std::optional<RawTerminal> raw;
  if (::isatty(STDIN_FILENO) == 1) raw.emplace(STDIN_FILENO);
  TaskGroup tasks(co_await current_executor());
  tasks.spawn("console window", follow_window(*control));
  tasks.spawn("console control", discard(*control));
  tasks.spawn("console input", from_terminal(*data, tasks));
  tasks.spawn("console output", to_terminal(*data, tasks));
  co_await tasks.join();
  co_await shield();
  data->abort();
  control->abort();
  co_return Result<>{};
}

Task<Result<>> serve_screen(Client& client, ConsoleSpec spec, std::string protocol, std::string socket,
                            std::function<void()> ready) {
  json::object body{{"type", "vga"}};
  if (protocol != "spice") body["protocol"] = protocol;
  VIRGA_CO_TRY(auto listener, io::listen_unix(socket));
  VIRGA_CO_TRY(auto started, co_await start(client, spec, std::move(body)));
  VIRGA_CO_TRY(auto control, co_await client.websocket(started.control));
  TaskGroup connections(co_await current_executor());
  ready();
  TaskGroup listening(co_await current_executor());
  listening.spawn("end of the screen", cancel_at_end(*control, listening));
  listening.spawn("interrupts", cancel_at_interrupt(listening));
  listening.spawn("listener", accept_screens(client, started.data, listener.get(), connections));
  co_await listening.join();
  co_await shield();
  control->abort();
  connections.cancel();
  co_await connections.join();
  co_return Result<>{};
}

Task<Result<>> join_sftp(Client& client, std::string target, int socket) {
  io::UniqueFd ours(socket);  // closed also where there is no server: who holds the other end waits for it
  VIRGA_CO_TRY(auto server, co_await client.upgrade(std::move(target), "sftp"));
  auto local = io::make_stream(co_await current_executor(), std::move(ours));
  TaskGroup pumps(co_await current_executor());
  pumps.spawn("sftp answers", copy(*server, *local));
  co_await copy(*local, *server);
  co_await shield();
  co_await pumps.join();
  co_return Result<>{};
}

}  // namespace virga::client
