// The server's own settings and identity: what GET and PUT /1.0 are about. Reads are from memory; event loop only.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "base/task.h"
#include "engine/cache.h"
#include "engine/caller.h"
#include "engine/events/events.h"
#include "engine/server/address.h"
#include "engine/server/identity.h"
#include "engine/server/keys.h"
#include "model/config.h"
#include "store/store.h"

namespace virga::engine {

struct ServerConfig {
  Config config;
  std::int64_t revision = 0;

  /// Where HTTPS is wanted; absent: nowhere.
  std::optional<ListenAddress> https_address() const { return address("core.https_address"); }
  std::optional<ListenAddress> metrics_address() const { return address("core.metrics_address"); }
  /// The value, or the key's default.
  std::string setting(std::string_view key) const { return server_setting(config, key); }
  std::optional<ListenAddress> address(std::string_view key) const;
};
using ServerConfigPtr = std::shared_ptr<const ServerConfig>;

class Server {
 public:
  Server(Store& store, Events& events, const Clock& clock = Events::system_clock());

  /// Makes the change take effect (listens at another address) before it is committed; where the commit fails it is called again
  /// with the two exchanged. An error refuses the change.
  void set_apply(std::function<Task<Result<>>(ServerConfig before, ServerConfig after)> apply) { apply_ = std::move(apply); }

  /// Loads, and makes the identity at the first start.
  Task<Result<>> start();

  /// Valid after start().
  const Identity& identity() const noexcept { return *identity_; }
  /// A snapshot; revision 0 as long as nothing was ever set.
  ServerConfigPtr config() const;
  /// Replaces the whole configuration; an empty value takes its key away. Errors: invalid, unsupported, conflict, those of apply.
  Task<Result<ServerConfigPtr>> update(Config config, std::optional<Revision> expected, Caller caller);

 private:
  Store& store_;
  Events& events_;
  const Clock& clock_;
  Cache<Identity> identities_;
  Cache<ServerConfig> configs_;
  std::shared_ptr<const Identity> identity_;
  std::function<Task<Result<>>(ServerConfig, ServerConfig)> apply_;
  std::unique_ptr<AsyncMutex> updating_;
};

}  // namespace virga::engine
