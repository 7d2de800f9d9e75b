// Takes the upload of an image from a request's body into the files that the images service named.
#pragma once

#include <string>

#include "api/context.h"
#include "engine/images/service.h"

namespace virga::api {

/// Reads the raw or multipart body and the X-Incus-* headers. On failure the files are discarded. Errors: invalid, unavailable
/// (disk), timeout, unsupported (a JSON body that asks for something else).
Task<Result<engine::ImportImage>> receive_image(Context& context);

/// The raw body as a file at a path of Images::new_upload_path(), which the caller owns from then on.
Task<Result<std::string>> receive_file(Context& context);

}  // namespace virga::api
