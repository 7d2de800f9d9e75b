// copy between two servers: they speak to each other (pull, push), or the bytes come through this machine (relay).
#include "apps/virga/instances/send.h"

#include <fmt/format.h>

#include <utility>
#include <vector>

#include "apps/virga/images/servers.h"
#include "apps/virga/values.h"
#include "client/relay.h"

namespace virga::cli {
namespace {

/// An operation that waits for its channels, as its creator sees it.
struct Waiting {
  std::string id;
  json::object secrets;
};

Result<Waiting> waiting_of(const client::Answer& answer) {
  const auto& operation = answer.metadata.is_object() ? answer.metadata.get_object() : json::object();
  Waiting out{.id = text_of(operation, "id"), .secrets = {}};
  for (const auto* name : {"control", "fs"}) {
    const auto secret = text_of(object_of(operation, "metadata"), name);
    if (secret.empty()) return fail(ErrorKind::unsupported, "the server does not say how it sends instances");
    out.secrets[name] = secret;
  }
  return out;
}

json::object migration_request(const Sending& sending) {
  return {{"migration", true}, {"instance_only", sending.instance_only}};
}

Url operation_url(const std::string& id) {
  return Url("/1.0/operations").segment(id);
}

Result<> pull(const Sending& sending) {
  VIRGA_TRY(const auto meeting, meeting_of(sending.app, sending.from, *sending.source));
  Error last(ErrorKind::unavailable, "no address");
  for (const auto& address : meeting.addresses) {
    VIRGA_TRY(const auto answer, sending.source->start("POST", sending.source_url, migration_request(sending)));
    VIRGA_TRY(const auto waiting, waiting_of(answer));
    auto request = sending.request;
    request["source"] = json::object{{"type", "migration"},
                                     {"mode", "pull"},
                                     {"operation", address + operation_url(waiting.id).text()},
                                     {"secrets", waiting.secrets},
                                     {"certificate", meeting.certificate}};
    auto progress = sending.app.progress("Transferring instance");
    auto done = sending.target->run("POST", sending.target_url, std::move(request), &progress);
    if (done) return {};
    last = std::move(done).error();
    (void)sending.source->send("DELETE", operation_url(waiting.id));
  }
  return fail(std::move(last));
}

Result<Waiting> expect(const Sending& sending) {
  auto request = sending.request;
  request["source"] = json::object{{"type", "migration"}, {"mode", "push"}};
  VIRGA_TRY(const auto answer, sending.target->start("POST", sending.target_url, std::move(request)));
  return waiting_of(answer);
}

Result<> push(const Sending& sending) {
  VIRGA_TRY(const auto meeting, meeting_of(sending.app, sending.to, *sending.target));
  Error last(ErrorKind::unavailable, "no address");
  for (const auto& address : meeting.addresses) {
    VIRGA_TRY(const auto waiting, expect(sending));
    auto order = migration_request(sending);
    order["target"] = json::object{{"operation", address + operation_url(waiting.id).text()},
                                   {"secrets", waiting.secrets},
                                   {"certificate", meeting.certificate}};
    auto progress = sending.app.progress("Transferring instance");
    auto done = sending.source->run("POST", sending.source_url, std::move(order), &progress);
    if (done) done = sending.target->wait(operation_url(waiting.id).text());
    if (done) return {};
    last = std::move(done).error();
    (void)sending.target->send("DELETE", operation_url(waiting.id));
  }
  return fail(std::move(last));
}

Result<> relay(const Sending& sending) {
  VIRGA_TRY(const auto answer, sending.source->start("POST", sending.source_url, migration_request(sending)));
  VIRGA_TRY(const auto from, waiting_of(answer));
  VIRGA_TRY(const auto to, expect(sending));
  auto path = [](const Waiting& waiting, const std::string& channel) {
    return operation_url(waiting.id).segment("websocket").query("secret", text_of(waiting.secrets, channel)).text();
  };
  std::vector<std::pair<std::string, std::string>> pairs;
  for (const std::string channel : {"control", "fs"}) pairs.emplace_back(path(from, channel), path(to, channel));
  auto moved = sending.source->await(
      client::relay(sending.source->client().endpoint(), sending.target->client().endpoint(), std::move(pairs)));
  if (!moved) {
    (void)sending.source->send("DELETE", operation_url(from.id));
    (void)sending.target->send("DELETE", operation_url(to.id));
    return fail(std::move(moved).error());
  }
  auto progress = sending.app.progress("Transferring instance");
  // The source's error is the one that tells why nothing came.
  auto sent = sending.source->wait(operation_url(from.id).text(), &progress);
  auto received = sending.target->wait(operation_url(to.id).text(), &progress);
  if (!received) return fail(std::move(received).error());
  if (!sent) return fail(std::move(sent).error());
  return {};
}

}  // namespace

Result<> send_instance(const Sending& sending, const std::string& mode) {
  if (mode == "pull") return pull(sending);
  if (mode == "push") return push(sending);
  if (mode == "relay") return relay(sending);
  return fail(ErrorKind::invalid, fmt::format("Invalid mode \"{}\": it is pull, push or relay", mode));
}

}  // namespace virga::cli
