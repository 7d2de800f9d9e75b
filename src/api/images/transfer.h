// Images between servers: POST /1.0/images with source type "image", /1.0/images/<fingerprint>/secret and /export, and what comes
// from a server that was told a secret.
#pragma once

#include "api/context.h"
#include "engine/images/service.h"
#include "engine/operations/operations.h"

namespace virga::api {

/// A JSON body whose source is an image of another server: fetched from it, or expected from it (mode "push").
Result<engine::OperationPtr> image_from_server(Context& context, const json::object& body);
/// Whether an upload comes from a server that was told a secret.
bool is_brought(const Context& context);
/// Takes such an upload. Errors: denied (the secret), before a byte of the body is read.
Task<Result<engine::OperationPtr>> image_that_is_brought(Context& context);

/// An image that the caller may read: his project's, a public one, or one whose secret he knows. Errors: not_found.
Result<engine::Images::Ptr> readable_image(Context& context);

Task<Result<http::Response>> make_image_secret(Context& context);
Task<Result<http::Response>> send_image(Context& context);

}  // namespace virga::api
