// POST /1.0/images with a JSON body: images that the server makes or fetches by itself.
#pragma once

#include "api/context.h"
#include "engine/images/server.h"
#include "engine/operations/operations.h"

namespace virga::api {

/// The fields of a `source` that name an image of a server. How far inside the server may lie is the caller's to say.
Result<engine::ImageSource> read_image_source(const Fields& source);
/// An administrator may name any server but the host's secrets; others those of the public network.
inline Reach reach_of(const Context& context) {
  return context.identity.restricted ? Reach::global : Reach::loopback;
}

Task<Result<engine::OperationPtr>> image_from_source(Context& context);

}  // namespace virga::api
