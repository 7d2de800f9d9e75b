// From the words of `launch` and `create` to the request that makes an instance. Pure.
#pragma once

#include <string>

#include "apps/virga/command.h"
#include "base/error.h"
#include "base/json.h"

namespace virga::cli {

/// What the flags say, over the document that came on standard input (which may be empty). The source is not in it yet.
/// Errors: invalid.
Result<json::object> instance_request(const Args& args, json::object document, const std::string& name);

/// Device flags (-d, -n, -s) change copies of the devices that the profiles give; `inherited` are those, merged.
Result<> apply_device_flags(json::object& request, const Args& args, const json::object& inherited);
/// Whether apply_device_flags() needs to know the devices of the profiles.
bool needs_profile_devices(const Args& args);

/// "NAME=value" lines; empty lines and those that begin with "#" are left out. Errors: invalid.
Result<json::object> parse_environment_file(std::string_view text);

}  // namespace virga::cli
