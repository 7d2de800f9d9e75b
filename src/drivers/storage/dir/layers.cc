#include "drivers/storage/dir/layers.h"

#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <set>

#include "base/json.h"
#include "base/random.h"
#include "drivers/storage/dir/layout.h"
#include "drivers/storage/dir/qcow2.h"
#include "io/file.h"

namespace virga::storage::dir {
namespace {

constexpr const char* first_layer = "root.qcow2";

bool is_layer_name(std::string_view name) {
  if (name == first_layer) return true;
  constexpr std::string_view prefix = "layer-", suffix = ".qcow2";
  if (!name.starts_with(prefix) || !name.ends_with(suffix) || name.size() != prefix.size() + 12 + suffix.size()) return false;
  return name.substr(prefix.size(), 12).find_first_not_of("0123456789abcdef") == std::string_view::npos;
}

Result<Chain> parse_chain(const json::value& value) {
  Chain out;
  const auto* array = value.if_array();
  if (array == nullptr || array->empty() || array->size() > most_layers + 8)
    return fail(ErrorKind::unavailable, "no list of layers");
  for (const auto& entry : *array) {
    const auto* name = entry.if_string();
    if (name == nullptr || !is_layer_name(std::string_view(*name))) return fail(ErrorKind::unavailable, "no name of a layer");
    out.emplace_back(*name);
  }
  return out;
}

std::set<std::string> named_by(const Layers& layers) {
  std::set<std::string> out(layers.active.begin(), layers.active.end());
  for (const auto& [name, chain] : layers.snapshots) out.insert(chain.begin(), chain.end());
  return out;
}

}  // namespace

bool is_disk(const std::string& volume) {
  return is_regular(volume + "/" + first_layer) || is_regular(volume + "/disk.json");
}

Result<Layers> parse_layers(std::string_view text) {
  VIRGA_TRY(auto object, parse_json_object(text));
  Layers out;
  const auto* active = object.if_contains("active");
  if (active == nullptr) return fail(ErrorKind::unavailable, "no active layer");
  VIRGA_TRY(out.active, parse_chain(*active));
  VIRGA_TRY(auto snapshots, Fields(object).object("snapshots"));
  for (const auto& [name, chain] : snapshots) {
    VIRGA_CHECK(check_snapshot_name(std::string_view(name)));
    VIRGA_TRY(out.snapshots[name], parse_chain(chain));
  }
  return out;
}

std::string encode(const Layers& layers) {
  json::object snapshots;
  for (const auto& [name, chain] : layers.snapshots) snapshots[name] = to_json(chain);
  return json::serialize(json::object{{"active", to_json(layers.active)}, {"snapshots", std::move(snapshots)}});
}

Result<Layers> read_layers(const std::string& volume) {
  const auto path = volume + "/disk.json";
  if (!is_regular(path)) {
    if (!is_regular(volume + "/" + first_layer)) return fail(ErrorKind::not_found, fmt::format("'{}' is no disk", volume));
    return Layers{.active = {first_layer}, .snapshots = {}};
  }
  VIRGA_TRY(auto text, io::read_file(path));
  auto layers = parse_layers(text);
  if (!layers) return fail(ErrorKind::unavailable, fmt::format("'{}' is damaged: {}", path, layers.error().chain()));
  return layers;
}

Result<> write_layers(const std::string& volume, const Layers& layers) {
  return io::write_file_durably(volume + "/disk.json", encode(layers));
}

Result<std::string> add_layer(const std::string& volume, const std::string& below) {
  VIRGA_TRY(auto size, qcow2_size(volume + "/" + below));
  const auto name = fmt::format("layer-{}.qcow2", random_hex(6));
  VIRGA_CHECK(create_qcow2(volume + "/" + name, {.size = size, .backing = below}));
  VIRGA_CHECK(io::sync_directory(volume));
  return name;
}

Result<> sweep_layers(const std::string& volume, const Layers& layers) {
  const auto named = named_by(layers);
  VIRGA_TRY(auto names, io::list_directory(volume));
  for (const auto& name : names)
    if (is_layer_name(name) && !named.contains(name)) VIRGA_CHECK(io::remove_tree(volume + "/" + name));
  return {};
}

bool names_layer(const Layers& layers, const std::string& name) {
  return named_by(layers).contains(name);
}

std::optional<LayerMerge> find_merge(const Layers& layers, const std::vector<std::string>& shared) {
  // Which layers lie on each one, and which are somebody's topmost.
  std::map<std::string, std::set<std::string>> above;
  std::set<std::string> topmost(shared.begin(), shared.end());
  auto look = [&](const Chain& chain) {
    topmost.insert(chain.front());
    for (std::size_t i = 1; i < chain.size(); ++i) above[chain[i]].insert(chain[i - 1]);
  };
  look(layers.active);
  for (const auto& [name, chain] : layers.snapshots) look(chain);
  for (const auto& [lower, uppers] : above) {
    if (uppers.size() != 1 || topmost.contains(lower)) continue;
    LayerMerge out{.lower = lower, .upper = *uppers.begin(), .below = {}};
    auto take_below = [&](const Chain& chain) {
      auto it = std::find(chain.begin(), chain.end(), lower);
      if (it != chain.end()) out.below.assign(it + 1, chain.end());
    };
    take_below(layers.active);
    for (const auto& [name, chain] : layers.snapshots) take_below(chain);
    return out;
  }
  return std::nullopt;
}

Layers after_merge(Layers layers, const LayerMerge& merge) {
  std::erase(layers.active, merge.upper);
  for (auto& [name, chain] : layers.snapshots) std::erase(chain, merge.upper);
  return layers;
}

}  // namespace virga::storage::dir
