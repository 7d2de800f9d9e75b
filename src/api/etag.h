// ETags: a digest of what a client may change, so that If-Match tells whether it saw the present state.
#pragma once

#include <string>
#include <string_view>

#include "base/error.h"
#include "base/json.h"
#include "wire/http/message.h"

namespace virga::api {

/// SHA-256 over the JSON text, in hexadecimal, without quotes.
std::string etag_of(const json::value& mutable_fields);
/// Whether the request's If-Match, where it has one, names this state. Errors: conflict.
Result<> check_match(const http::Request& request, std::string_view etag);

}  // namespace virga::api
