#include "store/common.h"

#include <algorithm>

namespace virga {
namespace {

Result<> check_key(std::string_view key) {
  if (key.empty() || key.front() != '/' || key.size() > max_key_bytes)
    return fail(ErrorKind::invalid, "'" + std::string(key.substr(0, 64)) + "' is not a key of the store");
  const bool plain = std::all_of(key.begin(), key.end(), [](char c) { return static_cast<unsigned char>(c) >= 0x20 && c != 0x7f; });
  if (!plain) return fail(ErrorKind::invalid, "a key of the store holds a control character");
  return {};
}

}  // namespace

Result<> check_transaction(const Transaction& t) {
  if (t.compares.size() + t.puts.size() + t.deletes.size() > max_transaction_parts)
    return fail(ErrorKind::invalid, "a transaction has too many parts");
  for (const auto& c : t.compares) VIRGA_CHECK(check_key(c.key));
  for (const auto& d : t.deletes) VIRGA_CHECK(check_key(d));
  for (const auto& p : t.puts) {
    VIRGA_CHECK(check_key(p.key));
    if (p.value.size() > max_value_bytes) return fail(ErrorKind::invalid, "document '" + p.key + "' is larger than 16 MiB");
  }
  return {};
}

std::string end_of_prefix(std::string_view prefix) {
  std::string end(prefix);
  while (!end.empty() && static_cast<unsigned char>(end.back()) == 0xff) end.pop_back();
  if (!end.empty()) end.back() = static_cast<char>(static_cast<unsigned char>(end.back()) + 1);
  return end;
}

tl::unexpected<Error> compare_failed(std::string_view key, Revision expected, Revision found) {
  std::string message = "'" + std::string(key) + "' ";
  if (expected == 0) {
    message += "is there already";
  } else if (found == 0) {
    message += "was deleted meanwhile";
  } else {
    message += "has changed meanwhile";
  }
  return fail(ErrorKind::conflict, std::move(message));
}

class Watchers::Handle final : public Store::Watch {
 public:
  Handle(std::weak_ptr<List> list, std::shared_ptr<Entry> entry) : list_(std::move(list)), entry_(std::move(entry)) {}
  ~Handle() override {
    entry_->alive = false;
    if (auto list = list_.lock()) std::erase(*list, entry_);
  }
  Handle(const Handle&) = delete;
  Handle& operator=(const Handle&) = delete;

 private:
  std::weak_ptr<List> list_;
  std::shared_ptr<Entry> entry_;
};

std::unique_ptr<Store::Watch> Watchers::add(std::string prefix, std::function<void(const Change&)> callback) {
  auto entry = std::make_shared<Entry>();
  entry->prefix = std::move(prefix);
  entry->callback = std::move(callback);
  list_->push_back(entry);
  return std::make_unique<Handle>(list_, entry);
}

void Watchers::tell(const std::vector<Change>& changes) {
  if (!any()) return;
  const List now = *list_;
  for (const auto& change : changes)
    for (const auto& entry : now)
      if (entry->alive && std::string_view(change.key).starts_with(entry->prefix)) entry->callback(change);
}

}  // namespace virga
