// Streams between two servers that pass through this program.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/task.h"
#include "client/client.h"

namespace virga::client {

/// Connects pairs of WebSockets, one of each server, and carries messages both ways until one side of each has ended. `pairs` are
/// targets (paths with queries) at the first and at the second server. Errors: those of Client::websocket().
Task<Result<bool>> relay(http::Endpoint first, http::Endpoint second, std::vector<std::pair<std::string, std::string>> pairs);

}  // namespace virga::client
