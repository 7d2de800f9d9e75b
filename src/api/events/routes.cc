// /1.0/events: what happens, as it happens, over a WebSocket.
#include "api/routes.h"

#include <algorithm>

#include "api/respond.h"
#include "api/router.h"
#include "engine/certificates/service.h"
#include "engine/events/events.h"
#include "wire/http/websocket.h"

namespace virga::api {
namespace {

using engine::Events;
using http::Response;
using http::WebSocket;

/// Ends its group when the stream or the client ends, so that the other half ends too.
Task<> send_events(WebSocket& socket, Events::Subscription& subscription, TaskGroup& group) {
  // A cancel while a message is written would not reach the next wait.
  while (!co_await is_cancelled()) {
    auto event = co_await subscription.next();
    if (!event) break;
    auto text = event->text();
    if (!co_await socket.write_text(std::move(text))) break;
  }
  const bool slow = subscription.overflowed();
  co_await socket.close(slow ? 1013 : 1001, slow ? "the client reads too slowly" : "");
  group.cancel();
}

Task<> read_until_close(WebSocket& socket, TaskGroup& group) {
  while (true) {
    auto message = co_await socket.read();
    if (!message || message->kind == WebSocket::Kind::close) break;
  }
  group.cancel();
}

Task<> stream(std::unique_ptr<WebSocket> socket, std::shared_ptr<Events::Subscription> subscription) {
  TaskGroup group(co_await current_executor());
  group.spawn("events reader", read_until_close(*socket, group));
  group.spawn("events writer", send_events(*socket, *subscription, group));
  co_await group.join();
}

Result<unsigned> read_types(std::string_view text) {
  unsigned types = 0;
  while (!text.empty()) {
    const auto comma = text.find(',');
    VIRGA_TRY(auto type, engine::parse_event_type(text.substr(0, comma)));
    types |= static_cast<unsigned>(type);
    text.remove_prefix(comma == std::string_view::npos ? text.size() : comma + 1);
  }
  return types;
}

Task<Result<Response>> events(Context& c) {
  engine::EventFilter filter;
  VIRGA_CO_TRY(const unsigned asked, read_types(c.query("type")));
  filter.types = asked != 0 ? asked : 7u;
  if (!c.all_projects) filter.project = c.project;
  if (c.identity.restricted) {
    // Log lines and what concerns the whole server tell about others.
    filter.types &= ~static_cast<unsigned>(engine::EventType::logging);
    // Asked for each event: a project may have been renamed since, or taken from the certificate.
    filter.also = [certificates = &c.services.certificates, fingerprint = c.caller().fingerprint](const engine::Event& e) {
      const auto certificate = certificates->trusted(fingerprint);
      if (!certificate || e.project.empty()) return false;
      const auto& projects = certificate->projects;
      return !certificate->restricted || std::find(projects.begin(), projects.end(), e.project) != projects.end();
    };
  }
  if (!c.request.websocket) co_return fail(ErrorKind::invalid, "this needs a WebSocket");
  // Subscribed before the handshake is answered: the client misses nothing that happens after it.
  std::shared_ptr<Events::Subscription> subscription = c.services.events.subscribe(std::move(filter));
  Response response;
  response.body =
      http::UpgradeBody([subscription](std::unique_ptr<WebSocket> socket) { return stream(std::move(socket), subscription); });
  co_return response;
}

}  // namespace

void add_event_routes(Router& router) {
  router.add(http::Method::get, "/1.0/events", {.handler = events, .spans = true});
}

}  // namespace virga::api
