#include "api/instances/cache.h"

#include <algorithm>

#include "api/instances/json.h"

namespace virga::api {

const std::string& InstanceCache::rendered(const Ptr& instance) {
  if (auto it = entries_.find(instance.get()); it != entries_.end()) return it->second.text;
  if (entries_.size() >= next_sweep_) drop_old();
  auto& entry = entries_[instance.get()];
  entry.instance = instance;
  entry.text = json::serialize(instance_json(*instance));
  return entry.text;
}

void InstanceCache::drop_old() {
  // What only this cache still holds was replaced or deleted.
  std::erase_if(entries_, [](const auto& item) { return item.second.instance.use_count() == 1; });
  next_sweep_ = std::max<std::size_t>(1024, entries_.size() * 2);
}

}  // namespace virga::api
