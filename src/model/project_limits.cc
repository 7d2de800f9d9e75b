#include "model/project_limits.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>

#include "base/units.h"

namespace virga {
namespace {

std::string option(const Config& config, const char* key) {
  const auto it = config.find(key);
  return it == config.end() ? std::string() : it->second;
}

std::int64_t bytes(std::string_view text) {
  const auto value = parse_bytes(text);
  return value ? static_cast<std::int64_t>(std::min<Bytes>(*value, std::numeric_limits<std::int64_t>::max())) : 0;
}

std::int64_t number(std::string_view text) {
  return parse_integer(text, 0, std::numeric_limits<std::int64_t>::max()).value_or(0);
}

bool is_bytes(std::string_view name) {
  return name == "memory" || name.starts_with("disk");
}

std::string show(std::string_view name, std::int64_t amount) {
  return is_bytes(name) ? format_bytes(static_cast<Bytes>(amount)) : fmt::format("{}", amount);
}

std::int64_t used(const Amounts& amounts, std::string_view name) {
  const auto it = amounts.find(name);
  return it == amounts.end() ? 0 : it->second;
}

/// Sums saturate: no set of sizes turns into a small one.
std::int64_t plus(std::int64_t a, std::int64_t b) {
  std::int64_t sum = 0;
  return __builtin_add_overflow(a, b, &sum) ? std::numeric_limits<std::int64_t>::max() : sum;
}

}  // namespace

Amounts amounts_of(const Instance& i) {
  Amounts out;
  out["instances"] = 1;
  out[i.type == InstanceType::container ? "containers" : "virtual-machines"] = 1;
  out["cpu"] = number(option(i.expanded_config, "limits.cpu"));
  out["memory"] = bytes(option(i.expanded_config, "limits.memory"));
  if (i.type == InstanceType::container) out["processes"] = number(option(i.expanded_config, "limits.processes"));
  if (const auto root = root_disk(i.expanded_devices)) {
    const auto size = plus(bytes(option(root->second, "size")), bytes(option(root->second, "size.state")));
    out["disk"] = size;
    out["disk.pool." + option(root->second, "pool")] = size;
  }
  return out;
}

void add(Amounts& sum, const Amounts& more) {
  for (const auto& [name, amount] : more) sum[name] = plus(sum[name], amount);
}

void raise(Amounts& to, const Amounts& other) {
  for (const auto& [name, amount] : other) to[name] = std::max(to[name], amount);
}

Amounts limits_of(const Project& project) {
  Amounts out;
  for (auto it = project.config.lower_bound("limits."); it != project.config.end() && it->first.starts_with("limits."); ++it) {
    if (it->second.empty()) continue;
    const auto name = it->first.substr(7);
    out[name] = is_bytes(name) ? bytes(it->second) : number(it->second);
  }
  return out;
}

bool is_limited(const Project& project) {
  return !limits_of(project).empty();
}

Result<> check_counted(const Project& project, const Instance& i) {
  auto missing = [&](std::string field, std::string_view key, std::string_view limit) {
    return fail(Error(ErrorKind::invalid, fmt::format("instance '{}' has no '{}', which project '{}' needs to count it against its "
                                                      "'{}'",
                                                      i.name, key, project.name, limit))
                    .with_field(std::move(field))
                    .with_hint("set it on the instance or in a profile"));
  };
  const auto limits = limits_of(project);
  for (const std::string_view name : {"cpu", "memory", "processes"}) {
    if (!limits.contains(name) || (name == "processes" && i.type != InstanceType::container)) continue;
    const auto key = fmt::format("limits.{}", name);
    const auto value = option(i.expanded_config, key.c_str());
    if (value.empty()) return missing("config." + key, key, key);
    // A set of processors or a share of memory is no number that can be added up.
    if (name == "memory" ? !parse_bytes(value) : !parse_integer(value, 0, std::numeric_limits<std::int64_t>::max()))
      return invalid("config." + key,
                     fmt::format("instance '{}': '{}' must be a plain amount in project '{}', which limits the sum", i.name, key,
                                 project.name));
  }
  auto root = root_disk(i.expanded_devices);
  if (!root || !option(root->second, "size").empty()) return {};
  for (const auto& limit : {std::string("disk"), "disk.pool." + option(root->second, "pool")})
    if (limits.contains(limit))
      return missing(fmt::format("devices.{}.size", root->first), root->first + ".size", "limits." + limit);
  return {};
}

Result<> check_limits(const Project& project, const Amounts& before, const Amounts& after) {
  for (const auto& [name, limit] : limits_of(project)) {
    const auto have = used(before, name), want = used(after, name);
    if (want <= limit || want <= have) continue;
    return fail(
        Error(ErrorKind::denied, fmt::format("project '{}' is limited to {} by 'limits.{}': {} in use, {} more asked for",
                                             project.name, show(name, limit), name, show(name, have), show(name, want - have)))
            .with_field("config.limits." + name));
  }
  return {};
}

Result<> check_room(const Project& old, const Project& next, const Amounts& amounts) {
  const auto before = limits_of(old);
  for (const auto& [name, limit] : limits_of(next)) {
    const auto was = before.find(name);
    if (was != before.end() && was->second == limit) continue;
    if (const auto have = used(amounts, name); have > limit)
      return invalid("config.limits." + name, fmt::format("'limits.{}' cannot be {}: project '{}' uses {}", name, show(name, limit),
                                                          next.name, show(name, have)));
  }
  return {};
}

}  // namespace virga
