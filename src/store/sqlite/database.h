// The one SQLite connection: blocking, used by one thread. Write-ahead log, synchronous=FULL, no shared memory and no second
// connection (Debian 12's SQLite has a race between two of them). Many transactions share one commit and so one fsync.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "store/sqlite/statement.h"
#include "store/store.h"

namespace virga::sqlite {

struct Options {
  int lock_timeout_ms = 3000;  ///< how long to wait for a daemon that is just ending
  std::string vfs;             ///< tests put one in that fails
  /// Called when a disk fails so that nobody can know whether a commit is durable. Going on would be guessing: unless a test says
  /// otherwise the process ends here, and the next start reads what the disk really holds.
  std::function<void(const std::string& message)> in_doubt;
};

struct Applied {
  Revision revision = 0;
  std::vector<Change> changes;
};

class Database {
 public:
  /// Opens or makes the file (mode 0600). Errors: busy (another process has it), unavailable (damaged, or made by a newer virga).
  static Result<std::unique_ptr<Database>> open(std::string path, Options options);
  ~Database();
  Database(const Database&) = delete;
  Database& operator=(const Database&) = delete;

  Result<std::optional<Document>> get(const std::string& key);
  Result<std::vector<Document>> list(const std::string& prefix);
  /// One result for each transaction, in order; each is all or nothing, later ones see the earlier. Durable when it returns.
  std::vector<Result<Applied>> apply(const std::vector<const Transaction*>& transactions);

 private:
  Database(std::string path, Options options) : path_(std::move(path)), options_(std::move(options)) {}
  Result<> connect();
  Result<> prepare();
  Result<> set_up_schema();
  Result<> execute(const char* sql);
  Result<std::string> pragma(const std::string& name);
  Result<Revision> stored_revision();
  Result<> ensure_usable();
  Result<> reconnect();
  Error error(int code, const std::string& doing);
  /// The whole batch in one commit. An outer error means that nothing was written.
  Result<std::vector<Result<Applied>>> apply_together(const std::vector<const Transaction*>& transactions);
  /// After a commit failed half way. True: it is durable after all. False: it is not there.
  bool settle(Revision before, const Error& cause);
  Result<Applied> apply_one(const Transaction& transaction, Revision revision);
  Result<Revision> revision_of(const std::string& key);
  void roll_back();

  std::string path_;
  Options options_;
  Connection connection_;
  Statement get_, list_, list_to_end_, put_, erase_, revision_of_, set_revision_;
  Revision revision_ = 0;
  bool broken_ = false;  ///< an I/O error was seen: the connection's view of the file is not to be trusted
};

}  // namespace virga::sqlite
