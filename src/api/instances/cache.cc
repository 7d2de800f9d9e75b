#include "api/instances/cache.h"

#include <algorithm>

#include "api/instances/json.h"

namespace virga::api {

InstanceCache::Entry& InstanceCache::entry(const Ptr& instance) {
  if (auto it = entries_.find(instance.get()); it != entries_.end()) return it->second;
  if (entries_.size() >= next_sweep_) drop_old();
  auto& made = entries_[instance.get()];
  made.instance = instance;
  return made;
}

const std::string& InstanceCache::rendered(const Ptr& instance) {
  auto& e = entry(instance);
  if (e.text.empty()) {
    e.text = json::serialize(instance_json(*instance));
    e.text.shrink_to_fit();
  }
  return e.text;
}

const std::string& InstanceCache::etag(const Ptr& instance) {
  auto& e = entry(instance);
  if (e.etag.empty()) e.etag = instance_etag(*instance);
  return e.etag;
}

std::shared_ptr<const std::string> InstanceCache::shared_list(const std::string& query, std::uint64_t generation) const {
  const auto it = lists_.find(query);
  return it != lists_.end() && it->second.generation == generation ? it->second.text.lock() : nullptr;
}

void InstanceCache::share_list(std::string query, std::uint64_t generation, const std::shared_ptr<const std::string>& text) {
  constexpr std::size_t most = 64;
  if (lists_.size() >= most) std::erase_if(lists_, [](const auto& item) { return item.second.text.expired(); });
  if (lists_.size() < most) lists_[std::move(query)] = {generation, text};
}

void InstanceCache::drop_old() {
  // What only this cache still holds was replaced or deleted.
  std::erase_if(entries_, [](const auto& item) { return item.second.instance.use_count() == 1; });
  next_sweep_ = std::max<std::size_t>(1024, entries_.size() * 2);
}

}  // namespace virga::api
