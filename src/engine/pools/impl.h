// What the pools service keeps inside; private to this folder.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "engine/journal/journal.h"
#include "engine/pools/service.h"

namespace virga::engine {

struct Pools::Impl {
  struct Entry {
    Ptr pool;
    storage::Driver* driver = nullptr;  ///< null where no driver of that name is built in
    bool removing = false;
  };

  Impl(Parts p, Executor executor) : parts(std::move(p)), changes(executor), retries(executor) {}

  static std::string key(const std::string& name) { return "/storage-pools/" + name; }
  std::string default_source(const std::string& name) const { return parts.state_dir + "/storage-pools/" + name; }

  /// Null where there is no such driver. It is kept for as long as the service lives.
  storage::Driver* make_driver(const std::string& driver, const std::string& source);
  /// Takes over what the store holds; keeps the status.
  void put(Pool pool);
  void set_status(const std::string& name, PoolStatus status, std::string error);
  /// Opens a pool's driver and notes how that went.
  Task<> open(std::string name);
  Task<> retry_failed();
  /// Errors: exists, where the directory is, holds or lies in another pool's.
  Task<Result<std::string>> settle_source(const Pool& pool) const;

  Procedure create_procedure(const Pool& pool, storage::Driver* driver);
  Procedure remove_procedure(const std::string& name, storage::Driver* driver);
  void register_kinds();

  Parts parts;
  std::map<std::string, Entry> pools;
  std::vector<std::unique_ptr<storage::Driver>> made;
  std::vector<std::function<std::vector<std::string>(const std::string&)>> users;
  std::function<void(const std::string&, const std::string&)> on_status;
  AsyncMutex changes;  ///< one create or remove at a time: their directories must not overlap
  TaskGroup retries;
};

}  // namespace virga::engine
