// What every Store promises. Those that keep files are also closed, reopened and killed.
#include "store/memory/store.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <boost/asio/io_context.hpp>
#include <boost/asio/steady_timer.hpp>
#include <filesystem>
#include <random>

#include "store/sqlite/store.h"

namespace virga {
namespace {

using namespace std::chrono_literals;

struct Case {
  const char* name;
  bool durable;
  Task<Result<std::unique_ptr<Store>>> (*open)(std::string directory);
};

Task<Result<std::unique_ptr<Store>>> open_memory(std::string) {
  co_return std::make_unique<MemoryStore>();
}
Task<Result<std::unique_ptr<Store>>> open_sqlite(std::string directory) {
  return open_sqlite_store(directory + "/state.db");
}

struct TemporaryDirectory {
  TemporaryDirectory() {
    std::string pattern = std::filesystem::temp_directory_path() / "virga-store.XXXXXX";
    path = ::mkdtemp(pattern.data());
  }
  ~TemporaryDirectory() { std::filesystem::remove_all(path); }
  std::string path;
};

class StoreContract : public ::testing::TestWithParam<Case> {
 protected:
  /// Runs a test body over a store, and closes the store.
  template <class F>
  void with_store(F body) {
    boost::asio::io_context io;
    TaskGroup group(io.get_executor());
    auto run = [&]() -> Task<> {
      auto store = co_await GetParam().open(dir.path);
      EXPECT_TRUE(store) << store.error().text();
      if (!store) co_return;
      co_await body(**store, group);
      co_await (*store)->close();
      finished = true;
    };
    finished = false;
    group.spawn("test", run());
    io.run();
    EXPECT_TRUE(finished);
    EXPECT_EQ(group.failures(), 0);
  }
  TemporaryDirectory dir;
  bool finished = false;
};

TEST_P(StoreContract, PutGetEraseAndRevisions) {
  with_store([](Store& s, TaskGroup&) -> Task<> {
    auto none = co_await s.get("/a");
    EXPECT_TRUE(none && !*none);
    auto first = co_await s.commit(Transaction().put("/a", R"({"n":1})").put("/b", "{}"));
    EXPECT_TRUE(first);
    auto a = co_await s.get("/a");
    EXPECT_EQ((*a)->value, R"({"n":1})");
    EXPECT_EQ((*a)->revision, *first);
    EXPECT_EQ((*a)->key, "/a");
    auto second = co_await s.commit(Transaction().put("/a", "{}"));
    EXPECT_EQ(*second, *first + 1);
    auto b = co_await s.get("/b");
    EXPECT_EQ((*b)->revision, *first) << "an untouched document keeps its revision";
    auto third = co_await s.commit(Transaction().erase("/a").erase("/never-there"));
    EXPECT_EQ(*third, *second + 1);
    auto gone = co_await s.get("/a");
    EXPECT_TRUE(gone && !*gone);
    auto both = co_await s.commit(Transaction().erase("/b").put("/b", "new"));
    EXPECT_TRUE(both);
    b = co_await s.get("/b");
    EXPECT_EQ((*b)->value, "new") << "a put wins over a deletion in the same transaction";
  });
}

TEST_P(StoreContract, RefusesBadKeysAndHugeValues) {
  with_store([](Store& s, TaskGroup&) -> Task<> {
    for (std::string key :
         {std::string(), std::string("a"), std::string("/a\nb"), std::string("/a\0b", 4), "/" + std::string(2000, 'x')}) {
      auto r = co_await s.commit(Transaction().put(key, "{}"));
      EXPECT_FALSE(r);
      if (!r) EXPECT_EQ(r.error().kind(), ErrorKind::invalid);
    }
    auto huge = co_await s.commit(Transaction().put("/a", std::string((16u << 20) + 1, 'x')));
    EXPECT_EQ(huge.error().kind(), ErrorKind::invalid);
    auto all = co_await s.list("/");
    EXPECT_TRUE(all->empty());
  });
}

TEST_P(StoreContract, ListsByPrefixInByteOrder) {
  with_store([](Store& s, TaskGroup&) -> Task<> {
    Transaction t;
    for (const char* key :
         {"/p/b", "/p/a", "/p/a/x", "/p/a.x", "/p/A", "/p/\xc3\xa9", "/p\xff", "/pa", "/q", "/p/a0", "/p/%", "/p/_"})
      t.put(key, key);
    EXPECT_TRUE(co_await s.commit(t));
    std::vector<std::string> keys;
    auto below = co_await s.list("/p/");
    for (auto& d : *below) {
      EXPECT_EQ(d.value, d.key);
      keys.push_back(d.key);
    }
    EXPECT_EQ(keys, (std::vector<std::string>{"/p/%", "/p/A", "/p/_", "/p/a", "/p/a.x", "/p/a/x", "/p/a0", "/p/b", "/p/\xc3\xa9"}));
    auto odd = co_await s.list("/p\xff");
    EXPECT_EQ(odd->size(), 1u);
    auto all = co_await s.list("");
    EXPECT_EQ(all->size(), 12u);
    auto none = co_await s.list("/zzz");
    EXPECT_TRUE(none->empty());
  });
}

TEST_P(StoreContract, AFailedCompareNamesTheKeyAndWritesNothing) {
  with_store([](Store& s, TaskGroup&) -> Task<> {
    auto first = co_await s.commit(Transaction().put("/a", "1"));
    auto stale = co_await s.commit(Transaction().put("/b", "x").expect("/a", *first + 5).erase("/a"));
    EXPECT_EQ(stale.error().kind(), ErrorKind::conflict);
    EXPECT_NE(stale.error().message().find("/a"), std::string::npos);
    auto taken = co_await s.commit(Transaction().expect("/a", 0).put("/a", "2"));
    EXPECT_EQ(taken.error().kind(), ErrorKind::conflict);
    auto vanished = co_await s.commit(Transaction().expect("/none", 7).put("/a", "2"));
    EXPECT_EQ(vanished.error().kind(), ErrorKind::conflict);
    auto b = co_await s.get("/b");
    EXPECT_FALSE(*b);
    auto a = co_await s.get("/a");
    EXPECT_EQ((*a)->value, "1");
    auto good = co_await s.commit(Transaction().expect("/a", *first).expect("/b", 0).put("/b", "y"));
    EXPECT_TRUE(good);
    EXPECT_EQ(*good, *first + 1) << "a refused commit takes no revision";
  });
}

TEST_P(StoreContract, OfManyWhoCompareExactlyOneWins) {
  with_store([](Store& s, TaskGroup& group) -> Task<> {
    constexpr int rounds = 5, rivals = 40;
    for (int round = 0; round < rounds; ++round) {
      const std::string key = "/token/" + std::to_string(round);
      auto made = co_await s.commit(Transaction().put(key, "{}"));
      int won = 0, lost = 0, ended = 0;
      Notification all_ended(group.executor());
      auto rival = [&](int i) -> Task<> {
        auto r = co_await s.commit(Transaction().expect(key, *made).erase(key).put("/winner", std::to_string(i)));
        r ? ++won : ++lost;
        if (!r) EXPECT_EQ(r.error().kind(), ErrorKind::conflict);
        if (++ended == rivals) all_ended.notify();
      };
      for (int i = 0; i < rivals; ++i) group.spawn("rival", rival(i));
      while (ended < rivals) co_await all_ended.wait();
      EXPECT_EQ(won, 1);
      EXPECT_EQ(lost, rivals - 1);
    }
  });
}

TEST_P(StoreContract, WatchesSeeEveryChangeOnceInOrderBeforeTheWriterGoesOn) {
  with_store([](Store& s, TaskGroup& group) -> Task<> {
    std::vector<std::string> seen;
    std::vector<Revision> revisions;
    auto note = [&](const Change& c) {
      seen.push_back(c.key + "=" + c.value.value_or("-"));
      revisions.push_back(c.revision);
    };
    auto watch = s.watch("/w/", note);
    EXPECT_TRUE(co_await s.commit(Transaction().put("/w/a", "1").put("/other", "1").put("/w/b", "1")));
    EXPECT_EQ(seen.size(), 2u);
    EXPECT_TRUE(co_await s.commit(Transaction().erase("/w/a").erase("/w/none")));
    auto refused = co_await s.commit(Transaction().expect("/w/b", 0).put("/w/b", "2"));
    EXPECT_FALSE(refused);
    EXPECT_EQ(seen, (std::vector<std::string>{"/w/a=1", "/w/b=1", "/w/a=-"}));
    int left = 30;
    Notification done(group.executor());
    auto writer = [&](int i) -> Task<> {
      EXPECT_TRUE(co_await s.commit(Transaction().put("/w/n" + std::to_string(i), "x")));
      if (--left == 0) done.notify();
    };
    for (int i = 0; i < 30; ++i) group.spawn("writer", writer(i));
    while (left > 0) co_await done.wait();
    EXPECT_EQ(seen.size(), 33u);
    EXPECT_TRUE(std::is_sorted(revisions.begin(), revisions.end()));
    watch.reset();
    EXPECT_TRUE(co_await s.commit(Transaction().put("/w/late", "x")));
    EXPECT_EQ(seen.size(), 33u);
  });
}

TEST_P(StoreContract, AWatchMayEndInItsOwnCallback) {
  with_store([](Store& s, TaskGroup&) -> Task<> {
    int calls = 0;
    std::unique_ptr<Store::Watch> watch;
    watch = s.watch("/", [&](const Change&) {
      ++calls;
      watch.reset();
    });
    EXPECT_TRUE(co_await s.commit(Transaction().put("/a", "1").put("/b", "1")));
    EXPECT_EQ(calls, 1);
  });
}

TEST_P(StoreContract, ACommitThatHasBegunIsNotCancelled) {
  with_store([](Store& s, TaskGroup& group) -> Task<> {
    std::optional<bool> committed;
    Notification done(group.executor());
    auto writer = [&]() -> Task<> {
      auto r = co_await s.commit(Transaction().put("/a", "1"));
      committed = r.has_value();
      done.notify();
    };
    const auto id = group.spawn("writer", writer());
    // One turn of the loop, so that the commit has begun, then the cancel.
    co_await sleep_for(0ms);
    group.cancel(id);
    while (!committed) co_await done.wait();
    EXPECT_TRUE(*committed);
    auto a = co_await s.get("/a");
    EXPECT_TRUE(*a);
  });
}

TEST_P(StoreContract, HoldsManyDocuments) {
  with_store([](Store& s, TaskGroup&) -> Task<> {
    const std::string value(6400, 'v');  // 10 000 of these are 64 MB
    for (int batch = 0; batch < 20; ++batch) {
      Transaction t;
      for (int i = 0; i < 500; ++i) t.put("/many/" + std::to_string(batch * 500 + i), value);
      auto r = co_await s.commit(std::move(t));
      EXPECT_TRUE(r);
      if (!r) co_return;
    }
    auto all = co_await s.list("/many/");
    EXPECT_EQ(all->size(), 10'000u);
    auto one = co_await s.get("/many/9999");
    EXPECT_EQ((*one)->value.size(), value.size());
  });
}

TEST_P(StoreContract, AfterCloseEverythingIsRefused) {
  with_store([](Store& s, TaskGroup&) -> Task<> {
    co_await s.close();
    auto c = co_await s.commit(Transaction().put("/a", "1"));
    EXPECT_EQ(c.error().kind(), ErrorKind::unavailable);
    auto g = co_await s.get("/a");
    EXPECT_EQ(g.error().kind(), ErrorKind::unavailable);
    auto l = co_await s.list("/a");
    EXPECT_EQ(l.error().kind(), ErrorKind::unavailable);
  });
}

TEST_P(StoreContract, WhatWasCommittedIsThereAfterReopening) {
  if (!GetParam().durable) GTEST_SKIP() << "this store keeps nothing";
  Revision last = 0;
  with_store([&](Store& s, TaskGroup&) -> Task<> {
    EXPECT_TRUE(co_await s.commit(Transaction().put("/a", "1").put("/b", "2")));
    last = *co_await s.commit(Transaction().erase("/a"));
  });
  with_store([&](Store& s, TaskGroup&) -> Task<> {
    auto a = co_await s.get("/a");
    EXPECT_FALSE(*a);
    auto b = co_await s.get("/b");
    EXPECT_EQ((*b)->value, "2");
    auto next = co_await s.commit(Transaction().put("/c", "3"));
    EXPECT_EQ(*next, last + 1) << "revisions go on where they were";
  });
}

/// What the killed child does: transactions of two documents each, several at once, an acknowledgement on the pipe after each.
[[noreturn]] void commit_until_killed(const Case& c, const std::string& dir, int pipe, int first) {
  boost::asio::io_context io;
  TaskGroup group(io.get_executor());
  auto run = [&]() -> Task<> {
    auto store = co_await c.open(dir);
    if (!store) ::_exit(3);
    int next = first;
    auto writer = [&]() -> Task<> {
      while (true) {
        const int n = next++;
        const std::string number = std::to_string(n);
        auto r = co_await (*store)->commit(Transaction().put("/left/" + number, number).put("/right/" + number, number));
        if (!r || ::write(pipe, &n, sizeof n) != sizeof n) ::_exit(4);
      }
    };
    TaskGroup writers(io.get_executor());
    for (int i = 0; i < 8; ++i) writers.spawn("writer", writer());
    co_await writers.join();
  };
  group.spawn("child", run());
  io.run();
  ::_exit(5);
}

TEST_P(StoreContract, AKillInTheMiddleLeavesWholeCommitsAndAllThatWereAcknowledged) {
  if (!GetParam().durable) GTEST_SKIP() << "this store keeps nothing";
  std::mt19937 random(7);
  std::vector<int> acknowledged;
  for (int round = 0; round < 8; ++round) {
    int pipe[2];
    ASSERT_EQ(::pipe(pipe), 0);
    const pid_t child = ::fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
      ::close(pipe[0]);
      commit_until_killed(GetParam(), dir.path, pipe[1], round * 1'000'000);
    }
    ::close(pipe[1]);
    // Kill after a random number of acknowledgements: wherever it happens to be then.
    int left = static_cast<int>(random() % 60);
    int n = 0;
    while (left-- > 0 && ::read(pipe[0], &n, sizeof n) == sizeof n) acknowledged.push_back(n);
    ::kill(child, SIGKILL);
    while (::read(pipe[0], &n, sizeof n) == sizeof n) acknowledged.push_back(n);
    ::close(pipe[0]);
    int status = 0;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    ASSERT_TRUE(WIFSIGNALED(status)) << "the child ended by itself: " << WEXITSTATUS(status);

    with_store([&](Store& s, TaskGroup&) -> Task<> {
      auto left_half = co_await s.list("/left/");
      auto right_half = co_await s.list("/right/");
      EXPECT_EQ(left_half->size(), right_half->size());
      std::set<std::string> present;
      for (std::size_t i = 0; i < left_half->size() && i < right_half->size(); ++i) {
        EXPECT_EQ((*left_half)[i].value, (*right_half)[i].value);
        EXPECT_EQ((*left_half)[i].revision, (*right_half)[i].revision);
        present.insert((*left_half)[i].value);
      }
      for (int a : acknowledged) EXPECT_TRUE(present.contains(std::to_string(a))) << "acknowledged and lost: " << a;
    });
  }
  EXPECT_GT(acknowledged.size(), 30u);
}

INSTANTIATE_TEST_SUITE_P(Stores, StoreContract,
                         ::testing::Values(Case{"memory", false, open_memory}, Case{"sqlite", true, open_sqlite}),
                         [](const auto& info) { return std::string(info.param.name); });

}  // namespace
}  // namespace virga
