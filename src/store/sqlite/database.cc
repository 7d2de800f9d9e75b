#include "store/sqlite/database.h"

#include <sqlite3.h>

#include <chrono>
#include <cstdlib>
#include <thread>

#include "base/log.h"
#include "store/common.h"

namespace virga::sqlite {
namespace {

constexpr int application_id = 0x76697267;  // "virg"
constexpr int schema_version = 1;

constexpr const char* schema_1 = R"sql(
CREATE TABLE documents(key TEXT NOT NULL UNIQUE, value TEXT NOT NULL, revision INTEGER NOT NULL);
CREATE TABLE meta(name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
INSERT INTO meta(name, value) VALUES('revision', 0);
PRAGMA application_id = 1986622055;
PRAGMA user_version = 1;
)sql";
static_assert(application_id == 1986622055);

ErrorKind kind_of(int code) {
  switch (code & 0xff) {
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
      return ErrorKind::busy;
    case SQLITE_PERM:
    case SQLITE_AUTH:
      return ErrorKind::denied;
    case SQLITE_FULL:
    case SQLITE_IOERR:
    case SQLITE_CANTOPEN:
    case SQLITE_READONLY:
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
    case SQLITE_NOMEM:
      return ErrorKind::unavailable;
    default:
      return ErrorKind::internal;
  }
}

}  // namespace

Database::~Database() = default;

Error Database::error(int code, const std::string& doing) {
  const int primary = code & 0xff;
  // After these the connection's own picture of the file may be wrong; it is opened anew before it is used again.
  if (primary == SQLITE_IOERR || primary == SQLITE_CORRUPT || primary == SQLITE_NOTADB || primary == SQLITE_NOMEM) broken_ = true;
  std::string words = sqlite3_errstr(code);
  if (connection_ && sqlite3_extended_errcode(connection_.get()) == code) words = sqlite3_errmsg(connection_.get());
  Error e(kind_of(code), doing + ": " + words);
  if (primary == SQLITE_FULL) return std::move(e).with_hint("make room on the file system of the state directory");
  if (primary == SQLITE_BUSY) return std::move(e).with_hint("another virgad uses this state directory");
  if (primary == SQLITE_CORRUPT || primary == SQLITE_NOTADB)
    return std::move(e).with_hint("'" + path_ + "' is damaged; put a copy of it in place. Guests go on running");
  return e;
}

Result<> Database::execute(const char* sql) {
  if (const int code = sqlite3_exec(connection_.get(), sql, nullptr, nullptr, nullptr); code != SQLITE_OK)
    return fail(error(code, "state store"));
  return {};
}

Result<std::string> Database::pragma(const std::string& name) {
  Statement statement;
  if (const int code = statement.prepare(connection_.get(), "PRAGMA " + name); code != SQLITE_OK)
    return fail(error(code, "read " + name));
  Statement::Run run(statement);
  const int code = run.step();
  if (code == SQLITE_DONE) return std::string();
  if (code != SQLITE_ROW) return fail(error(code, "read " + name));
  return run.text(0);
}

Result<std::unique_ptr<Database>> Database::open(std::string path, Options options) {
  auto db = std::unique_ptr<Database>(new Database(std::move(path), std::move(options)));
  if (auto r = db->connect(); !r) return fail(std::move(r).error().wrap("open state store '" + db->path_ + "'"));
  return db;
}

Result<> Database::connect() {
  sqlite3* raw = nullptr;
  const int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_NOFOLLOW | SQLITE_OPEN_EXRESCODE;
  const int code = sqlite3_open_v2(path_.c_str(), &raw, flags, options_.vfs.empty() ? nullptr : options_.vfs.c_str());
  connection_.reset(raw);
  if (code != SQLITE_OK) return fail(error(code, "open"));
  sqlite3_busy_timeout(raw, options_.lock_timeout_ms);
  sqlite3_db_config(raw, SQLITE_DBCONFIG_DEFENSIVE, 1, nullptr);
  sqlite3_db_config(raw, SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0, nullptr);
  // EXCLUSIVE before the first access: no shared memory file, and no other process can get in.
  VIRGA_CHECK(
      execute("PRAGMA locking_mode = EXCLUSIVE; PRAGMA mmap_size = 0; PRAGMA cache_size = -1024; PRAGMA temp_store = MEMORY"));
  VIRGA_TRY(const std::string mode, pragma("journal_mode = WAL"));
  if (mode != "wal")
    return fail(ErrorKind::unavailable, "the write-ahead log is not to be had here (journal mode is '" + mode + "')");
  VIRGA_CHECK(execute("PRAGMA synchronous = FULL"));
  VIRGA_TRY(const std::string synchronous, pragma("synchronous"));
  if (synchronous != "2") return fail(ErrorKind::internal, "synchronous is '" + synchronous + "' instead of FULL");
  VIRGA_TRY(const std::string check, pragma("quick_check(1)"));
  if (check != "ok") return fail(error(SQLITE_CORRUPT, "check: " + check));
  VIRGA_CHECK(set_up_schema());
  VIRGA_CHECK(prepare());
  VIRGA_TRY(revision_, stored_revision());
  broken_ = false;
  return {};
}

Result<> Database::set_up_schema() {
  VIRGA_TRY(const std::string id, pragma("application_id"));
  VIRGA_TRY(const std::string version, pragma("user_version"));
  VIRGA_TRY(const std::string schema, pragma("schema_version"));
  if (id == "0" && version == "0" && schema == "0") {
    // Taking the write lock first also makes sure that nobody else is here.
    VIRGA_CHECK(execute("BEGIN IMMEDIATE"));
    if (auto r = execute(schema_1); !r) {
      roll_back();
      return r;
    }
    return execute("COMMIT");
  }
  if (id != std::to_string(application_id)) return fail(ErrorKind::unavailable, "this file is not a state store of virga");
  if (version != std::to_string(schema_version)) {
    Error e(ErrorKind::unavailable,
            "its format is version " + version + ", this virgad knows version " + std::to_string(schema_version));
    return fail(std::move(e).with_hint("start the version of virgad that wrote it, or a newer one"));
  }
  return {};
}

Result<> Database::prepare() {
  struct {
    Statement& statement;
    std::string_view sql;
  } const all[] = {
      {get_, "SELECT value, revision FROM documents WHERE key = ?1"},
      {list_, "SELECT key, value, revision FROM documents WHERE key >= ?1 AND key < ?2 ORDER BY key"},
      {list_to_end_, "SELECT key, value, revision FROM documents WHERE key >= ?1 ORDER BY key"},
      {put_,
       "INSERT INTO documents(key, value, revision) VALUES(?1, ?2, ?3) "
       "ON CONFLICT(key) DO UPDATE SET value = excluded.value, revision = excluded.revision"},
      {erase_, "DELETE FROM documents WHERE key = ?1"},
      {revision_of_, "SELECT revision FROM documents WHERE key = ?1"},
      {set_revision_, "UPDATE meta SET value = ?1 WHERE name = 'revision'"},
  };
  for (const auto& entry : all)
    if (const int code = entry.statement.prepare(connection_.get(), entry.sql); code != SQLITE_OK)
      return fail(error(code, "prepare"));
  return {};
}

Result<Revision> Database::stored_revision() {
  Statement statement;
  if (const int code = statement.prepare(connection_.get(), "SELECT value FROM meta WHERE name = 'revision'"); code != SQLITE_OK)
    return fail(error(code, "read the revision"));
  Statement::Run run(statement);
  if (const int code = run.step(); code != SQLITE_ROW)
    return fail(error(code == SQLITE_DONE ? SQLITE_CORRUPT : code, "read the revision"));
  return run.integer(0);
}

Result<> Database::reconnect() {
  for (Statement* s : {&get_, &list_, &list_to_end_, &put_, &erase_, &revision_of_, &set_revision_}) s->finalize();
  connection_.reset();
  return connect();
}

Result<> Database::ensure_usable() {
  if (!broken_) return {};
  log::warn("state store: opening '{}' again after an error", path_);
  auto r = reconnect();
  if (!r) broken_ = true;
  return r;
}

Result<std::optional<Document>> Database::get(const std::string& key) {
  VIRGA_CHECK(ensure_usable());
  Statement::Run run(get_);
  run.bind(1, key);
  const int code = run.step();
  if (code == SQLITE_DONE) return std::nullopt;
  if (code != SQLITE_ROW) return fail(error(code, "read '" + key + "'"));
  return Document{key, run.text(0), run.integer(1)};
}

Result<std::vector<Document>> Database::list(const std::string& prefix) {
  VIRGA_CHECK(ensure_usable());
  const std::string end = end_of_prefix(prefix);
  Statement::Run run(end.empty() ? list_to_end_ : list_);
  run.bind(1, prefix);
  if (!end.empty()) run.bind(2, end);
  std::vector<Document> out;
  while (true) {
    const int code = run.step();
    if (code == SQLITE_DONE) return out;
    if (code != SQLITE_ROW) return fail(error(code, "list '" + prefix + "'"));
    out.push_back({run.text(0), run.text(1), run.integer(2)});
  }
}

void Database::roll_back() {
  // SQLite may have rolled back by itself.
  if (sqlite3_get_autocommit(connection_.get()) != 0) return;
  if (sqlite3_exec(connection_.get(), "ROLLBACK", nullptr, nullptr, nullptr) != SQLITE_OK) broken_ = true;
}

Result<Revision> Database::revision_of(const std::string& key) {
  Statement::Run run(revision_of_);
  run.bind(1, key);
  const int code = run.step();
  if (code == SQLITE_DONE) return 0;
  if (code != SQLITE_ROW) return fail(error(code, "read '" + key + "'"));
  return run.integer(0);
}

Result<Applied> Database::apply_one(const Transaction& t, Revision revision) {
  for (const auto& c : t.compares) {
    VIRGA_TRY(const Revision found, revision_of(c.key));
    if (found != c.revision) return compare_failed(c.key, c.revision, found);
  }
  Applied applied{.revision = revision, .changes = {}};
  for (const auto& key : t.deletes) {
    Statement::Run run(erase_);
    if (const int code = run.bind(1, key).step(); code != SQLITE_DONE) return fail(error(code, "delete '" + key + "'"));
    if (sqlite3_changes(connection_.get()) > 0) applied.changes.push_back({key, std::nullopt, revision});
  }
  for (const auto& p : t.puts) {
    Statement::Run run(put_);
    if (const int code = run.bind(1, p.key).bind(2, p.value).bind(3, revision).step(); code != SQLITE_DONE)
      return fail(error(code, "write '" + p.key + "'"));
    applied.changes.push_back({p.key, p.value, revision});
  }
  return applied;
}

Result<std::vector<Result<Applied>>> Database::apply_together(const std::vector<const Transaction*>& transactions) {
  VIRGA_CHECK(ensure_usable());
  VIRGA_CHECK(execute("BEGIN IMMEDIATE"));
  std::vector<Result<Applied>> results;
  Revision next = revision_;
  for (const auto* t : transactions) {
    auto applied = apply_one(*t, next + 1);
    // A compare that failed wrote nothing: the others of the batch go on.
    if (!applied && applied.error().kind() != ErrorKind::conflict) {
      roll_back();
      return fail(std::move(applied).error());
    }
    if (applied) ++next;
    results.push_back(std::move(applied));
  }
  if (next == revision_) {
    roll_back();
    return results;
  }
  int code = SQLITE_OK;
  {
    Statement::Run run(set_revision_);
    code = run.bind(1, next).step();
  }
  if (code != SQLITE_DONE) {
    Error e = error(code, "write the revision");
    roll_back();
    return fail(std::move(e));
  }
  code = sqlite3_exec(connection_.get(), "COMMIT", nullptr, nullptr, nullptr);
  if (code != SQLITE_OK) {
    Error e = error(code, "commit");
    roll_back();
    if (!broken_) return fail(std::move(e));
    if (!settle(revision_, e)) return fail(std::move(e));
  }
  revision_ = next;
  return results;
}

bool Database::settle(Revision before, const Error& cause) {
  // The log may hold the commit although the fsync failed. What a new connection reads decides; if it is there, a checkpoint brings
  // it to the disk through the main file, as the pages of a failed fsync are never to be trusted.
  for (int attempt = 0; attempt < 3; ++attempt) {
    std::this_thread::sleep_for(std::chrono::milliseconds(options_.in_doubt ? 0 : 300 * attempt));
    if (!ensure_usable()) continue;
    if (revision_ == before) return false;
    if (execute("PRAGMA wal_checkpoint(TRUNCATE)")) return true;
  }
  const std::string message =
      "state store '" + path_ + "': the disk fails, and whether a change is on it cannot be known: " + cause.text();
  if (options_.in_doubt) {
    options_.in_doubt(message);
  } else {
    log::error("{}", message);
    std::abort();
  }
  return false;
}

std::vector<Result<Applied>> Database::apply(const std::vector<const Transaction*>& transactions) {
  auto together = apply_together(transactions);
  if (together) return std::move(*together);
  if (transactions.size() == 1) {
    std::vector<Result<Applied>> out;
    out.push_back(fail(std::move(together).error()));
    return out;
  }
  // Nothing was written. One by one, so that what is small enough, or frees room, gets through.
  std::vector<Result<Applied>> out;
  for (const auto* t : transactions) {
    auto alone = apply({t});
    out.push_back(std::move(alone.front()));
  }
  return out;
}

}  // namespace virga::sqlite
