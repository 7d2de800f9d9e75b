// A map that copies of an object share until one of them changes it. Objects are immutable once they are handed out and a change
// makes a new one: with this, the new one costs what has changed.
#pragma once

#include <initializer_list>
#include <memory>
#include <utility>

namespace virga {

/// Reads like the map it holds; what writes makes an own copy first where others hold it too. An iterator is for reading, and is
/// valid until the next write. Not for two threads at once, as little as the map itself.
template <class Map>
class SharedMap {
 public:
  using key_type = typename Map::key_type;
  using mapped_type = typename Map::mapped_type;
  using value_type = typename Map::value_type;
  using const_iterator = typename Map::const_iterator;
  using iterator = const_iterator;

  SharedMap() = default;
  SharedMap(Map map) : map_(map.empty() ? nullptr : std::make_shared<Map>(std::move(map))) {}  // NOLINT: it is the map
  SharedMap(std::initializer_list<value_type> list) : SharedMap(Map(list)) {}

  operator const Map&() const noexcept { return get(); }  // NOLINT: it is the map
  const Map& get() const noexcept { return map_ ? *map_ : none(); }
  const_iterator begin() const noexcept { return get().begin(); }
  const_iterator end() const noexcept { return get().end(); }
  bool empty() const noexcept { return get().empty(); }
  std::size_t size() const noexcept { return get().size(); }
  template <class Key>
  const_iterator find(const Key& key) const {
    return get().find(key);
  }
  template <class Key>
  const_iterator lower_bound(const Key& key) const {
    return get().lower_bound(key);
  }
  template <class Key>
  std::size_t count(const Key& key) const {
    return get().count(key);
  }
  template <class Key>
  bool contains(const Key& key) const {
    return get().contains(key);
  }
  template <class Key>
  const mapped_type& at(const Key& key) const {
    return get().at(key);
  }

  /// The map for writing, this object's own.
  Map& edit() {
    if (!map_) {
      map_ = std::make_shared<Map>();
    } else if (map_.use_count() > 1) {
      map_ = std::make_shared<Map>(*map_);
    }
    return *map_;
  }
  template <class Key>
  mapped_type& operator[](Key&& key) {
    return edit()[std::forward<Key>(key)];
  }
  template <class... Args>
  auto emplace(Args&&... args) {
    return edit().emplace(std::forward<Args>(args)...);
  }
  template <class... Args>
  auto try_emplace(Args&&... args) {
    return edit().try_emplace(std::forward<Args>(args)...);
  }
  template <class Key, class Value>
  auto insert_or_assign(Key&& key, Value&& value) {
    return edit().insert_or_assign(std::forward<Key>(key), std::forward<Value>(value));
  }
  auto insert(value_type value) { return edit().insert(std::move(value)); }
  template <class Key>
  std::size_t erase(const Key& key) {
    return count(key) == 0 ? 0 : edit().erase(key);
  }
  void clear() noexcept { map_.reset(); }

  /// How many objects hold the map; 0 where it is empty and there is none.
  long use_count() const noexcept { return map_.use_count(); }
  /// Whether both are one map in memory.
  bool shares(const SharedMap& other) const noexcept { return map_ == other.map_; }
  friend bool operator==(const SharedMap& a, const SharedMap& b) { return a.map_ == b.map_ || a.get() == b.get(); }

 private:
  static const Map& none() noexcept {
    static const Map empty;
    return empty;
  }
  std::shared_ptr<Map> map_;
};

template <class Map, class Predicate>
std::size_t erase_if(SharedMap<Map>& map, Predicate predicate) {
  for (const auto& entry : map)
    if (predicate(entry)) return std::erase_if(map.edit(), predicate);
  return 0;
}

}  // namespace virga
