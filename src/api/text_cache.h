// The rendered JSON of immutable objects. A change makes a new object, so that its text is made once and a list of ten thousand is
// a concatenation.
#pragma once

#include <algorithm>
#include <cstddef>
#include <memory>
#include <string>
#include <unordered_map>

namespace virga::api {

template <class T>
class TextCache {
 public:
  using Ptr = std::shared_ptr<const T>;
  /// What `render(object)` gave for it; the text stays valid until the next call.
  template <class Render>
  const std::string& text_of(const Ptr& object, Render render) {
    if (auto it = entries_.find(object.get()); it != entries_.end()) return it->second.text;
    if (entries_.size() >= next_sweep_) drop_old();
    std::string text = render(*object);
    auto& entry = entries_[object.get()];
    entry.object = object;
    entry.text = std::move(text);
    return entry.text;
  }
  void clear() { entries_ = {}; }
  std::size_t size() const noexcept { return entries_.size(); }

 private:
  struct Entry {
    Ptr object;  ///< kept, so that its address is not another's meanwhile
    std::string text;
  };
  /// What only this cache still holds was replaced or deleted.
  void drop_old() {
    std::erase_if(entries_, [](const auto& item) { return item.second.object.use_count() == 1; });
    next_sweep_ = std::max<std::size_t>(1024, entries_.size() * 2);
  }
  std::unordered_map<const T*, Entry> entries_;
  std::size_t next_sweep_ = 1024;
};

}  // namespace virga::api
