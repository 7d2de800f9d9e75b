// The envelopes of the API: sync, async and error answers, and the one table from error kinds to HTTP status.
#pragma once

#include <string>
#include <string_view>

#include "base/error.h"
#include "base/json.h"
#include "wire/http/message.h"

namespace virga::engine {
class Operation;
}

namespace virga::api {

/// invalid 400, denied 403, not_found 404, exists and busy 409, conflict 412, internal 500, unsupported 501, unavailable and
/// cancelled 503, timeout 504.
int http_status(ErrorKind kind) noexcept;

http::Response sync(const json::value& metadata);
/// The same from JSON text that is made already.
http::Response sync_text(std::string_view metadata);
/// The same for long lists, without a copy: text is appended to begin_sync(), then end_sync() makes the answer of it.
std::string begin_sync();
http::Response end_sync(std::string text);
/// What a change without an answer of its own gets.
http::Response empty();
/// 201 with the new object's URL.
http::Response created(std::string location);
/// 202 with the operation's URL, and its secrets: only for who made it.
http::Response accepted(const engine::Operation& operation);
http::Response refusal(const Error& error);
http::Response refusal(int status, std::string_view message);
/// The body of a refusal.
std::string refusal_body(int status, std::string_view message);

/// Adds an ETag header.
http::Response with_etag(http::Response response, std::string_view etag);

}  // namespace virga::api
