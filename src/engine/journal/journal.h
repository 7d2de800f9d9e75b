// Crash safety for everything with side effects. A procedure is a list of named idempotent steps, each with an undo. The journal
// writes the intent, runs the steps, and commits the outcome together with the documents it changes, so that kill -9 at any moment
// leaves a row from which recover() finishes or undoes the work. A fault point stands before and after every step:
//   <kind>.intent   <kind>.<n>.<step>.before   <kind>.<n>.<step>.after   <kind>.outcome.before   <kind>.outcome.after
// and the same names with "undo." in front on the way back, and "recover." in front of all during recovery.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/json.h"
#include "base/task.h"
#include "store/store.h"

namespace virga::engine {

struct Step {
  std::string name;                      ///< "plug-nics"
  std::function<Task<Result<>>()> run;   ///< idempotent: may find its work done, wholly or in part
  std::function<Task<Result<>>()> undo;  ///< idempotent: may find nothing to take back; empty: nothing to undo
};

enum class OnRecovery { undo, finish };

struct Procedure {
  std::string kind;        ///< "instance-create"; recovery looks up the builder of this name
  std::string id;          ///< the operation's id; names the row
  json::object arguments;  ///< enough to build the same procedure again after a restart
  OnRecovery on_recovery = OnRecovery::undo;
  Transaction intent;  ///< committed with the row: reservations of names, ids, addresses
  std::vector<Step> steps;
  std::function<Result<Transaction>()> outcome;  ///< committed with the row's deletion when all steps are done
  std::function<Result<Transaction>()> undone;   ///< committed with the row's deletion when all undos are done
  std::function<void()> recovered;  ///< called by recover() after it has finished this procedure: memory follows the store
};

class Journal {
 public:
  explicit Journal(Store& store);
  ~Journal();

  /// Runs a procedure to its outcome. On failure or cancellation the steps are undone, last first, before it returns the error. An
  /// undo that fails is logged and leaves the row for the next start. Errors: conflict (the intent), whatever a step returns.
  Task<Result<>> execute(Procedure procedure);

  /// How a row is turned into its procedure again. Register all kinds before recover().
  using Builder = std::function<Task<Result<Procedure>>(std::string id, json::object arguments)>;
  void register_kind(std::string kind, Builder builder);
  /// Called by recover() for each row that it has settled.
  void on_recovered(std::function<void(const std::string& id, const std::string& kind, bool finished)> call);
  /// Finishes or undoes every row, oldest first. A row that cannot be recovered is logged, kept and reported.
  Task<std::vector<Error>> recover();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace virga::engine
