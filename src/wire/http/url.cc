#include "wire/http/url.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/units.h"
#include "model/address.h"

namespace virga::http {
namespace {

constexpr std::size_t max_url = 8192;

tl::unexpected<Error> bad_url(std::string_view why) {
  return invalid("url", fmt::format("this is not a usable URL: {}", why));
}

bool host_character(char c) {
  return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '.' || c == '_';
}

Result<> read_authority(std::string_view authority, Url& out) {
  if (authority.find('@') != std::string_view::npos) return bad_url("it holds a user name");
  std::string_view port;
  if (authority.starts_with('[')) {
    const auto close = authority.find(']');
    if (close == std::string_view::npos) return bad_url("a bracket is missing");
    out.host = std::string(authority.substr(1, close - 1));
    if (auto address = parse_ip(out.host); !address || !address->v6) return bad_url("only IPv6 addresses stand in brackets");
    authority.remove_prefix(close + 1);
    if (!authority.empty() && !authority.starts_with(':')) return bad_url("there is something behind the bracket");
    port = authority.empty() ? authority : authority.substr(1);
  } else {
    const auto colon = authority.find(':');
    out.host = std::string(authority.substr(0, colon));
    std::transform(out.host.begin(), out.host.end(), out.host.begin(),
                   [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; });
    if (out.host.empty() || out.host.size() > 253 || !std::all_of(out.host.begin(), out.host.end(), host_character))
      return bad_url("the host is missing or malformed");
    if (colon != std::string_view::npos) port = authority.substr(colon + 1);
  }
  out.port = out.secure ? 443 : 80;
  if (port.empty()) return {};
  auto number = parse_integer(port, 1, 65535);
  if (!number) return bad_url("the port is not a number from 1 to 65535");
  out.port = static_cast<std::uint16_t>(*number);
  return {};
}

}  // namespace

std::string Url::origin() const {
  const bool v6 = host.find(':') != std::string::npos;
  const bool usual = port == (secure ? 443 : 80);
  return fmt::format("{}://{}{}{}{}", secure ? "https" : "http", v6 ? "[" : "", host, v6 ? "]" : "",
                     usual ? std::string() : fmt::format(":{}", port));
}

std::string Url::text() const {
  return origin() + target;
}

Result<Url> parse_url(std::string_view text) {
  if (text.empty()) return bad_url("it is empty");
  if (text.size() > max_url) return bad_url("it is too long");
  for (const char c : text)
    if (static_cast<unsigned char>(c) <= 0x20 || static_cast<unsigned char>(c) >= 0x7f || c == '\\')
      return bad_url("it holds a blank, a backslash or a character that must be encoded");
  Url out;
  if (text.starts_with("https://")) {
    text.remove_prefix(8);
  } else if (text.starts_with("http://")) {
    out.secure = false;
    text.remove_prefix(7);
  } else {
    return bad_url("it must begin with https:// or http://");
  }
  const auto end = text.find_first_of("/?#");
  VIRGA_CHECK(read_authority(text.substr(0, end), out));
  auto rest = end == std::string_view::npos ? std::string_view() : text.substr(end);
  rest = rest.substr(0, rest.find('#'));
  out.target = rest.starts_with('/') ? std::string(rest) : "/" + std::string(rest);
  return out;
}

Result<Url> resolve_url(const Url& base, std::string_view location) {
  if (location.empty()) return bad_url("the server redirects to nowhere");
  const auto scheme_end = location.find("://");
  if (scheme_end != std::string_view::npos && scheme_end < location.find_first_of("/?#")) return parse_url(location);
  if (location.starts_with("//")) return parse_url(fmt::format("{}:{}", base.secure ? "https" : "http", location));
  if (location.starts_with('/')) return parse_url(base.origin() + std::string(location));
  if (const auto colon = location.find(':'); colon < location.find_first_of("/?#"))
    return bad_url("it must begin with https:// or http://");
  const auto path = base.target.substr(0, base.target.find('?'));
  if (location.starts_with('?')) return parse_url(base.origin() + path + std::string(location));
  return parse_url(base.origin() + path.substr(0, path.rfind('/') + 1) + std::string(location));
}

std::string join_url(std::string_view base, std::string_view path) {
  while (base.ends_with('/')) base.remove_suffix(1);
  while (path.starts_with('/')) path.remove_prefix(1);
  return fmt::format("{}/{}", base, path);
}

}  // namespace virga::http
