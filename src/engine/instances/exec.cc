// Commands in guests: between the client's WebSockets and the driver's session, the same for both kinds of guest.
//
//   channel "0"        interactive: the terminal, both ways; otherwise standard input
//   channels "1" "2"   standard output and error, when not interactive
//   channel "control"  {"command":"window-resize","args":{"width":"80","height":"24"}} and {"command":"signal","signal":15}
#include <fmt/format.h>

#include "engine/events/events.h"
#include "engine/instances/impl.h"
#include "engine/instances/window.h"

namespace virga::engine {
namespace {

using compute::ExecSession;
using Stream = ExecSession::Stream;

using Channels = std::map<std::string, std::unique_ptr<Channel>>;

/// One command and its connections; lives until the operation's body ends.
struct Conversation {
  Conversation(const Executor& ex, std::unique_ptr<ExecSession> s) : session(std::move(s)), pumps(ex), changed(ex) {}
  std::unique_ptr<ExecSession> session;
  Channels channels;
  TaskGroup pumps;
  Notification changed;
  int readers = 0;  // of the command's output that have not met its end
  int sending = 0;  // of these, who wait for the client to take what they have
  bool output_moved = false;
};

/// Nobody is there any more to see what the command does.
Task<> hang_up(Conversation& c, bool interactive) {
  // A cancel that has been and gone would not wake the sleep: the command has ended, and its client says goodbye.
  if (co_await is_cancelled()) co_return;
  if (interactive) {
    (void)co_await c.session->signal(1);
    if (co_await is_cancelled() || !co_await sleep_for(Milliseconds(5000))) co_return;
  }
  (void)co_await c.session->signal(9);
}

Task<> input_to_command(Conversation& c, Channel& from, bool interactive) {
  for (;;) {
    auto message = co_await from.read();
    if (!message || message->kind == Message::Kind::close) {
      // A terminal that is gone takes its command along, as it does with a shell.
      if (interactive || !message) co_await hang_up(c, interactive);
      break;
    }
    if (message->kind == Message::Kind::text) {
      if (interactive) continue;
      break;  // the client's mark for the end of its input
    }
    if (message->data.empty()) continue;
    if (!co_await c.session->write(std::move(message->data))) break;
  }
  if (!interactive) (void)co_await c.session->close_input();
}

Task<> output_to_client(Conversation& c, Channel& to, Stream stream, bool interactive) {
  bool there = true;
  for (;;) {
    auto bytes = co_await c.session->read(stream);
    if (!bytes || bytes->empty()) break;
    c.output_moved = true;
    if (!there) continue;  // read on, or a command that ignores its end would wait for us for ever
    Message message{Message::Kind::binary, std::move(*bytes)};
    ++c.sending;
    there = (co_await to.write(std::move(message))).has_value();
    --c.sending;
    c.output_moved = true;
    if (!there) c.pumps.spawn("exec hang-up", hang_up(c, interactive));
  }
  Message end{Message::Kind::text, ""};
  if (there) (void)co_await to.write(std::move(end));
  --c.readers;
  c.changed.notify();
}

Task<> discard(Conversation& c, Stream stream) {
  for (;;) {
    auto bytes = co_await c.session->read(stream);
    if (!bytes || bytes->empty()) break;
    c.output_moved = true;
  }
  --c.readers;
  c.changed.notify();
}

/// Wrong control messages are dropped: they come from a client that may say what it likes.
Task<> obey(Conversation& c, const std::string& text, bool interactive) {
  auto object = parse_json_object(text);
  if (!object) co_return;
  Fields f(*object);
  auto command = f.string("command");
  if (!command) co_return;
  if (*command == "signal") {
    auto number = f.integer("signal");
    if (number && *number >= 1 && *number <= 64) (void)co_await c.session->signal(static_cast<int>(*number));
  } else if (interactive) {
    if (auto size = parse_window_resize(text)) (void)co_await c.session->resize(size->columns, size->rows);
  }
}

Task<> control(Conversation& c, Operation& operation, bool interactive) {
  auto channel = co_await operation.wait_channel("control", Milliseconds(std::chrono::seconds(30)));
  if (!channel) co_return;  // a client may do without
  for (;;) {
    auto message = co_await (*channel)->read();
    if (!message || message->kind == Message::Kind::close) break;
    co_await obey(c, message->data, interactive);
  }
}

/// The command has ended; a child of it may still hold its streams. What the client is still taking is passed on; a child that says
/// nothing for a second is not waited for, one that talks on for a minute neither.
Task<> drain(Conversation& c, const Operation& operation) {
  for (int seconds = 0; c.readers > 0 && seconds < 60 && !operation.cancel_requested();) {
    c.output_moved = false;
    co_await c.changed.wait_for(Milliseconds(1000));
    if (c.readers > 0 && !c.output_moved && c.sending == 0) co_return;
    if (c.sending == 0) ++seconds;
  }
}

/// Before the command runs: nothing runs for a client that never comes.
Task<Result<Channels>> meet(Operation& operation, bool interactive) {
  Channels out;
  const std::vector<std::string> names = interactive ? std::vector<std::string>{"0"} : std::vector<std::string>{"0", "1", "2"};
  for (const auto& name : names) {
    auto channel = co_await operation.wait_channel(name, Milliseconds(std::chrono::seconds(30)));
    if (!channel) co_return fail(std::move(channel).error().wrap("the client did not connect"));
    out[name] = std::move(*channel);
  }
  co_return out;
}

/// Ends the client's connections. What carries output is ended politely, all at once, so that the last of it arrives; a client that
/// only sends its input does not listen there, and would keep a goodbye waiting.
Task<> part(Channels channels, bool interactive) {
  if (!interactive) channels.erase("0");
  TaskGroup goodbyes(co_await current_executor());
  for (auto& [name, channel] : channels) goodbyes.spawn("exec goodbye", channel->close());
  co_await goodbyes.join();
}

void connect_streams(Operation& operation, Conversation& c, bool interactive) {
  c.readers = interactive ? 1 : 2;
  c.pumps.spawn("exec control", control(c, operation, interactive));
  c.pumps.spawn("exec input", input_to_command(c, *c.channels.at("0"), interactive));
  c.pumps.spawn("exec output", output_to_client(c, *c.channels.at(interactive ? "0" : "1"), Stream::output, interactive));
  if (!interactive) c.pumps.spawn("exec error", output_to_client(c, *c.channels.at("2"), Stream::error, interactive));
}

}  // namespace

Result<OperationPtr> Instances::exec(const Caller& caller, const std::string& project, const std::string& name,
                                     ExecRequest request) {
  auto* self = impl_.get();
  VIRGA_TRY(auto instance, self->get(project, name));
  if (instance->status == InstanceStatus::frozen) return fail(ErrorKind::invalid, fmt::format("instance '{}' is frozen", name));
  if (instance->status != InstanceStatus::running)
    return fail(ErrorKind::invalid, fmt::format("instance '{}' is not running", name));
  if (request.command.empty() || request.command[0].empty()) return invalid("command", "a command is needed");
  std::size_t total = 0;
  for (const auto& part : request.command) {
    total += part.size();
    if (part.find('\0') != std::string::npos) return invalid("command", "the command holds a NUL");
  }
  if (total > 128 * 1024) return invalid("command", "the command is longer than 128 KiB");
  for (const auto& [key, value] : request.environment)
    if (key.empty() || key.find_first_of(std::string_view("=\0", 2)) != std::string::npos ||
        value.find('\0') != std::string::npos || value.size() > 128 * 1024)
      return invalid("environment", fmt::format("environment variable '{}' has an invalid name or value", key.substr(0, 40)));
  if (request.cwd.find('\0') != std::string::npos || (!request.cwd.empty() && request.cwd[0] != '/'))
    return invalid("cwd", "the working directory must be an absolute path");
  if (request.record_output)
    return fail(Error(ErrorKind::unsupported, "recording a command's output is not supported yet").with_field("record-output"));
  if (request.interactive && !request.wait_for_websocket)
    return invalid("interactive", "an interactive command needs wait-for-websocket");
  auto* driver = self->driver(instance->type).exec();
  if (driver == nullptr) return fail(ErrorKind::unsupported, fmt::format("commands cannot be run in instance '{}'", name));

  compute::ExecSpec spec;
  spec.command = request.command;
  for (const auto& [key, value] : instance->expanded_config)
    if (key.starts_with("environment.")) spec.environment[key.substr(12)] = value;
  for (const auto& [key, value] : request.environment) spec.environment[key] = value;
  spec.cwd = request.cwd;
  spec.uid = request.user;
  spec.gid = request.group;
  spec.interactive = request.interactive;
  if (request.width > 0) spec.columns = request.width;
  if (request.height > 0) spec.rows = request.height;

  OperationSpec operation;
  operation.op_class = request.wait_for_websocket ? OperationClass::websocket : OperationClass::task;
  operation.project = project;
  operation.description = "Executing command";
  operation.resources = {{"instances", {instance_url(project, name)}}};
  operation.may_cancel = true;
  operation.caller = caller;
  operation.metadata = {{"command", virga::to_json(request.command)},
                        {"environment", virga::to_json(spec.environment)},
                        {"interactive", request.interactive}};
  // Its agent may be on its way up yet: a client can tell its user what he waits for.
  const bool agent = instance->type == InstanceType::virtual_machine;
  if (agent) operation.metadata["virga_started"] = false;
  if (request.wait_for_websocket)
    operation.channels =
        request.interactive ? std::vector<std::string>{"0", "control"} : std::vector<std::string>{"0", "1", "2", "control"};
  const bool attached = request.wait_for_websocket, interactive = request.interactive;
  auto body = [self, driver, instance, spec, attached, interactive, agent, caller](Operation& o) -> Task<Result<>> {
    Channels channels;
    if (attached) {
      VIRGA_CO_TRY(channels, co_await meet(o, interactive));
    }
    auto session = co_await driver->exec(instance->uuid, spec);
    if (!session) {
      co_await part(std::move(channels), interactive);
      co_return fail(std::move(session).error());
    }
    if (agent) o.set_metadata("virga_started", true);
    self->lifecycle("instance-exec", *instance, caller, {{"command", virga::to_json(spec.command)}});
    Conversation conversation(self->executor, std::move(*session));
    conversation.channels = std::move(channels);
    if (attached) {
      connect_streams(o, conversation, interactive);
    } else {
      conversation.readers = 2;
      (void)co_await conversation.session->close_input();
      conversation.pumps.spawn("exec output", discard(conversation, Stream::output));
      conversation.pumps.spawn("exec error", discard(conversation, Stream::error));
    }
    // A cancel that came while the command was being started has been and gone: it is not repeated.
    auto code = o.cancel_requested() ? Result<int>(fail(ErrorKind::cancelled, "cancelled")) : co_await conversation.session->wait();
    if (code) co_await drain(conversation, o);
    co_await shield();
    if (!code) (void)co_await conversation.session->signal(9);
    conversation.pumps.cancel();
    co_await conversation.pumps.join();
    co_await part(std::move(conversation.channels), interactive);
    if (!code) co_return fail(std::move(code).error());
    o.set_metadata("return", *code);
    co_return Result<>{};
  };
  return self->parts.operations.start(std::move(operation), std::move(body));
}

}  // namespace virga::engine
