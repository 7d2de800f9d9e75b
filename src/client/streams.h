// What a server has that publishes images by simplestreams. The command line lists it itself: a daemon is asked only to fetch.
#pragma once

#include <string>
#include <vector>

#include "base/error.h"
#include "base/task.h"
#include "model/streams.h"

namespace virga::client {

/// Every image of its lists. `server` is "https://images.example.org"; `certificate` (PEM) the only one that it may show, empty:
/// authorities decide. Errors: invalid (what it sends), denied, unavailable, timeout.
Task<Result<std::vector<streams::Download>>> list_streams(std::string server, std::string certificate);

}  // namespace virga::client
