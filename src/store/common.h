// What all stores share: the checks of keys and values, the end of a prefix's range, and the watches.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "store/store.h"

namespace virga {

inline constexpr std::size_t max_key_bytes = 1024;
inline constexpr std::size_t max_value_bytes = 16u << 20;
inline constexpr std::size_t max_transaction_parts = 10'000;

/// Keys begin with '/', have no control characters and are not too long; nor are values. Errors: invalid.
Result<> check_transaction(const Transaction& transaction);
/// The first key behind all that begin with `prefix`; empty: there is none.
std::string end_of_prefix(std::string_view prefix);
tl::unexpected<Error> compare_failed(std::string_view key, Revision expected, Revision found);

/// Those who watch. Callbacks may add and end watches.
class Watchers {
 public:
  std::unique_ptr<Store::Watch> add(std::string prefix, std::function<void(const Change&)> callback);
  bool any() const noexcept { return !list_->empty(); }
  void tell(const std::vector<Change>& changes);

 private:
  struct Entry {
    std::string prefix;
    std::function<void(const Change&)> callback;
    bool alive = true;
  };
  using List = std::vector<std::shared_ptr<Entry>>;
  class Handle;
  std::shared_ptr<List> list_ = std::make_shared<List>();
};

}  // namespace virga
