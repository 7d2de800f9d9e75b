// The durable log of operations: one document each, written in the background and in one commit for all that wait. Bounded by
// whoever calls forget(). Event loop only.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "base/json.h"
#include "base/task.h"
#include "store/store.h"

namespace virga::engine {

class OperationLog {
 public:
  OperationLog(Executor executor, Store& store) : store_(store), tasks_(std::move(executor)) {}

  /// All documents, in no particular order; one that cannot be read is left out and erased.
  Task<Result<std::vector<json::object>>> load();
  /// Replaces what was there under this id.
  void record(const std::string& id, const json::object& document);
  void forget(const std::string& id);
  /// Writes what still waits.
  Task<> stop();

 private:
  void change(const std::string& id, std::optional<std::string> text);
  Task<> write();

  Store& store_;
  TaskGroup tasks_;
  std::map<std::string, std::optional<std::string>> waiting_;  ///< absent: to be erased
  bool writing_ = false;
};

}  // namespace virga::engine
