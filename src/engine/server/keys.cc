#include "engine/server/keys.h"

#include <arpa/inet.h>
#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "base/units.h"
#include "engine/server/address.h"
#include "engine/server/later_keys.h"
#include "model/expiry.h"
#include "model/image.h"
#include "model/name.h"

namespace virga::engine {
namespace {

/// Empty: it is no address.
std::string normal_address(const std::string& text) {
  std::array<char, 46> out{};
  in6_addr raw{};
  for (const int family : {AF_INET, AF_INET6})
    if (::inet_pton(family, text.c_str(), &raw) == 1) ::inet_ntop(family, &raw, out.data(), out.size());
  return out.data();
}

Result<> address(std::string& value) {
  VIRGA_TRY(const ListenAddress parsed, parse_listen_address(value));
  value = to_string(parsed);
  return {};
}
Result<> truth(std::string& value) {
  auto r = parse_bool(value);
  return r ? Result<>{} : fail(std::move(r).error());
}
/// What goes into a header or an environment: one line of printable text.
Result<> one_line(std::string& value) {
  if (value.size() > 4096) return fail(ErrorKind::invalid, "the value is longer than 4096 bytes");
  for (const char c : value)
    if (static_cast<unsigned char>(c) < 0x20 || static_cast<unsigned char>(c) >= 0x7f)
      return fail(ErrorKind::invalid, "the value is one line of plain characters");
  return {};
}
Result<> origin(std::string& value) {
  VIRGA_CHECK(one_line(value));
  if (value.find('*') != std::string::npos)
    return fail(ErrorKind::invalid,
                "name the one origin whose pages may use the API, such as https://ui.example.org: never all of them");
  if (!value.starts_with("https://") && !value.starts_with("http://"))
    return fail(ErrorKind::invalid, "an origin is written as https://ui.example.org");
  return {};
}
Result<> origins(std::string& value) {
  VIRGA_CHECK(one_line(value));
  for (auto one : listed(value)) VIRGA_CHECK(origin(one));
  return {};
}
Result<> addresses(std::string& value) {
  VIRGA_CHECK(one_line(value));
  std::string normal;
  for (const auto& one : listed(value)) {
    auto address = normal_address(one);
    if (address.empty()) return fail(ErrorKind::invalid, "write IP addresses without prefix or port, with commas between them");
    normal += (normal.empty() ? "" : ",") + address;
  }
  value = std::move(normal);
  return {};
}
Result<> shutdown_action(std::string& value) {
  if (value == "shutdown") return {};
  if (value == "evacuate") return fail(ErrorKind::unsupported, "there are no clusters yet: instances have nowhere else to go");
  return fail(ErrorKind::invalid, "the action is shutdown");
}
Result<> proxy(std::string& value) {
  VIRGA_CHECK(one_line(value));
  const auto rest = value.starts_with("http://") ? std::string_view(value).substr(7) : std::string_view(value);
  if (rest.empty() || rest.find_first_of("@/ ") != std::string_view::npos)
    return fail(ErrorKind::invalid, "a proxy is written as http://host:port, without a user name or path");
  return {};
}
Result<> lifetime(std::string& value) {
  auto r = parse_expiry(value, WallTime{});
  return r ? Result<>{} : fail(std::move(r).error());
}
Result<> free_text(std::string& value) {
  if (value.size() > 65536) return fail(ErrorKind::invalid, "the value is longer than 64 KiB");
  for (const char c : value)
    if (static_cast<unsigned char>(c) < 0x20 && c != '\n' && c != '\t')
      return fail(ErrorKind::invalid, "control characters are not allowed here");
  return {};
}

Result<> whole(std::string& value, std::int64_t most) {
  auto n = parse_integer(value, 0, most);
  return n ? Result<>{} : fail(std::move(n).error());
}
Result<> some_hours(std::string& value) {
  return whole(value, 100'000);
}
Result<> some_minutes(std::string& value) {
  return whole(value, 10'000);
}
Result<> some_days(std::string& value) {
  return whole(value, 36'500);
}
Result<> compression(std::string& value) {
  for (const char* known : {"bzip2", "gzip", "xz", "zstd", "none"})
    if (value == known) return {};
  return fail(ErrorKind::invalid, "the algorithm is bzip2, gzip, xz, zstd or none");
}
Result<> architecture(std::string& value) {
  VIRGA_TRY(value, canonical_architecture(value));
  return {};
}

constexpr std::array keys{
    ServerKey{"core.https_address", "string", "", "where the API is served over HTTPS; unset: on the unix socket only", address},
    ServerKey{"core.https_allowed_credentials", "bool", "false",
              "whether pages of the allowed origin may send the browser's client certificate", truth},
    ServerKey{"core.https_allowed_headers", "string", "", "request headers that pages of the allowed origin may set", one_line},
    ServerKey{"core.https_allowed_methods", "string", "", "methods that pages of the allowed origin may use", one_line},
    ServerKey{"core.https_allowed_origin", "string", "", "the one other origin whose pages may use the API", origin},
    ServerKey{"core.https_allowed_websocket_origin", "string", "",
              "further origins whose pages may open WebSockets, with commas between them", origins},
    ServerKey{"core.https_trusted_proxy", "string", "",
              "addresses of proxies that say in a PROXY header whose connections they pass on, with commas between them",
              addresses},
    ServerKey{"core.metrics_address", "string", "", "where /1.0/metrics is served, and nothing else", address},
    ServerKey{"core.metrics_authentication", "bool", "true", "whether who reads the metrics needs a certificate", truth},
    ServerKey{"core.proxy_http", "string", "", "proxy for what the daemon fetches over HTTP", proxy},
    ServerKey{"core.proxy_https", "string", "", "proxy for what the daemon fetches over HTTPS", proxy},
    ServerKey{"core.proxy_ignore_hosts", "string", "",
              "hosts, domains and address ranges that need no proxy, with commas between them", one_line},
    ServerKey{"core.remote_token_expiry", "string", "1d", "how long a token for a new client is good: 30M, 2H, 1d, 1w", lifetime},
    ServerKey{"core.shutdown_action", "string", "shutdown",
              "what happens to the instances when the daemon is shut down: only shutdown", shutdown_action},
    ServerKey{"core.shutdown_timeout", "integer", "5",
              "minutes that a shutdown waits for running operations before it stops the instances", some_minutes},
    ServerKey{"images.auto_update_cached", "bool", "true", "whether images that were fetched for an instance follow their server",
              truth},
    ServerKey{"images.auto_update_interval", "integer", "6", "hours between looks for newer images; 0: never", some_hours},
    ServerKey{"backups.compression_algorithm", "string", "gzip",
              "how backups of instances are compressed: bzip2, gzip, xz, zstd or none", compression},
    ServerKey{"images.compression_algorithm", "string", "gzip",
              "how images of instances are compressed: bzip2, gzip, xz, zstd or none", compression},
    ServerKey{"images.default_architecture", "string", "", "of images that are fetched without saying one; unset: this machine's",
              architecture},
    ServerKey{"images.remote_cache_expiry", "integer", "10", "days after which an unused cached image is removed; 0: never",
              some_days},
    ServerKey{"user.*", "string", "", "free for the user", free_text},
};

std::string nearest_key(std::string_view key) {
  std::string best;
  for (const auto& rule : keys)
    if (auto near = nearest(key, {rule.key}); !near.empty()) best = std::move(near);
  return best;
}

tl::unexpected<Error> unknown(const std::string& key) {
  const auto field = "config." + key.substr(0, 100);
  if (key == "core.trust_password")
    return fail(Error(ErrorKind::unsupported, "'core.trust_password' is not supported: it would be one secret for everybody")
                    .with_field(field)
                    .with_hint("make a token for each client with 'virga config trust add'"));
  if (const auto why = why_not_supported(key); !why.empty())
    return fail(Error(ErrorKind::unsupported, fmt::format("'{}' is not supported: {}", key, why)).with_field(field));
  auto error =
      Error(ErrorKind::invalid, fmt::format("unknown server configuration key '{}'", key.substr(0, 100))).with_field(field);
  if (auto near = nearest_key(key); !near.empty()) error = std::move(error).with_hint(fmt::format("did you mean '{}'?", near));
  return fail(std::move(error));
}

}  // namespace

std::span<const ServerKey> server_keys() {
  return keys;
}

const ServerKey* find_server_key(std::string_view key) {
  for (const auto& rule : keys) {
    const bool family = rule.key.ends_with('*');
    const auto stem = family ? rule.key.substr(0, rule.key.size() - 1) : rule.key;
    if (family ? key.starts_with(stem) && key.size() > stem.size() && key.size() <= 128 : key == stem) return &rule;
  }
  return nullptr;
}

Result<Config> check_server_config(Config config) {
  std::erase_if(config, [](const auto& entry) { return entry.second.empty(); });
  for (auto& [key, value] : config) {
    for (const char c : key)
      if (static_cast<unsigned char>(c) <= 0x20 || c == 0x7f)
        return invalid("config", "a configuration key holds a blank or a control character");
    const auto* rule = find_server_key(key);
    if (rule == nullptr) return unknown(key);
    if (auto ok = rule->check(value); !ok)
      return fail(std::move(ok).error().wrap(fmt::format("invalid value for '{}'", key)).with_field("config." + key));
  }
  return config;
}

std::vector<std::string> listed(std::string_view value) {
  std::vector<std::string> out;
  while (!value.empty()) {
    const auto comma = value.find(',');
    auto item = value.substr(0, comma);
    while (item.starts_with(' ')) item.remove_prefix(1);
    while (item.ends_with(' ')) item.remove_suffix(1);
    out.emplace_back(item);
    value.remove_prefix(comma == std::string_view::npos ? value.size() : comma + 1);
  }
  return out;
}

std::string server_setting(const Config& config, std::string_view key) {
  if (auto it = config.find(std::string(key)); it != config.end()) return it->second;
  const auto* rule = find_server_key(key);
  return rule == nullptr ? std::string() : std::string(rule->default_value);
}

}  // namespace virga::engine
