#include "api/etag.h"

#include <fmt/format.h>

#include "base/random.h"

namespace virga::api {

std::string etag_of(const json::value& mutable_fields) {
  return sha256_hex(json::serialize(mutable_fields));
}

Result<> check_match(const http::Request& request, std::string_view etag) {
  auto given = request.headers.get("if-match");
  if (given.empty() || given == "*") return {};
  if (given.size() >= 2 && given.front() == '"' && given.back() == '"') given = given.substr(1, given.size() - 2);
  if (given == etag) return {};
  return fail(ErrorKind::conflict, fmt::format("ETag doesn't match: {} vs {}", etag, given));
}

}  // namespace virga::api
