// Small readers for request bodies that several nouns share.
#pragma once

#include <optional>
#include <string>

#include "api/context.h"
#include "base/json.h"
#include "model/config.h"

namespace virga::api {

/// {"config": {...}}; absent where the body has none.
inline Result<std::optional<Config>> read_config(const Fields& fields, std::string_view name = "config") {
  if (!fields.has(name)) return std::optional<Config>();
  VIRGA_TRY(auto map, fields.string_map(name));
  return std::optional<Config>(std::move(map));
}

inline Result<std::optional<Devices>> read_devices(const Fields& fields) {
  if (!fields.has("devices")) return std::optional<Devices>();
  VIRGA_TRY(auto maps, fields.string_maps("devices"));
  return std::optional<Devices>(std::move(maps));
}

inline Result<std::optional<std::string>> read_text(const Fields& fields, std::string_view name) {
  if (!fields.has(name)) return std::optional<std::string>();
  VIRGA_TRY(auto text, fields.string(name));
  return std::optional<std::string>(std::move(text));
}

/// What PATCH makes of a configuration: keys are set, and an empty value takes a key away.
inline Config merge(Config base, const Config& changes) {
  for (const auto& [key, value] : changes) {
    if (value.empty()) {
      base.erase(key);
    } else {
      base[key] = value;
    }
  }
  return base;
}

inline json::array to_array(const std::vector<std::string>& strings) {
  return to_json(strings);
}

/// The revision that a change expects: that of the object the caller saw, where he says which (If-Match).
inline std::optional<std::int64_t> expected_revision(const Context& context, std::int64_t revision) {
  return context.request.headers.has("if-match") ? std::optional(revision) : std::nullopt;
}

}  // namespace virga::api
