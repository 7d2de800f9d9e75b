#include "client/answer.h"

#include <fmt/format.h>

namespace virga::client {
namespace {

/// Answers are larger than what people send us, so they are parsed without the strict reader's refusal of repeated keys; depth is
/// bounded.
Result<json::object> parse_answer(std::string_view body) {
  json::error_code ec;
  json::parse_options options;
  options.max_depth = 64;
  auto value = json::parse(body, ec, {}, options);
  if (ec) return fail(ErrorKind::invalid, fmt::format("the server's answer is not JSON: {}", ec.message()));
  if (!value.is_object()) return fail(ErrorKind::invalid, "the server's answer is not an object");
  return std::move(value.as_object());
}

}  // namespace

ErrorKind kind_of_status(int status) noexcept {
  switch (status) {
    case 400:
      return ErrorKind::invalid;
    case 401:
    case 403:
      return ErrorKind::denied;
    case 404:
      return ErrorKind::not_found;
    case 408:
    case 504:
      return ErrorKind::timeout;
    case 409:
      return ErrorKind::exists;
    case 412:
      return ErrorKind::conflict;
    case 423:
      return ErrorKind::busy;
    case 501:
      return ErrorKind::unsupported;
    case 503:
      return ErrorKind::unavailable;
    default:
      return ErrorKind::internal;
  }
}

Result<Answer> open_envelope(int http_status, std::string_view body) {
  auto object = parse_answer(body);
  if (!object) {
    if (http_status >= 400)
      return fail(kind_of_status(http_status), fmt::format("the server answered with status {}", http_status));
    return fail(std::move(object).error());
  }
  Fields fields(*object);
  VIRGA_TRY(auto type, fields.string("type"));
  if (type == "error" || http_status >= 400) {
    VIRGA_TRY(auto text, fields.string("error"));
    VIRGA_TRY(auto code, fields.integer("error_code", http_status));
    if (text.empty()) text = fmt::format("the server answered with status {}", http_status);
    return fail(kind_of_status(static_cast<int>(code)), std::move(text));
  }
  Answer answer;
  if (type == "async") {
    VIRGA_TRY(answer.operation, fields.string("operation"));
  } else if (type != "sync") {
    return fail(ErrorKind::invalid, "the server's answer has an unknown type");
  }
  if (auto* metadata = object->if_contains("metadata")) answer.metadata = std::move(*metadata);
  return answer;
}

bool has_ended(const json::object& operation) {
  auto code = Fields(operation).integer("status_code").value_or(0);
  return code >= 200;
}

Result<> outcome(const json::object& operation) {
  Fields fields(operation);
  VIRGA_TRY(auto code, fields.integer("status_code"));
  if (code == 200) return {};
  VIRGA_TRY(auto text, fields.string("err"));
  if (code == 401) return fail(ErrorKind::cancelled, text.empty() ? "the operation was cancelled" : std::move(text));
  return fail(ErrorKind::internal, text.empty() ? "the operation failed" : std::move(text));
}

}  // namespace virga::client
