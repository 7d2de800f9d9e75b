#include "store/memory/store.h"

namespace virga {
namespace {
tl::unexpected<Error> is_closed() {
  return fail(ErrorKind::unavailable, "the store is closed");
}
}  // namespace

Task<Result<std::optional<Document>>> MemoryStore::get(std::string key) {
  if (closed_) co_return is_closed();
  auto it = documents_.find(key);
  if (it == documents_.end()) co_return std::nullopt;
  co_return it->second;
}

Task<Result<std::vector<Document>>> MemoryStore::list(std::string prefix) {
  if (closed_) co_return is_closed();
  std::vector<Document> out;
  for (auto it = documents_.lower_bound(prefix); it != documents_.end() && it->first.starts_with(prefix); ++it)
    out.push_back(it->second);
  co_return out;
}

Task<Result<Revision>> MemoryStore::commit(Transaction t) {
  if (closed_) co_return is_closed();
  VIRGA_CO_CHECK(check_transaction(t));
  for (const auto& c : t.compares) {
    auto it = documents_.find(c.key);
    const Revision found = it == documents_.end() ? 0 : it->second.revision;
    if (found != c.revision) co_return compare_failed(c.key, c.revision, found);
  }
  if (failing_ > 0) {
    --failing_;
    co_return fail(ErrorKind::unavailable, "the disk is full");
  }
  const Revision revision = ++revision_;
  std::vector<Change> changes;
  for (const auto& key : t.deletes)
    if (documents_.erase(key) > 0) changes.push_back({key, std::nullopt, revision});
  for (auto& p : t.puts) {
    changes.push_back({p.key, p.value, revision});
    documents_[p.key] = Document{p.key, std::move(p.value), revision};
  }
  watchers_.tell(changes);
  co_return revision;
}

std::unique_ptr<Store::Watch> MemoryStore::watch(std::string prefix, std::function<void(const Change&)> callback) {
  return watchers_.add(std::move(prefix), std::move(callback));
}

Task<> MemoryStore::close() {
  closed_ = true;
  co_return;
}

}  // namespace virga
