// URLs: those of servers elsewhere, and what stands between the slashes of a request. What passes has a host, a target that begins
// with a slash and no control character, and is read again as the same; what is encoded into a segment comes out as it went in.
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "client/url.h"
#include "wire/http/message.h"
#include "wire/http/parse.h"
#include "wire/http/url.h"

namespace {

using namespace virga;

void check(const http::Url& url) {
  if (url.host.empty() || !url.target.starts_with('/')) std::abort();
  for (const auto& part : {url.host, url.target})
    for (char c : part)
      if (static_cast<unsigned char>(c) <= 0x20 || c == 0x7f) std::abort();
  auto again = http::parse_url(url.text());
  if (!again || again->host != url.host || again->port != url.port || again->target != url.target || again->secure != url.secure)
    std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  if (size > 4096) return 0;
  static const auto base = http::parse_url("https://example.org:8443/a/b?c=d").value();
  if (auto url = http::parse_url(text)) check(*url);
  if (auto url = http::resolve_url(base, text)) check(*url);
  (void)http::percent_decode(text, true);

  const auto encoded = client::Url("/1.0/instances").segment(text).query("project", text).text();
  for (char c : encoded)
    if (static_cast<unsigned char>(c) <= 0x20 || static_cast<unsigned char>(c) >= 0x7f) std::abort();
  if (client::name_in_url(encoded) != text) std::abort();
  return 0;
}
