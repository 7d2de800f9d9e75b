// The store of a single machine: a SQLite file. All blocking work happens on one thread of its own; commits that arrive while
// another is being written share the next one.
#pragma once

#include <memory>
#include <string>

#include "store/sqlite/database.h"
#include "store/store.h"

namespace virga {

/// Must be closed before it is destroyed. Errors: as sqlite::Database::open.
Task<Result<std::unique_ptr<Store>>> open_sqlite_store(std::string path, sqlite::Options options = {});

}  // namespace virga
