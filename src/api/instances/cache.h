// The rendered JSON of instances. An instance is immutable: a change makes a new object, so its text is made once and a list of ten
// thousand is a concatenation.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <unordered_map>

#include "model/instance.h"

namespace virga::api {

class InstanceCache {
 public:
  using Ptr = std::shared_ptr<const Instance>;
  /// The text stays valid until the next call.
  const std::string& rendered(const Ptr& instance);
  /// Of the instance, made once like its text.
  const std::string& etag(const Ptr& instance);
  /// A whole list that is on its way to another client just now and would be the same for this one; null where there is none.
  std::shared_ptr<const std::string> shared_list(const std::string& query, std::uint64_t generation) const;
  void share_list(std::string query, std::uint64_t generation, const std::shared_ptr<const std::string>& text);
  void clear() { entries_ = {}; }
  std::size_t size() const noexcept { return entries_.size(); }

 private:
  struct Entry {
    Ptr instance;  ///< kept, so that its address is not another's meanwhile
    std::string text;
    std::string etag;
  };
  /// Many clients that ask for the same list at once get one text; it goes with the last of them.
  struct List {
    std::uint64_t generation = 0;
    std::weak_ptr<const std::string> text;
  };
  Entry& entry(const Ptr& instance);
  void drop_old();
  std::unordered_map<const Instance*, Entry> entries_;
  std::size_t next_sweep_ = 1024;
  std::unordered_map<std::string, List> lists_;
};

}  // namespace virga::api
