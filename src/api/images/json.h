// An image and its aliases as the API shows them.
#pragma once

#include <string>
#include <vector>

#include "base/json.h"
#include "engine/images/service.h"
#include "model/image.h"

namespace virga::api {

json::object image_json(const Image& image, const std::vector<engine::Images::AliasPtr>& aliases);
std::string image_etag(const Image& image);
json::object alias_json(const ImageAlias& alias);
std::string alias_etag(const ImageAlias& alias);

}  // namespace virga::api
