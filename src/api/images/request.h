// What the ways of making or fetching an image have in common in their JSON bodies. Pure.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "api/context.h"
#include "engine/images/service.h"

namespace virga::api {

using ImageAliases = std::vector<std::pair<std::string, std::string>>;  ///< name, description

/// {"aliases": [{"name": ..., "description": ...}]}. Errors: invalid, naming the field.
Result<ImageAliases> read_image_aliases(const json::object& body);
/// File name, aliases, profiles, expiry, whether it is public and whether it follows its source. Properties are the caller's: they
/// do not mean the same everywhere. Errors: invalid, naming the field.
Result<engine::ImportImage> read_image_request(const Context& context, const json::object& body);

}  // namespace virga::api
