#include "store/sqlite/statement.h"

#include <sqlite3.h>

namespace virga::sqlite {

void CloseConnection::operator()(sqlite3* db) const noexcept {
  sqlite3_close_v2(db);
}
void Statement::Finalize::operator()(sqlite3_stmt* s) const noexcept {
  sqlite3_finalize(s);
}

int Statement::prepare(sqlite3* db, std::string_view sql) {
  sqlite3_stmt* raw = nullptr;
  const int code = sqlite3_prepare_v3(db, sql.data(), static_cast<int>(sql.size()), SQLITE_PREPARE_PERSISTENT, &raw, nullptr);
  statement_.reset(raw);
  return code;
}

Statement::Run::~Run() {
  sqlite3_reset(statement_);
  sqlite3_clear_bindings(statement_);
}

Statement::Run& Statement::Run::bind(int index, std::string_view text) {
  sqlite3_bind_text64(statement_, index, text.data() == nullptr ? "" : text.data(), text.size(), SQLITE_STATIC, SQLITE_UTF8);
  return *this;
}

Statement::Run& Statement::Run::bind(int index, std::int64_t number) {
  sqlite3_bind_int64(statement_, index, number);
  return *this;
}

int Statement::Run::step() {
  return sqlite3_step(statement_);
}

std::string Statement::Run::text(int column) const {
  const auto* bytes = static_cast<const char*>(sqlite3_column_blob(statement_, column));
  if (bytes == nullptr) return {};
  return {bytes, static_cast<std::size_t>(sqlite3_column_bytes(statement_, column))};
}

std::int64_t Statement::Run::integer(int column) const {
  return sqlite3_column_int64(statement_, column);
}

}  // namespace virga::sqlite
