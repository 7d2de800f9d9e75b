// Absolute URLs of servers elsewhere: parsed once into what a connection and a request need. Pure.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/error.h"

namespace virga::http {

struct Url {
  bool secure = true;  ///< https; else http
  std::string host;    ///< a name in lower case or an address, without brackets
  std::uint16_t port = 443;
  std::string target;  ///< path and query, at least "/"; without the fragment
  std::string text() const;
  /// "https://host:port".
  std::string origin() const;
};

/// http and https only: no user name, no blanks or control characters. Errors: invalid, field "url".
Result<Url> parse_url(std::string_view text);
/// What a Location header means, seen from `base`. Errors: as parse_url.
Result<Url> resolve_url(const Url& base, std::string_view location);
/// `base` and a path below it, with exactly one slash between them; `path` stays as it is (encoded already).
std::string join_url(std::string_view base, std::string_view path);

}  // namespace virga::http
