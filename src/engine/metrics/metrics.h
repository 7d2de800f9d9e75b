// Metrics of guests and of the daemon, by the names that Incus documents, made from samples that are there already. Pure.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "engine/sampler/sampler.h"

namespace virga::engine {

struct GuestRow {
  std::string_view name, project, type;  ///< of the instance; they outlive the call
  SamplePtr sample;
};

struct ServerCounts {
  std::uint64_t operations = 0;  ///< that run now
  std::uint64_t warnings = 0;    ///< that nobody has acknowledged or resolved
  std::uint64_t uptime_seconds = 0;
};

/// `server` is null for callers who may see their projects only.
std::string render_metrics(const std::vector<GuestRow>& guests, const ServerCounts* server);

}  // namespace virga::engine
