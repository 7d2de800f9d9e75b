// What `admin init` makes, as data. Pure.
#pragma once

#include <string>

#include "apps/virga/command.h"
#include "base/error.h"
#include "base/json.h"

namespace virga::cli {

/// A preseed document: {"config", "storage_pools", "networks", "profiles", "projects"}.
json::object automatic_preseed(const Args& args);
/// Refuses parts that are not known, naming them. Errors: invalid.
Result<> check_preseed(const json::object& preseed);

}  // namespace virga::cli
