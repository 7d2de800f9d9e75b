// Warnings: raised by parts of the daemon, shown, acknowledged and deleted by people. Raising returns at once; what was raised is
// written in the background and survives a restart. Reads are from memory. Event loop only.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/task.h"
#include "engine/cache.h"
#include "engine/caller.h"
#include "engine/events/events.h"
#include "model/warning.h"
#include "store/store.h"

namespace virga::engine {

using WarningPtr = std::shared_ptr<const Warning>;

/// What a warning is about; both may be empty.
struct WarningSubject {
  std::string project;
  std::string entity_url;
};

class Warnings {
 public:
  Warnings(Executor executor, Store& store, Events& events, const Clock& clock = Events::system_clock());
  ~Warnings();

  /// Loads all and forgets those that were resolved long ago.
  Task<Result<>> start();
  Task<> stop();

  /// A second time for the same type and subject counts up; what was resolved is new again.
  void raise(WarningType type, WarningSubject subject, std::string message);
  /// The trouble is over. One that was never raised is ignored.
  void resolve(WarningType type, WarningSubject subject);
  /// raise() where there is a message, resolve() where it is empty.
  void report(WarningType type, WarningSubject subject, std::string message);

  /// Oldest first.
  std::vector<WarningPtr> list() const { return cache_.list(); }
  /// Errors: not_found.
  Result<WarningPtr> get(std::string_view uuid) const;
  /// How many are new.
  std::size_t unseen() const;
  /// Errors: not_found, unavailable.
  Task<Result<>> set_status(std::string uuid, WarningStatus status, Caller caller);
  Task<Result<>> remove(std::string uuid, Caller caller);

 private:
  struct Change;
  static std::string key(std::string_view uuid);
  WarningPtr find(WarningType type, const WarningSubject& subject) const;
  void enqueue(Change change);
  Task<> apply_queue();
  Transaction write(const Change& change) const;
  void forget_subject(const std::string& url);
  Task<Result<>> commit(Transaction transaction);

  Store& store_;
  Events& events_;
  const Clock& clock_;
  Cache<Warning> cache_;
  TaskGroup tasks_;
  AsyncMutex writing_;
  std::vector<Change> queue_;
  bool writer_runs_ = false;
  std::unique_ptr<Events::Listener> listener_;
};

}  // namespace virga::engine
