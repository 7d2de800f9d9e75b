// Copies of instances between servers: what the two sides say to each other, over channels that each client of the API can connect.
#pragma once

#include <map>
#include <optional>
#include <string>

#include "model/instance.h"

namespace virga::engine {

/// An operation of another server, and the secrets of its channels.
struct MigrationPeer {
  std::string operation;                       ///< https://HOST:PORT/1.0/operations/ID
  std::map<std::string, std::string> secrets;  ///< "control", "fs"
  std::string certificate;                     ///< PEM: the only one that the other server may show; empty: authorities decide
};

/// The sending side.
struct MigrateInstance {
  std::optional<MigrationPeer> target;  ///< absent: somebody else connects the channels
  bool instance_only = false;           ///< without its snapshots
};

/// The receiving side: what CreateInstance has besides.
struct MigrationSource {
  std::optional<MigrationPeer> peer;  ///< absent: somebody else connects the channels
};

}  // namespace virga::engine
