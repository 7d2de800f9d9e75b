// Decoded documents of one prefix, kept current by a watch: what services read without touching the store. Snapshots are immutable;
// a change replaces them, before the commit that made it returns to its writer. Event loop only.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/json.h"
#include "base/log.h"
#include "base/task.h"
#include "store/store.h"

namespace virga::engine {

/// T has a member `revision`.
template <class T>
class Cache {
 public:
  using Ptr = std::shared_ptr<const T>;
  using Decode = std::function<Result<T>(const json::object&)>;
  /// Called after the change of one document: the snapshot before and after it, null where there is none.
  using OnChange = std::function<void(const std::string& key, const Ptr& before, const Ptr& after)>;

  Cache(Store& store, std::string prefix, Decode decode) : store_(store), prefix_(std::move(prefix)), decode_(std::move(decode)) {}

  void on_change(OnChange callback) { on_change_ = std::move(callback); }

  /// Reads all documents. Errors: of the store; a document that cannot be decoded, named.
  Task<Result<>> load() {
    watch_ = store_.watch(prefix_, [this](const Change& change) { changed(change); });
    auto documents = co_await store_.list(prefix_);
    if (!documents) co_return fail(std::move(documents).error());
    for (auto& d : *documents) {
      auto snapshot = decode(d.value, d.revision);
      if (!snapshot) co_return fail(std::move(snapshot).error().wrap("document '" + d.key + "'"));
      map_.try_emplace(std::move(d.key), std::move(*snapshot));
    }
    co_return Result<>();
  }

  Ptr find(std::string_view key) const {
    auto it = map_.find(key);
    return it == map_.end() ? nullptr : it->second;
  }
  /// All whose key begins with `prefix`, in key order.
  std::vector<Ptr> list(std::string_view prefix) const {
    std::vector<Ptr> out;
    for (auto it = map_.lower_bound(prefix); it != map_.end() && it->first.starts_with(prefix); ++it) out.push_back(it->second);
    return out;
  }
  std::vector<Ptr> list() const { return list(prefix_); }
  /// All with their keys, in key order.
  std::vector<std::pair<std::string, Ptr>> entries() const { return {map_.begin(), map_.end()}; }
  std::size_t size() const noexcept { return map_.size(); }

 private:
  Result<Ptr> decode(std::string_view text, Revision revision) const {
    VIRGA_TRY(const json::object object, parse_json_object(text));
    VIRGA_TRY(T value, decode_(object));
    value.revision = revision;
    return std::make_shared<const T>(std::move(value));
  }

  void changed(const Change& change) {
    Ptr before = find(change.key);
    Ptr after;
    if (change.value) {
      auto snapshot = decode(*change.value, change.revision);
      if (!snapshot) {
        // Only we write here: this is a bug, and the old snapshot is better than none.
        log::error("document '{}': {}", change.key, snapshot.error().text());
        return;
      }
      after = std::move(*snapshot);
      map_[change.key] = after;
    } else {
      map_.erase(change.key);
    }
    if (on_change_) on_change_(change.key, before, after);
  }

  Store& store_;
  std::string prefix_;
  Decode decode_;
  OnChange on_change_;
  std::map<std::string, Ptr, std::less<>> map_;
  std::unique_ptr<Store::Watch> watch_;
};

}  // namespace virga::engine
