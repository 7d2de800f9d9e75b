// The columns of `virga list`. Pure.
#pragma once

#include <string_view>
#include <vector>

#include "apps/virga/listing.h"

namespace virga::cli {

/// The columns that `spec` names: letters such as "ns46", and configuration or device keys, "config:image.os:OS:20".
/// Errors: invalid.
Result<std::vector<Column>> instance_columns(std::string_view spec);
/// Whether a column needs more than an instance's own document: addresses, usage, snapshots.
bool needs_state(std::string_view spec);

}  // namespace virga::cli
