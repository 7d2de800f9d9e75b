#include "apps/virgad/https.h"

#include <fmt/format.h>

#include "base/log.h"

namespace virga::virgad {
namespace {

Task<> stop_server(http::Server& server) {
  co_await server.stop(Milliseconds(5'000));
}

}  // namespace

HttpsAddress::HttpsAddress(Executor executor, std::string what, http::Handler handler, http::ServerOptions options,
                           std::function<http::Identity()> identity)
    : executor_(executor),
      what_(std::move(what)),
      handler_(std::move(handler)),
      options_(std::move(options)),
      identity_(std::move(identity)),
      tasks_(std::move(executor)) {}

Result<> HttpsAddress::change(const std::string& address) {
  if (address == wanted_) return {};
  std::unique_ptr<http::Server> next;
  std::string bound;
  if (!address.empty()) {
    next = std::make_unique<http::Server>(executor_, handler_, options_);
    auto listening = next->listen_tls(address, identity_());
    if (!listening && listening.error().kind() == ErrorKind::exists && server_) {
      // Our own old address may be in the way: "[::]:8443" has the port of every other one.
      server_->stop_listening();
      listening = next->listen_tls(address, identity_());
      if (!listening)
        if (auto back = server_->listen_tls(wanted_, identity_()); !back)
          log::error("serve {} on '{}' again: {}", what_, wanted_, back.error().text());
    }
    if (!listening) return fail(std::move(listening).error().wrap(fmt::format("serve {} on '{}'", what_, address)));
    bound = *listening;
    log::info("{} on {}", what_, bound);
  }
  if (server_) {
    auto& going = *old_.emplace_back(std::move(server_));
    tasks_.spawn("stop serving an old HTTPS address", stop_server(going));
  }
  server_ = std::move(next);
  wanted_ = address;
  bound_ = std::move(bound);
  return {};
}

void HttpsAddress::close_certificate(std::string_view fingerprint) {
  if (server_) server_->close_certificate(fingerprint);
  for (auto& old : old_) old->close_certificate(fingerprint);
}

Task<> HttpsAddress::stop() {
  if (server_) co_await server_->stop();
  co_await tasks_.join();
}

}  // namespace virga::virgad
