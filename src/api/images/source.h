// POST /1.0/images with a JSON body: images that the server makes or fetches by itself.
#pragma once

#include "api/context.h"
#include "engine/operations/operations.h"

namespace virga::api {

Task<Result<engine::OperationPtr>> image_from_source(Context& context);

}  // namespace virga::api
