#include "model/pool.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "model/name.h"

namespace virga {
namespace {

Result<> directory(std::string_view value) {
  if (value.size() < 2 || value.size() > 1024 || value.front() != '/' || value.find("//") != std::string_view::npos)
    return fail(ErrorKind::invalid, "write an absolute path of a directory");
  for (unsigned char c : value)
    if (c < 0x20 || c == 0x7f || c == ',' || c == ':' || c == '\\')
      return fail(ErrorKind::invalid, "a pool's directory holds no ',', ':', backslash or control character");
  for (std::size_t at = 0; at < value.size();) {
    const auto end = std::min(value.find('/', at), value.size());
    const auto part = value.substr(at, end - at);
    if (part == "." || part == "..") return fail(ErrorKind::invalid, "write the path without '.' and '..'");
    at = end + 1;
  }
  return {};
}

Result<> free_text(std::string_view value) {
  if (value.size() > 65536 || value.find('\0') != std::string_view::npos)
    return fail(ErrorKind::invalid, "the value is longer than 64 KiB or holds a NUL");
  return {};
}

constexpr std::array<PoolKeyRule, 2> rules{{
    {"source", "string", "a directory of virga's own", "the directory that holds the pool", directory, false},
    {"user.*", "string", "", "free for the user", free_text, true},
}};

const PoolKeyRule* find_rule(std::string_view key) {
  auto rule = std::find_if(rules.begin(), rules.end(), [key](const PoolKeyRule& r) {
    return r.key.ends_with('*') ? key.size() >= r.key.size() && key.starts_with(r.key.substr(0, r.key.size() - 1)) : r.key == key;
  });
  return rule == rules.end() ? nullptr : &*rule;
}

}  // namespace

std::string_view to_string(PoolStatus status) noexcept {
  return status == PoolStatus::created ? "Created" : "Unavailable";
}

std::string Pool::source() const {
  auto it = config.find("source");
  return it == config.end() ? std::string() : it->second;
}

json::object encode(const Pool& pool) {
  return {{"name", pool.name}, {"driver", pool.driver}, {"description", pool.description}, {"config", to_json(pool.config)}};
}

Result<Pool> decode_pool(const json::object& document) {
  Fields f(document);
  Pool out;
  VIRGA_TRY(out.name, f.string("name"));
  VIRGA_TRY(out.driver, f.string("driver"));
  VIRGA_TRY(out.description, f.string("description"));
  VIRGA_TRY(out.config, f.string_map("config"));
  return out;
}

std::span<const PoolKeyRule> pool_keys() {
  return rules;
}

Result<> check(const Pool& pool) {
  VIRGA_CHECK(check_object_name("storage pool", pool.name));
  VIRGA_CHECK(check_description(pool.description));
  for (const auto& [key, value] : pool.config) {
    const auto shown = key.substr(0, 100);
    for (unsigned char c : key)
      if (c <= 0x20 || c == 0x7f || c == '=' || c == '"')
        return invalid("config", "a configuration key holds a blank, a quote, '=' or a control character");
    const auto* rule = find_rule(key);
    if (rule == nullptr) {
      auto error =
          Error(ErrorKind::invalid, fmt::format("storage pool configuration key '{}' is unknown or not supported yet", shown))
              .with_field("config." + shown);
      if (auto near = nearest(key, {"source"}); !near.empty())
        error = std::move(error).with_hint(fmt::format("did you mean '{}'?", near));
      return fail(std::move(error));
    }
    if (value.empty()) continue;
    if (auto ok = rule->check(value); !ok)
      return fail(std::move(ok).error().with_field("config." + shown).wrap(fmt::format("invalid value for 'config.{}'", shown)));
  }
  return {};
}

Result<> check_pool_change(const Config& from, const Config& to) {
  auto value = [](const Config& config, const std::string& key) {
    auto it = config.find(key);
    return it == config.end() ? std::string() : it->second;
  };
  for (const auto& rule : rules) {
    if (rule.may_change) continue;
    const std::string key(rule.key);
    if (value(from, key) != value(to, key))
      return invalid("config." + key, fmt::format("'{}' of a storage pool cannot be changed after it was made", key));
  }
  return {};
}

}  // namespace virga
