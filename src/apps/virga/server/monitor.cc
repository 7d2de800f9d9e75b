// monitor: events as they come.
#include <fmt/format.h>

#include <cstdio>

#include "apps/virga/app.h"
#include "apps/virga/commands.h"
#include "apps/virga/server/events.h"
#include "apps/virga/values.h"
#include "wire/yaml/yaml.h"

namespace virga::cli {
namespace {

Task<Result<>> follow(App& app, client::Client& client, std::string target, EventFormat format) {
  VIRGA_CO_TRY(auto socket, co_await client.websocket(std::move(target)));
  for (;;) {
    VIRGA_CO_TRY(auto message, co_await socket->read());
    if (message.kind == http::WebSocket::Kind::close) co_return fail(ErrorKind::unavailable, "the daemon closed the event stream");
    json::error_code ec;
    auto event = json::parse(message.data, ec);
    if (ec || !event.is_object()) continue;
    app.write(render_event(event.get_object(), format));
    std::fflush(stdout);
  }
}

Result<> monitor(App& app, const Args& args) {
  EventFormat format;
  auto name = args.has("pretty") ? std::string("pretty") : args.text("format");
  if (name == "json")
    format.style = EventFormat::json;
  else if (name == "pretty")
    format.style = EventFormat::pretty;
  else if (name != "yaml")
    return fail(ErrorKind::invalid, fmt::format("Invalid format: {}", name));
  if (auto level = args.text("loglevel"); !level.empty()) {
    if (format.style != EventFormat::pretty)
      return fail(ErrorKind::invalid, "Log level filtering can only be used with pretty formatting");
    VIRGA_TRY(format.lowest, parse_log_level(level));
  }
  const std::vector<std::string> types = args.list("type");
  VIRGA_TRY(auto* api, app.api());
  auto url = args.has("all-projects") ? Url("/1.0/events").query("all-projects", "true") : app.url("/1.0/events");
  url = std::move(url).query("type", fmt::format("{}", fmt::join(types, ",")));
  return api->await(follow(app, api->client(), url.text(), format));
}

}  // namespace

Command monitor_command() {
  return {
      .use = "monitor [<remote>:]",
      .summary = "Monitor a local or remote server",
      .description = "By default the monitor will listen to all message types.",
      .examples =
          "virga monitor --type=logging\n    Only show log messages.\n\n"
          "virga monitor --pretty --type=logging --loglevel=info\n    Show a pretty log of messages with info level or higher.\n\n"
          "virga monitor --type=lifecycle\n    Only show lifecycle events.",
      .flags = {{"all-projects", 0, Flag::boolean, "Show events from all projects"},
                {"format", 'f', Flag::text, "Format (json|pretty|yaml)", "yaml"},
                {"loglevel", 0, Flag::text, "Minimum level for log messages (only available when using pretty format)"},
                {"pretty", 0, Flag::boolean, "Pretty rendering (short for --format=pretty)"},
                {"type", 0, Flag::list, "Event type to listen for"}},
      .most = 1,
      .run = monitor};
}

}  // namespace virga::cli
