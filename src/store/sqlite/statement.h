// RAII for SQLite's connection and prepared statements.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

struct sqlite3;
struct sqlite3_stmt;

namespace virga::sqlite {

struct CloseConnection {
  void operator()(sqlite3* db) const noexcept;
};
using Connection = std::unique_ptr<sqlite3, CloseConnection>;

class Statement {
 public:
  /// SQLite's code; 0 is success.
  int prepare(sqlite3* db, std::string_view sql);
  void finalize() noexcept { statement_.reset(); }

  /// One execution: binds, steps, and resets when it goes out of scope. Bound text must live as long.
  class Run {
   public:
    explicit Run(Statement& statement) : statement_(statement.statement_.get()) {}
    ~Run();
    Run(const Run&) = delete;
    Run& operator=(const Run&) = delete;
    Run& bind(int index, std::string_view text);
    Run& bind(int index, std::int64_t number);
    /// SQLITE_ROW, SQLITE_DONE or an error.
    int step();
    std::string text(int column) const;
    std::int64_t integer(int column) const;

   private:
    sqlite3_stmt* statement_;
  };

 private:
  struct Finalize {
    void operator()(sqlite3_stmt* s) const noexcept;
  };
  std::unique_ptr<sqlite3_stmt, Finalize> statement_;
};

}  // namespace virga::sqlite
