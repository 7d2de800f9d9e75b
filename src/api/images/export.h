// An image's files as an answer: the tarball, or both files of a split image as multipart/form-data.
#pragma once

#include "base/error.h"
#include "engine/images/service.h"
#include "wire/http/message.h"

namespace virga::api {

/// Errors: not_found, unavailable.
Result<http::Response> export_image(const engine::Images& images, const Image& image);

}  // namespace virga::api
