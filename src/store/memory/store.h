// A store in memory: for tests, and what the contract means in its simplest form. Nothing survives it.
#pragma once

#include <map>

#include "store/common.h"
#include "store/store.h"

namespace virga {

class MemoryStore final : public Store {
 public:
  Task<Result<std::optional<Document>>> get(std::string key) override;
  Task<Result<std::vector<Document>>> list(std::string prefix) override;
  Task<Result<Revision>> commit(Transaction transaction) override;
  std::unique_ptr<Watch> watch(std::string prefix, std::function<void(const Change&)> callback) override;
  Task<> close() override;

  /// For tests: the next `count` commits fail as if the disk were full.
  void fail_commits(int count) { failing_ = count; }

 private:
  std::map<std::string, Document, std::less<>> documents_;
  Revision revision_ = 0;
  Watchers watchers_;
  int failing_ = 0;
  bool closed_ = false;
};

}  // namespace virga
