#include "api/respond.h"

#include <fmt/format.h>

#include "engine/operations/operations.h"

namespace virga::api {

int http_status(ErrorKind kind) noexcept {
  switch (kind) {
    case ErrorKind::invalid:
      return 400;
    case ErrorKind::denied:
      return 403;
    case ErrorKind::not_found:
      return 404;
    case ErrorKind::exists:
      return 409;
    case ErrorKind::busy:
      return 409;
    case ErrorKind::conflict:
      return 412;
    case ErrorKind::internal:
      return 500;
    case ErrorKind::unsupported:
      return 501;
    case ErrorKind::unavailable:
      return 503;
    case ErrorKind::cancelled:
      return 503;
    case ErrorKind::timeout:
      return 504;
  }
  return 500;
}

std::string begin_sync() {
  return R"({"type":"sync","status":"Success","status_code":200,"operation":"","error_code":0,"error":"","metadata":)";
}

http::Response end_sync(std::string text) {
  http::Response response;
  text.append("}\n");
  response.body = std::move(text);
  return response;
}

http::Response sync_text(std::string_view metadata) {
  auto text = begin_sync();
  text.reserve(text.size() + metadata.size() + 2);
  text.append(metadata);
  return end_sync(std::move(text));
}

http::Response sync(const json::value& metadata) {
  return sync_text(json::serialize(metadata));
}

http::Response empty() {
  return sync_text("{}");
}

http::Response created(std::string location) {
  auto response = sync_text("null");
  response.status = 201;
  response.headers.emplace_back("Location", std::move(location));
  return response;
}

http::Response accepted(const engine::Operation& operation) {
  http::Response response;
  response.status = 202;
  const auto url = operation.url();
  response.headers.emplace_back("Location", url);
  response.body = fmt::format(
      R"({{"type":"async","status":"Operation created","status_code":100,"operation":{},"error_code":0,"error":"","metadata":{}}})"
      "\n",
      json::serialize(json::value(url)), json::serialize(operation.to_json_for_creator()));
  return response;
}

std::string refusal_body(int status, std::string_view message) {
  return fmt::format(R"({{"type":"error","status":"","status_code":0,"operation":"","error_code":{},"error":{},"metadata":null}})"
                     "\n",
                     status, json::serialize(json::value(valid_utf8(message))));  // tools and guests have their words in it
}

http::Response refusal(int status, std::string_view message) {
  http::Response response;
  response.status = status;
  response.body = refusal_body(status, message);
  return response;
}

http::Response refusal(const Error& error) {
  return refusal(http_status(error.kind()), error.text());
}

http::Response with_etag(http::Response response, std::string_view etag) {
  response.headers.emplace_back("ETag", fmt::format("\"{}\"", etag));
  return response;
}

}  // namespace virga::api
