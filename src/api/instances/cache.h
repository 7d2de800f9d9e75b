// The rendered JSON of instances. An instance is immutable: a change makes a new object, so its text is made once and a list of ten
// thousand is a concatenation.
#pragma once

#include <cstddef>
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
  std::size_t size() const noexcept { return entries_.size(); }

 private:
  struct Entry {
    Ptr instance;  ///< kept, so that its address is not another's meanwhile
    std::string text;
  };
  void drop_old();
  std::unordered_map<const Instance*, Entry> entries_;
  std::size_t next_sweep_ = 1024;
};

}  // namespace virga::api
