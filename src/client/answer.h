// The envelope around every answer of the API: {"type", "status_code", "operation", "error", "metadata"}. Pure.
#pragma once

#include <string>
#include <string_view>

#include "base/error.h"
#include "base/json.h"

namespace virga::client {

struct Answer {
  json::value metadata;
  std::string operation;  ///< "/1.0/operations/<id>" of a background operation, else empty
  std::string etag;
  std::string location;
};

/// Opens the envelope. Errors: the server's own, with its text and the kind that its code stands for; invalid (not an envelope).
Result<Answer> open_envelope(int http_status, std::string_view body);
ErrorKind kind_of_status(int status) noexcept;

/// What an operation that has ended says. Errors: its own failure; cancelled.
Result<> outcome(const json::object& operation);
bool has_ended(const json::object& operation);

}  // namespace virga::client
