// An ordered key-value space of JSON documents with revisions, transactions and watches. One contract suite holds for every store.
// Keys read like paths: /instances/default/web. Event loop only.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/task.h"

namespace virga {

using Revision = std::int64_t;  ///< grows by one with each commit; 0 means "absent"

struct Document {
  std::string key;
  std::string value;      ///< JSON text
  Revision revision = 0;  ///< of the commit that wrote it
};

struct Transaction {
  struct Compare {
    std::string key;
    Revision revision;
  };  ///< the document's revision must be this (0: it must be absent)
  struct Put {
    std::string key;
    std::string value;
  };
  std::vector<Compare> compares;
  std::vector<Put> puts;
  std::vector<std::string> deletes;  ///< absent is success

  Transaction& expect(std::string key, Revision revision) {
    compares.push_back({std::move(key), revision});
    return *this;
  }
  Transaction& put(std::string key, std::string value) {
    puts.push_back({std::move(key), std::move(value)});
    return *this;
  }
  Transaction& erase(std::string key) {
    deletes.push_back(std::move(key));
    return *this;
  }
};

struct Change {
  std::string key;
  std::optional<std::string> value;  ///< absent: deleted
  Revision revision = 0;
};

class Store {
 public:
  /// Ends the watch when destroyed.
  class Watch {
   public:
    virtual ~Watch() = default;
  };

  virtual ~Store() = default;
  virtual Task<Result<std::optional<Document>>> get(std::string key) = 0;
  /// All documents whose key begins with `prefix`, in key order.
  virtual Task<Result<std::vector<Document>>> list(std::string prefix) = 0;
  /// All or nothing, durable when it returns; the revision of the commit. Cannot be cancelled once begun.
  /// Errors: conflict (a compare failed: names the key), unavailable (disk full, I/O: nothing was written).
  virtual Task<Result<Revision>> commit(Transaction transaction) = 0;
  /// Calls back on the event loop for every change below `prefix`, in order, after the commit that made it.
  virtual std::unique_ptr<Watch> watch(std::string prefix, std::function<void(const Change&)> callback) = 0;
  virtual Task<> close() = 0;
};

}  // namespace virga
