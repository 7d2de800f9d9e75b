// Storage pools. The API changes pools here; engine/instances and engine/images get the drivers of their volumes here. Event loop
// only. Reads come from memory.
//
//   /storage-pools/<name>     the pool
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/task.h"
#include "drivers/storage/driver.h"
#include "engine/caller.h"
#include "model/pool.h"

namespace virga {
class Store;
}

namespace virga::engine {

class Journal;
class Operations;
class Events;

struct CreatePool {
  std::string name;
  std::string driver = "dir";
  std::string description;
  Config config;  ///< "source" may be absent: a directory below the state directory
};

struct UpdatePool {
  std::optional<std::string> description;
  std::optional<Config> config;  ///< PUT may leave "source" out; PATCH: an empty value takes the key away
  bool replace = true;           ///< PUT
};

class Pools {
 public:
  using Ptr = std::shared_ptr<const Pool>;
  /// Makes the driver of a pool in the directory `source`; opening it comes later.
  using MakeDriver = std::function<std::unique_ptr<storage::Driver>(std::string source)>;
  struct Parts {
    Store& store;
    Journal& journal;
    Operations& operations;
    Events& events;
    std::map<std::string, MakeDriver> drivers;  ///< by name: "dir"
    std::string state_dir;  ///< the daemon's; pools live in STATE_DIR/storage-pools/<name> unless told otherwise
  };
  Pools(Parts parts, Executor executor);
  ~Pools();
  Pools(const Pools&) = delete;
  Pools& operator=(const Pools&) = delete;

  // --- reads ---
  Ptr find(const std::string& name) const;  ///< null where there is none
  std::vector<Ptr> list() const;            ///< in order of name
  /// Names and versions of the drivers there are.
  std::vector<storage::DriverInfo> drivers() const;
  /// Space of the pool. Errors: not_found, unavailable.
  Task<Result<storage::Usage>> resources(std::string name);
  /// URLs of what uses it.
  std::vector<std::string> used_by(const std::string& name) const;
  /// The first is called whenever a pool was tried: the reason why it is unavailable, empty where it works. With the second, who
  /// may use pools tells it: a function from a pool's name to URLs. Called for every listing: must be quick.
  void on_status(std::function<void(const std::string& pool, const std::string& error)> call);
  void add_users(std::function<std::vector<std::string>(const std::string& pool)> users);

  // --- drivers ---
  /// The driver of an open pool; it stays valid as long as this service, also when the pool is removed.
  /// Errors: not_found, unavailable (it could not be opened: says why), busy (it is being removed).
  Result<storage::Driver*> driver(const std::string& name) const;
  /// Those of all open pools.
  std::vector<storage::Driver*> open_drivers() const;

  // --- changes ---
  /// Errors: invalid, unsupported (driver: names those there are), exists (the name; other things in the directory), unavailable.
  Task<Result<Ptr>> create(Caller caller, CreatePool request);
  /// `expected`: the revision the caller saw (If-Match). Errors: not_found, conflict, invalid.
  Task<Result<>> update(Caller caller, std::string name, UpdatePool request, std::optional<std::int64_t> expected = {});
  /// Unpacked images in it go along. Errors: not_found, busy (it has users or volumes).
  Task<Result<>> remove(Caller caller, std::string name);

  // --- life ---
  /// Reads the documents and registers how journal rows are taken up again. Order: load(), start(), journal.recover().
  Task<Result<>> load();
  /// Opens all pools. One that fails is shown as unavailable, is tried again now and then, and stops nothing else.
  Task<> start();
  /// Volumes stay as they are, attached or not.
  Task<> shut_down();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace virga::engine
