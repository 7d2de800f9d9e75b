// The wiring: which concrete store, drivers and services virgad consists of, and the order in which they begin and end. The only
// place that names concrete classes.
#pragma once

#include <memory>

#include "apps/virgad/options.h"
#include "base/task.h"

namespace virga::virgad {

class Daemon {
 public:
  Daemon(Options options, Executor executor);
  ~Daemon();
  Daemon(const Daemon&) = delete;
  Daemon& operator=(const Daemon&) = delete;

  /// Returns when the API is served: documents are read, half-done work is finished or undone, guests are adopted.
  Task<Result<>> start();
  /// Stops serving; guests run on. May be called after a start that failed.
  Task<> stop();

 private:
  struct Parts;
  std::unique_ptr<Parts> parts_;
};

}  // namespace virga::virgad
