#include "model/snapshot.h"

#include <fmt/format.h>

#include <algorithm>

namespace virga {

json::object encode(const InstanceSnapshot& s) {
  return {{"name", s.name},
          {"instance", encode(s.instance)},
          {"expanded_config", to_json(s.instance.expanded_config)},
          {"expanded_devices", to_json(s.instance.expanded_devices)},
          {"created_at", format_time(s.created_at)},
          {"expires_at", format_time(s.expires_at)},
          {"stateful", s.stateful},
          {"size", s.size}};
}

Result<InstanceSnapshot> decode_snapshot(const json::object& document) {
  const Fields f(document);
  InstanceSnapshot s;
  VIRGA_TRY(s.name, f.string("name"));
  VIRGA_TRY(const auto instance, f.object("instance"));
  VIRGA_TRY(s.instance, decode_instance(instance));
  VIRGA_TRY(s.instance.expanded_config, f.string_map("expanded_config"));
  VIRGA_TRY(s.instance.expanded_devices, f.string_maps("expanded_devices"));
  VIRGA_TRY(auto created, f.string("created_at"));
  VIRGA_TRY(s.created_at, parse_time(created));
  VIRGA_TRY(auto expires, f.string("expires_at", "0001-01-01T00:00:00Z"));
  VIRGA_TRY(s.expires_at, parse_time(expires));
  VIRGA_TRY(s.stateful, f.boolean("stateful"));
  VIRGA_TRY(auto size, f.integer("size"));
  s.size = static_cast<Bytes>(std::max<std::int64_t>(size, 0));
  return s;
}

Result<> check_snapshot_name(std::string_view name) {
  auto plain = [](char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9'); };
  const bool ok = !name.empty() && name.size() <= 100 && plain(name.front()) && std::all_of(name.begin(), name.end(), [&](char c) {
    return plain(c) || std::string_view("._-:+@").find(c) != std::string_view::npos;
  });
  if (ok) return {};
  std::string shown;
  for (char c : name.substr(0, 60)) shown += static_cast<unsigned char>(c) < 0x20 || c == 0x7f ? '?' : c;
  return invalid("name",
                 fmt::format("invalid snapshot name '{}': use 1 to 100 letters, digits and any of '._-:+@', and begin with a "
                             "letter or digit",
                             shown));
}

Result<std::string> next_snapshot_name(std::string_view pattern, const std::vector<std::string>& taken) {
  const auto is_taken = [&](const std::string& name) { return std::find(taken.begin(), taken.end(), name) != taken.end(); };
  std::string name(pattern);
  if (const auto at = pattern.find("%d"); at != std::string_view::npos) {
    const auto front = pattern.substr(0, at), back = pattern.substr(at + 2);
    std::int64_t next = 0;
    for (const std::string_view other : taken) {
      if (other.size() < front.size() + back.size() || !other.starts_with(front) || !other.ends_with(back)) continue;
      const auto number = parse_integer(other.substr(front.size(), other.size() - front.size() - back.size()), 0, 1'000'000'000);
      if (number) next = std::max(next, *number + 1);
    }
    name = fmt::format("{}{}{}", front, next, back);
  }
  for (int n = 0; is_taken(name); ++n) name = fmt::format("{}-{}", pattern, n);
  VIRGA_CHECK(check_snapshot_name(name));
  return name;
}

}  // namespace virga
