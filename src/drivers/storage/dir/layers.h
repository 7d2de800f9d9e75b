// The layers of a disk: qcow2 files in the volume's directory, each an overlay of the next. Snapshots are names for lists of
// layers; a layer that has another above it is never written to again but by a merge. disk.json tells what belongs to what, and is
// replaced by one rename, so that each change of it happens wholly or not at all; layers that it does not name are swept. Names in
// the headers of layers are for people: nobody follows them. A volume without disk.json has one layer, root.qcow2.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "base/error.h"
#include "drivers/storage/driver.h"

namespace virga::storage::dir {

/// Names of files, topmost first. The last one lies on the volume's image, where it has one.
using Chain = std::vector<std::string>;

struct Layers {
  Chain active;
  std::map<std::string, Chain> snapshots;
};

/// A chain is not made longer: each layer costs QEMU a descriptor and a cache.
constexpr std::size_t most_layers = 100;

/// Whether a volume is a disk.
bool is_disk(const std::string& volume);
/// Errors: not_found (no disk), unavailable (disk.json is damaged).
Result<Layers> read_layers(const std::string& volume);
/// Durably, in one step.
Result<> write_layers(const std::string& volume, const Layers& layers);
/// Pure. Errors: unavailable.
Result<Layers> parse_layers(std::string_view text);
std::string encode(const Layers& layers);

/// Makes an empty layer over `below` and returns its name; it belongs to nothing yet.
Result<std::string> add_layer(const std::string& volume, const std::string& below);
/// Removes what nothing names.
Result<> sweep_layers(const std::string& volume, const Layers& layers);

bool names_layer(const Layers& layers, const std::string& name);

/// Names of two layers, see SnapshotOps::Merge.
struct LayerMerge {
  std::string lower;
  std::string upper;
  Chain below;
  friend bool operator==(const LayerMerge&, const LayerMerge&) = default;
};
/// Pure. `shared` tells which layers other volumes have, too: those stay as they are.
std::optional<LayerMerge> find_merge(const Layers& layers, const std::vector<std::string>& shared);
/// What is left when the lower one has taken the upper one's place.
Layers after_merge(Layers layers, const LayerMerge& merge);

}  // namespace virga::storage::dir
