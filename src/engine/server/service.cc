#include "engine/server/service.h"

#include <unistd.h>

#include "base/log.h"

namespace virga::engine {
namespace {

constexpr const char* identity_key = "/server/identity";
constexpr const char* config_key = "/server/config";

json::object encode(const ServerConfig& c) {
  return {{"config", to_json(c.config)}};
}

Result<ServerConfig> decode_config(const json::object& document) {
  ServerConfig c;
  VIRGA_TRY(c.config, Fields(document).string_map("config"));
  return c;
}

std::string host_name() {
  char name[256] = {};
  if (::gethostname(name, sizeof name - 1) != 0) return "localhost";
  return name;
}

}  // namespace

std::optional<ListenAddress> ServerConfig::address(std::string_view key) const {
  auto parsed = parse_listen_address(setting(key));
  if (!parsed) return std::nullopt;
  return *parsed;
}

Server::Server(Store& store, Events& events, const Clock& clock)
    : store_(store),
      events_(events),
      clock_(clock),
      identities_(store, identity_key, decode_identity),
      configs_(store, config_key, decode_config) {}

Task<Result<>> Server::start() {
  updating_ = std::make_unique<AsyncMutex>(co_await current_executor());
  VIRGA_CO_CHECK(co_await identities_.load());
  VIRGA_CO_CHECK(co_await configs_.load());
  if (!identities_.find(identity_key)) {
    VIRGA_CO_TRY(const Identity made, make_identity(host_name(), clock_.now()));
    Transaction t;
    t.expect(identity_key, 0).put(identity_key, json::serialize(encode(made)));
    auto revision = co_await store_.commit(std::move(t));
    if (!revision) co_return fail(std::move(revision).error().wrap("keep the server's identity"));
    log::info("made this server's identity {}", made.uuid);
  }
  identity_ = identities_.find(identity_key);
  co_return Result<>();
}

ServerConfigPtr Server::config() const {
  static const auto nothing = std::make_shared<const ServerConfig>();
  auto config = configs_.find(config_key);
  return config ? config : nothing;
}

Task<Result<ServerConfigPtr>> Server::update(Config config, std::optional<Revision> expected, Caller caller) {
  VIRGA_CO_TRY(config, check_server_config(std::move(config)));
  VIRGA_CO_TRY(const auto turn, co_await updating_->lock());
  const ServerConfigPtr old = this->config();
  if (expected && *expected != old->revision)
    co_return fail(ErrorKind::conflict, "the server's configuration has changed meanwhile");
  const ServerConfig next{.config = std::move(config), .revision = old->revision};
  co_await shield();
  if (apply_) VIRGA_CO_CHECK(co_await apply_(*old, next));
  Transaction t;
  t.expect(config_key, old->revision).put(config_key, json::serialize(encode(next)));
  auto revision = co_await store_.commit(std::move(t));
  if (!revision) {
    if (apply_) {
      if (auto back = co_await apply_(next, *old); !back)
        log::error("go back to the old server configuration: {}", back.error().text());
    }
    co_return fail(std::move(revision).error());
  }
  events_.lifecycle("config-updated", "", "/1.0", caller);
  co_return this->config();
}

}  // namespace virga::engine
