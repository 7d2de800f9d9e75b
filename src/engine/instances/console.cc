// Consoles: between a client's WebSockets and the guest's console or screen. Several clients may look at once.
//
//   channel "0"        the console, both ways; of a screen: one connection after another, each to the screen's own server
//   channel "control"  {"command":"window-resize","args":{"width":"80","height":"24"}}; its end is the end of the session
#include <fmt/format.h>

#include <filesystem>

#include "engine/instances/impl.h"
#include "engine/instances/window.h"

namespace virga::engine {
namespace {

using compute::ConsoleOps;

constexpr Milliseconds meeting{30'000};

struct Wire {
  Wire(const Executor& ex, std::unique_ptr<ByteStream> s, std::unique_ptr<Channel> c)
      : guest(std::move(s)), client(std::move(c)), pumps(ex) {}
  std::unique_ptr<ByteStream> guest;
  std::unique_ptr<Channel> client;
  TaskGroup pumps;
};

Task<> to_client(Wire& w) {
  while (true) {
    auto bytes = co_await w.guest->read();
    if (!bytes || bytes->empty()) break;
    Message message{Message::Kind::binary, std::move(*bytes)};
    if (!co_await w.client->write(std::move(message))) break;
  }
  w.guest->abort();
  co_await w.client->close();
}

/// Until the client says goodbye.
Task<> to_guest(Wire& w) {
  while (true) {
    auto message = co_await w.client->read();
    if (!message || message->kind == Message::Kind::close) break;
    if (!message->data.empty() && !co_await w.guest->write(std::move(message->data))) break;
  }
  w.guest->abort();
}

Task<> converse(Executor executor, std::unique_ptr<ByteStream> guest, std::unique_ptr<Channel> client) {
  Wire wire(executor, std::move(guest), std::move(client));
  wire.pumps.spawn("console output", to_client(wire));
  co_await to_guest(wire);
  co_await shield();
  co_await wire.pumps.join();
}

/// The tasks of one client. TaskGroup::join() would not hear of a cancel.
struct Session {
  explicit Session(const Executor& ex) : tasks(ex), control(ex), changed(ex) {}
  TaskGroup tasks, control;
  Notification changed;
  bool over = false;
  void end() {
    over = true;
    changed.notify();
  }
  Task<> run(Task<> task) {
    co_await std::move(task);
    end();
  }
};

Task<> obey(ConsoleOps& ops, std::string uuid, Operation& operation, Session& session) {
  auto channel = co_await operation.wait_channel("control", meeting);
  if (!channel) co_return;  // a client may do without
  while (true) {
    auto message = co_await (*channel)->read();
    if (!message || message->kind == Message::Kind::close) break;
    if (auto size = parse_window_resize(message->data)) (void)co_await ops.resize_console(uuid, size->columns, size->rows);
  }
  session.end();  // the client is gone, or has had enough
}

/// Each connection of the client is one to the screen's server: SPICE has one for each of its channels.
Task<> serve_screen(Executor executor, ConsoleOps& ops, std::string uuid, ConsoleOps::Screen protocol, Operation& operation) {
  TaskGroup connections(executor);
  while (!co_await is_cancelled()) {
    auto client = co_await operation.wait_channel("0", Milliseconds(std::chrono::hours(24)));
    if (!client) break;
    auto guest = co_await ops.open_screen(uuid, protocol);
    if (!guest) {
      operation.warn("a connection to the screen: {}", guest.error().text());
      break;
    }
    connections.spawn("screen", converse(executor, std::move(*guest), std::move(*client)));
  }
  co_await shield();
  connections.cancel();
  co_await connections.join();
}

}  // namespace

Result<OperationPtr> Instances::console(const Caller& caller, const std::string& project, const std::string& name,
                                        ConsoleRequest request) {
  auto* self = impl_.get();
  VIRGA_TRY(auto instance, self->get(project, name));
  if (instance->status != InstanceStatus::running && instance->status != InstanceStatus::frozen)
    return fail(ErrorKind::invalid, fmt::format("instance '{}' is not running", name));
  if (request.vga && instance->type == InstanceType::container)
    return invalid("type", fmt::format("instance '{}' is a container: only virtual machines have a screen", name));
  auto* ops = self->driver(instance->type).console();
  if (ops == nullptr) return fail(ErrorKind::unsupported, fmt::format("instance '{}' has no console", name));
  const auto protocol = request.protocol == "vnc" ? ConsoleOps::Screen::vnc : ConsoleOps::Screen::spice;
  if (request.force) {
    const auto [from, to] = self->consoles.equal_range(instance->uuid);
    for (auto it = from; it != to; ++it) (void)self->parts.operations.cancel(it->second);
  }

  OperationSpec operation;
  operation.op_class = OperationClass::websocket;
  operation.project = project;
  operation.description = "Showing console";
  operation.resources = {{"instances", {instance_url(project, name)}}};
  operation.may_cancel = true;
  operation.caller = caller;
  operation.channels = {"0", "control"};
  operation.many_connections = request.vga;
  auto body = [self, ops, instance, request, protocol, caller](Operation& o) -> Task<Result<>> {
    const auto entry = self->consoles.emplace(instance->uuid, o.id());
    Session session(self->executor);
    Result<> outcome{};
    if (request.vga) {
      auto screen = serve_screen(self->executor, *ops, instance->uuid, protocol, o);
      session.tasks.spawn("screen", session.run(std::move(screen)));
    } else {
      auto client = co_await o.wait_channel("0", meeting);
      auto guest = client ? co_await ops->open_console(instance->uuid) : Result<std::unique_ptr<ByteStream>>(fail(client.error()));
      if (guest) {
        if (request.width > 0 && request.height > 0)
          (void)co_await ops->resize_console(instance->uuid, request.width, request.height);
        auto talk = converse(self->executor, std::move(*guest), std::move(*client));
        session.tasks.spawn("console", session.run(std::move(talk)));
      } else {
        outcome = fail(std::move(guest).error());
      }
    }
    if (outcome) {
      session.control.spawn("console control", obey(*ops, instance->uuid, o, session));
      self->lifecycle("instance-console", *instance, caller, {{"type", request.vga ? "vga" : "console"}});
      while (!session.over && !o.cancel_requested()) co_await session.changed.wait();
    }
    co_await shield();
    session.tasks.cancel();
    session.control.cancel();
    co_await session.tasks.join();
    co_await session.control.join();
    self->consoles.erase(entry);
    co_return outcome;
  };
  return self->parts.operations.start(std::move(operation), std::move(body));
}

Task<Result<>> Instances::clear_console_log(Caller caller, std::string project, std::string name) {
  auto* self = impl_.get();
  VIRGA_CO_TRY(auto instance, self->get(project, name));
  if (instance->status == InstanceStatus::running || instance->status == InstanceStatus::frozen) {
    auto* ops = self->driver(instance->type).console();
    if (ops == nullptr) co_return fail(ErrorKind::unsupported, fmt::format("instance '{}' has no console", name));
    VIRGA_CO_CHECK(co_await ops->clear_console_log(instance->uuid));
  } else {
    std::error_code ec;
    std::filesystem::remove(log_directory(*instance) + "/console.log", ec);
    if (ec) co_return fail(ErrorKind::unavailable, "remove the console's log: " + ec.message());
  }
  self->lifecycle("instance-console-reset", *instance, caller);
  co_return Result<>{};
}

Task<Result<std::string>> Instances::screenshot(std::string project, std::string name) {
  auto* self = impl_.get();
  VIRGA_CO_TRY(auto instance, self->get(project, name));
  if (instance->status != InstanceStatus::running && instance->status != InstanceStatus::frozen)
    co_return fail(ErrorKind::invalid, fmt::format("instance '{}' is not running", name));
  auto* ops = self->driver(instance->type).console();
  if (ops == nullptr) co_return fail(ErrorKind::unsupported, fmt::format("instance '{}' has no screen", name));
  co_return co_await ops->screenshot(instance->uuid);
}

}  // namespace virga::engine
