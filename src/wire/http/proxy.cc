#include "wire/http/proxy.h"

#include "model/reach.h"

namespace virga::http {
namespace {

bool is_this_machine(const Url& url) {
  if (url.host == "localhost") return true;
  const auto address = parse_ip(url.host);
  return address && reach_of(*address) == Reach::loopback;
}

/// A domain stands for itself and all below it; one that begins with a dot only for those below.
bool matches(std::string_view pattern, const std::string& host) {
  if (pattern == "*" || pattern == host) return true;
  if (const auto address = parse_ip(host)) {
    const auto range = parse_cidr(pattern);
    return range && range->contains(*address);
  }
  const std::string suffix = pattern.starts_with('.') ? std::string(pattern) : "." + std::string(pattern);
  return host.size() > suffix.size() && host.ends_with(suffix);
}

bool is_ignored(const std::string& host, std::string_view list) {
  while (!list.empty()) {
    auto item = list.substr(0, list.find(','));
    list.remove_prefix(std::min(list.size(), item.size() + 1));
    while (item.starts_with(' ')) item.remove_prefix(1);
    while (item.ends_with(' ')) item.remove_suffix(1);
    if (!item.empty() && matches(item, host)) return true;
  }
  return false;
}

}  // namespace

Result<Proxy> parse_proxy(std::string_view text) {
  const auto url = parse_url(text.find("://") == std::string_view::npos ? "http://" + std::string(text) : std::string(text));
  if (!url || url->secure || url->target != "/")
    return fail(ErrorKind::invalid, "a proxy is written as http://host:port, without a user name or path");
  return Proxy{.host = url->host, .port = url->port};
}

Result<std::optional<Proxy>> proxy_for(const Url& url, const Proxies& proxies) {
  const auto& wanted = url.secure ? proxies.https : proxies.http;
  if (wanted.empty() || is_this_machine(url) || is_ignored(url.host, proxies.ignore_hosts)) return std::nullopt;
  VIRGA_TRY(auto proxy, parse_proxy(wanted));
  return proxy;
}

}  // namespace virga::http
