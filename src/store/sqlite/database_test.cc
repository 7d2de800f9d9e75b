#include "store/sqlite/database.h"

#include <gtest/gtest.h>
#include <sqlite3.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>

#include "store/sqlite/faulty_vfs.h"

namespace virga::sqlite {
namespace {

struct DatabaseTest : ::testing::Test {
  DatabaseTest() {
    std::string pattern = std::filesystem::temp_directory_path() / "virga-db.XXXXXX";
    dir = ::mkdtemp(pattern.data());
    path = dir + "/state.db";
  }
  ~DatabaseTest() override {
    FaultyVfs::instance().arm(FaultyVfs::Failure::disk_full, 0);
    std::filesystem::remove_all(dir);
  }
  std::unique_ptr<Database> open(std::string vfs = {}) {
    auto db =
        Database::open(path, {.lock_timeout_ms = 10, .vfs = std::move(vfs), .in_doubt = [this](const std::string&) { ++doubts; }});
    EXPECT_TRUE(db) << db.error().text();
    return db ? std::move(*db) : nullptr;
  }
  static Result<Revision> commit(Database& db, const Transaction& t) {
    auto r = db.apply({&t});
    if (!r.front()) return fail(r.front().error());
    return r.front()->revision;
  }
  void raw(const char* sql) {
    sqlite3* db = nullptr;
    ASSERT_EQ(sqlite3_open(path.c_str(), &db), SQLITE_OK);
    EXPECT_EQ(sqlite3_exec(db, sql, nullptr, nullptr, nullptr), SQLITE_OK) << sqlite3_errmsg(db);
    sqlite3_close(db);
  }
  std::string dir, path;
  int doubts = 0;
};

TEST_F(DatabaseTest, IsLockedAgainstAnotherProcessAndPrivate) {
  auto db = open();
  ASSERT_TRUE(commit(*db, Transaction().put("/a", "1")));
  auto second = Database::open(path, {.lock_timeout_ms = 10, .vfs = {}, .in_doubt = {}});
  ASSERT_FALSE(second);
  EXPECT_EQ(second.error().kind(), ErrorKind::busy);
  EXPECT_NE(second.error().text().find("another virgad"), std::string::npos);
  EXPECT_FALSE(std::filesystem::exists(path + "-shm"));
  db.reset();
  EXPECT_NE(open(), nullptr);
}

TEST_F(DatabaseTest, RefusesWhatIsNotOursOrNewerOrDamaged) {
  {
    std::ofstream(path) << std::string(8192, 'x');
    auto db = Database::open(path, {});
    ASSERT_FALSE(db);
    EXPECT_EQ(db.error().kind(), ErrorKind::unavailable);
    std::filesystem::remove(path);
  }
  {
    raw("CREATE TABLE t(x)");
    auto db = Database::open(path, {});
    ASSERT_FALSE(db);
    EXPECT_NE(db.error().text().find("not a state store"), std::string::npos);
    std::filesystem::remove(path);
  }
  {
    open().reset();
    raw("PRAGMA user_version = 99");
    auto db = Database::open(path, {});
    ASSERT_FALSE(db);
    EXPECT_NE(db.error().text().find("version 99"), std::string::npos);
    std::filesystem::remove(path);
  }
  {
    auto db = open();
    for (int i = 0; i < 200; ++i) ASSERT_TRUE(commit(*db, Transaction().put("/k/" + std::to_string(i), std::string(500, 'v'))));
    db.reset();
    std::fstream f(path, std::ios::in | std::ios::out | std::ios::binary);
    f.seekp(8192);
    f << std::string(8192, '\x5a');
    f.close();
    auto damaged = Database::open(path, {});
    ASSERT_FALSE(damaged);
    EXPECT_EQ(damaged.error().kind(), ErrorKind::unavailable) << damaged.error().text();
    EXPECT_FALSE(damaged.error().hint().empty());
  }
}

TEST_F(DatabaseTest, ABatchSharesACommitAndEachTransactionHasItsOwnResult) {
  auto db = open();
  const Transaction one = Transaction().put("/a", "1"), two = Transaction().expect("/a", 0).put("/a", "2"),
                    three = Transaction().expect("/a", 1).put("/a", "3"), four = Transaction().erase("/a");
  auto r = db->apply({&one, &two, &three, &four});
  ASSERT_EQ(r.size(), 4u);
  EXPECT_EQ(r[0]->revision, 1);
  EXPECT_EQ(r[1].error().kind(), ErrorKind::conflict);
  EXPECT_EQ(r[2]->revision, 2);
  EXPECT_EQ(r[3]->revision, 3);
  EXPECT_EQ(r[3]->changes.size(), 1u);
  EXPECT_FALSE(*db->get("/a"));
}

TEST_F(DatabaseTest, EveryFailingWriteLeavesTheOldStateAndTheNextCommitWorks) {
  auto& vfs = FaultyVfs::instance();
  for (auto failure : {FaultyVfs::Failure::disk_full, FaultyVfs::Failure::write_error, FaultyVfs::Failure::sync_error}) {
    for (const int times : {1, 100}) {
      const bool batch = times == 1;
      int failures = 0;
      for (int k = 1; k < 200; ++k) {
        std::filesystem::remove(path);
        std::filesystem::remove(path + "-wal");
        auto db = open(vfs.name());
        ASSERT_TRUE(commit(*db, Transaction().put("/old", "1")));
        const Transaction t = Transaction().put("/old", "2").put("/new", std::string(20'000, 'n'));
        const Transaction u = Transaction().put("/other", "o");
        (void)vfs.take_fired();
        doubts = 0;
        vfs.arm(failure, k, times);
        auto r = batch ? db->apply({&t, &u}) : db->apply({&t});
        vfs.arm(failure, 0);
        const bool fired = vfs.take_fired();
        for (auto& x : r)
          if (!x) EXPECT_EQ(x.error().kind(), ErrorKind::unavailable) << x.error().text();
        const bool committed = r.front().has_value();
        if (!committed) ++failures;
        if (doubts > 0) {
          EXPECT_EQ(failure, FaultyVfs::Failure::sync_error) << "only an fsync that fails again and again leaves doubt";
          EXPECT_EQ(times, 100);
          EXPECT_FALSE(committed);
          continue;
        }
        auto check = [&](const char* when) {
          auto old = db->get("/old");
          auto fresh = db->get("/new");
          ASSERT_TRUE(old && fresh) << when;
          EXPECT_EQ((*old)->value, committed ? "2" : "1") << when << " k=" << k;
          EXPECT_EQ(fresh->has_value(), committed) << when << " k=" << k;
        };
        check("at once");
        EXPECT_TRUE(commit(*db, Transaction().put("/after", "x"))) << "k=" << k;
        db.reset();
        db = open();
        check("after reopening");
        EXPECT_TRUE(*db->get("/after"));
        db.reset();
        if (!fired) break;
      }
      if (times > 1) EXPECT_GT(failures, 0) << "a single failure is made good by trying the batch one by one";
    }
  }
}

}  // namespace
}  // namespace virga::sqlite
