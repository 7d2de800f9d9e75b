// A snapshot of an instance: what the instance was configured as, and when it goes. Its data is its volume's, under the same name.
#pragma once

#include <string>
#include <string_view>

#include "base/json.h"
#include "base/units.h"
#include "model/instance.h"

namespace virga {

struct InstanceSnapshot {
  std::string name;
  /// As it was when the snapshot was taken, with the configuration that its profiles made then. Whatever the instance is called now
  /// counts for its project and name.
  Instance instance;
  WallTime created_at{};
  WallTime expires_at{};  ///< the zero time: never
  bool stateful = false;
  Bytes size = 0;  ///< what it takes, as far as is known
  std::int64_t revision = 0;
};

json::object encode(const InstanceSnapshot& snapshot);
Result<InstanceSnapshot> decode_snapshot(const json::object& document);
/// 1 to 100 letters, digits, '.', '_', '-', ':', '+' and '@'; begins with a letter or digit. Errors: invalid, field "name".
Result<> check_snapshot_name(std::string_view name);
/// The name that `pattern` ("snap%d") makes for one more beside `taken`: %d is one more than the highest number there. A pattern
/// without %d gets "-0", "-1", ... where its name is taken. Errors: invalid (what it makes is no name).
Result<std::string> next_snapshot_name(std::string_view pattern, const std::vector<std::string>& taken);

}  // namespace virga
