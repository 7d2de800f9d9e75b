#include <gmock/gmock.h>
#include <sys/stat.h>
#include <unistd.h>

#include <boost/asio/io_context.hpp>
#include <filesystem>

#include "engine/events/events.h"
#include "engine/journal/journal.h"
#include "engine/operations/operations.h"
#include "engine/pools/service.h"
#include "store/memory/store.h"

namespace virga::engine {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
namespace fs = std::filesystem;

/// A driver that keeps its layout as one directory, and can be told to fail.
class TestDriver final : public storage::Driver {
 public:
  TestDriver(std::string source, std::map<std::string, int>& failures, std::vector<storage::VolumeInfo>& volumes,
             std::function<Task<>()>& hook)
      : source_(std::move(source)), failures_(failures), volumes_(volumes), hook_(hook) {}
  const storage::DriverInfo& info() const noexcept override { return info_; }
  Task<Result<>> open() override {
    if (failures_["open"] > 0) {
      --failures_["open"];
      co_return fail(ErrorKind::unavailable, "no such disk");
    }
    fs::create_directories(source_);
    if (hook_) co_await hook_();
    co_return Result<>{};
  }
  Task<Result<>> destroy() override {
    if (hook_) co_await hook_();
    if (failures_["destroy"] > 0) {
      --failures_["destroy"];
      co_return fail(ErrorKind::unavailable, "I/O error");
    }
    if (!volumes_.empty()) co_return fail(ErrorKind::busy, "volumes");
    fs::remove_all(source_);
    co_return Result<>{};
  }
  Task<Result<>> create(storage::VolumeSpec) override { co_return Result<>{}; }
  Task<Result<>> remove(storage::VolumeId id) override {
    std::erase_if(volumes_, [&](const auto& v) { return v.id == id; });
    co_return Result<>{};
  }
  Task<Result<>> rename(storage::VolumeId, storage::VolumeId) override { co_return Result<>{}; }
  Task<Result<std::vector<storage::VolumeInfo>>> list() override { co_return volumes_; }
  Task<Result<storage::Attachment>> attach(storage::VolumeId, std::optional<storage::IdShift>) override {
    co_return storage::Attachment{};
  }
  Task<Result<>> detach(storage::VolumeId) override { co_return Result<>{}; }
  Task<Result<storage::Usage>> usage(storage::VolumeId) override { co_return storage::Usage{}; }
  Task<Result<storage::Usage>> pool_usage() override { co_return storage::Usage{.used = 1, .total = 2}; }

 private:
  storage::DriverInfo info_{.name = "test", .version = "1", .remote = false};
  std::string source_;
  std::map<std::string, int>& failures_;
  std::vector<storage::VolumeInfo>& volumes_;
  std::function<Task<>()>& hook_;
};

class PoolsTest : public testing::Test {
 protected:
  void SetUp() override {
    char name[] = "/tmp/virga-pools-XXXXXX";
    ASSERT_NE(::mkdtemp(name), nullptr);
    base = fs::canonical(name).string();
    boot();
  }
  void TearDown() override {
    run([](PoolsTest* t) -> Task<> { co_await t->pools->shut_down(); });
    pools.reset();
    fs::remove_all(base);
  }
  /// A daemon's start: services made anew on what the store holds.
  void boot() {
    fs::create_directories(base + "/state");
    pools.reset();
    journal = std::make_unique<Journal>(*store);
    Pools::Parts parts{.store = *store,
                       .journal = *journal,
                       .operations = operations,
                       .events = events,
                       .drivers = {},
                       .state_dir = base + "/state"};
    parts.drivers["test"] = [this](std::string source) {
      return std::make_unique<TestDriver>(std::move(source), failures, volumes, hook);
    };
    pools = std::make_unique<Pools>(std::move(parts), loop.get_executor());
    run([](PoolsTest* t) -> Task<> {
      EXPECT_TRUE(co_await t->pools->load());
      co_await t->pools->start();
      t->problems = co_await t->journal->recover();
    });
  }
  template <class F>
  void run(F body) {
    TaskGroup group(loop.get_executor());
    group.spawn("test", body(this));
    while (group.size() > 0) loop.run_one();
    EXPECT_EQ(group.failures(), 0);
  }
  Result<Pools::Ptr> create(CreatePool request) {
    std::optional<Result<Pools::Ptr>> out;
    auto body = [&](PoolsTest* t) -> Task<> { out.emplace(co_await t->pools->create(internal_caller(), request)); };
    run(body);
    return std::move(*out);
  }
  Result<> remove(std::string name) {
    std::optional<Result<>> out;
    auto body = [&](PoolsTest* t) -> Task<> { out.emplace(co_await t->pools->remove(internal_caller(), name)); };
    run(body);
    return std::move(*out);
  }
  Result<> update(std::string name, UpdatePool request, std::optional<std::int64_t> expected = {}) {
    std::optional<Result<>> out;
    auto body = [&](PoolsTest* t) -> Task<> { out.emplace(co_await t->pools->update(internal_caller(), name, request, expected)); };
    run(body);
    return std::move(*out);
  }
  static CreatePool fast(Config config = {}) {
    return {.name = "fast", .driver = "test", .description = "d", .config = std::move(config)};
  }

  boost::asio::io_context loop;
  std::string base;
  std::unique_ptr<MemoryStore> store = std::make_unique<MemoryStore>();
  std::function<Task<>()> hook;  ///< called in the middle of open() and destroy()
  Events events{loop.get_executor()};
  Operations operations{loop.get_executor(), events};
  std::map<std::string, int> failures;
  std::vector<storage::VolumeInfo> volumes;
  std::unique_ptr<Journal> journal;
  std::unique_ptr<Pools> pools;
  std::vector<Error> problems;
};

TEST_F(PoolsTest, ACreatedPoolIsThereAfterARestart) {
  auto made = create(fast({{"user.note", "x"}}));
  ASSERT_TRUE(made) << made.error().text();
  EXPECT_EQ((*made)->source(), base + "/state/storage-pools/fast");
  EXPECT_EQ((*made)->status, PoolStatus::created);
  EXPECT_GT((*made)->revision, 0);
  struct stat st{};
  ASSERT_EQ(::stat((base + "/state/storage-pools").c_str(), &st), 0);
  EXPECT_EQ(st.st_mode & 07777, 0711u);
  EXPECT_TRUE(pools->driver("fast"));
  boot();
  ASSERT_TRUE(pools->find("fast"));
  EXPECT_EQ(pools->find("fast")->description, "d");
  EXPECT_TRUE(pools->driver("fast"));
  EXPECT_EQ(pools->open_drivers().size(), 1u);
  EXPECT_EQ(create(fast()).error().kind(), ErrorKind::exists);
}

TEST_F(PoolsTest, WhatIsWrongIsSaid) {
  auto zfs = fast();
  zfs.driver = "zfs";
  auto r = create(zfs);
  ASSERT_FALSE(r);
  EXPECT_EQ(r.error().kind(), ErrorKind::unsupported);
  EXPECT_EQ(r.error().field(), "driver");
  EXPECT_THAT(std::string(r.error().hint()), HasSubstr("test"));
  EXPECT_EQ(create(fast({{"size", "10GB"}})).error().field(), "config.size");
  EXPECT_EQ(create({.name = "../x", .driver = "test", .description = {}, .config = {}}).error().field(), "name");
  EXPECT_EQ(pools->driver("absent").error().kind(), ErrorKind::not_found);
  EXPECT_EQ(remove("absent").error().kind(), ErrorKind::not_found);
  EXPECT_EQ(pools->find("absent"), nullptr);
}

TEST_F(PoolsTest, PoolsDoNotOverlap) {
  fs::create_directories(base + "/data");
  fs::create_directory_symlink(base + "/data", base + "/alias");
  ASSERT_TRUE(create(fast({{"source", base + "/data/a"}})));
  for (const auto& path : {base + "/data/a", base + "/data/a/b", base + "/data", base + "/alias/a"}) {
    auto r = create({.name = "other", .driver = "test", .description = {}, .config = {{"source", path}}});
    ASSERT_FALSE(r) << path;
    EXPECT_EQ(r.error().kind(), ErrorKind::exists) << path;
  }
  for (const auto& path : {base + "/state/images", base + "/state"})
    EXPECT_EQ(create({.name = "other", .driver = "test", .description = {}, .config = {{"source", path}}}).error().kind(),
              ErrorKind::invalid);
}

TEST_F(PoolsTest, ACreationThatFailsLeavesNothing) {
  failures["open"] = 1;
  EXPECT_EQ(create(fast()).error().kind(), ErrorKind::unavailable);
  EXPECT_EQ(pools->find("fast"), nullptr);
  EXPECT_FALSE(fs::exists(base + "/state/storage-pools/fast"));
  volumes.push_back({.id = {.kind = storage::VolumeKind::container, .project = "default", .name = "web"}, .content = {}});
  EXPECT_EQ(create(fast()).error().kind(), ErrorKind::exists) << "volumes of somebody else are not taken over";
  EXPECT_EQ(volumes.size(), 1u);
  volumes.clear();
  EXPECT_TRUE(create(fast()));
}

TEST_F(PoolsTest, UpdatesReplaceOrMerge) {
  ASSERT_TRUE(create(fast({{"user.a", "1"}})));
  const auto revision = pools->find("fast")->revision;
  EXPECT_EQ(update("fast", {.description = "x", .config = Config{{"user.b", "2"}}, .replace = true}, revision + 7).error().kind(),
            ErrorKind::conflict);
  ASSERT_TRUE(update("fast", {.description = "x", .config = Config{{"user.b", "2"}}, .replace = true}, revision));
  EXPECT_EQ(pools->find("fast")->config.size(), 2u) << "source stays";
  EXPECT_EQ(pools->find("fast")->description, "x");
  ASSERT_TRUE(update("fast", {.description = {}, .config = Config{{"user.b", ""}, {"user.c", "3"}}, .replace = false}));
  EXPECT_EQ(pools->find("fast")->config.count("user.b"), 0u);
  EXPECT_EQ(pools->find("fast")->config.at("user.c"), "3");
  EXPECT_EQ(pools->find("fast")->description, "x");
  EXPECT_EQ(update("fast", {.description = {}, .config = Config{{"source", "/elsewhere"}}, .replace = false}).error().field(),
            "config.source");
  EXPECT_EQ(update("absent", {}).error().kind(), ErrorKind::not_found);
  boot();
  EXPECT_EQ(pools->find("fast")->config.at("user.c"), "3");
}

TEST_F(PoolsTest, APoolInUseStays) {
  ASSERT_TRUE(create(fast()));
  std::vector<std::string> users = {"/1.0/instances/web"};
  pools->add_users([&](const std::string& name) { return name == "fast" ? users : std::vector<std::string>{}; });
  auto used = remove("fast");
  ASSERT_FALSE(used);
  EXPECT_EQ(used.error().kind(), ErrorKind::busy);
  EXPECT_THAT(used.error().text(), HasSubstr("web"));
  users.clear();
  volumes.push_back({.id = {.kind = storage::VolumeKind::container, .project = "default", .name = "web"}, .content = {}});
  EXPECT_EQ(remove("fast").error().kind(), ErrorKind::busy);
  EXPECT_TRUE(pools->driver("fast")) << "usable again after a refused removal";
  volumes = {{.id = {.kind = storage::VolumeKind::image, .project = {}, .name = "f00"}, .content = {}}};
  EXPECT_TRUE(remove("fast")) << "images go along";
  EXPECT_EQ(pools->find("fast"), nullptr);
  EXPECT_FALSE(fs::exists(base + "/state/storage-pools/fast"));
  boot();
  EXPECT_TRUE(pools->list().empty());
}

TEST_F(PoolsTest, APoolThatFailsBreaksNothingElse) {
  ASSERT_TRUE(create(fast()));
  ASSERT_TRUE(create({.name = "slow", .driver = "test", .description = {}, .config = {}}));
  failures["open"] = 1;
  boot();
  ASSERT_EQ(pools->list().size(), 2u);
  int unavailable = 0;
  for (const auto& pool : pools->list()) {
    if (pool->status != PoolStatus::unavailable) continue;
    ++unavailable;
    auto driver = pools->driver(pool->name);
    ASSERT_FALSE(driver);
    EXPECT_EQ(driver.error().kind(), ErrorKind::unavailable);
    EXPECT_THAT(driver.error().text(), HasSubstr("no such disk"));
  }
  EXPECT_EQ(unavailable, 1);
  EXPECT_EQ(pools->open_drivers().size(), 1u);
}

TEST_F(PoolsTest, ARemovalThatFailsLeavesThePoolUsable) {
  ASSERT_TRUE(create(fast()));
  failures["destroy"] = 1;
  EXPECT_FALSE(remove("fast"));
  EXPECT_TRUE(pools->driver("fast"));
  EXPECT_TRUE(remove("fast"));
}

TEST_F(PoolsTest, ACrashInTheMiddleIsFinishedOrUndone) {
  // What the store held in the middle of the step is what a daemon that was killed there finds.
  std::vector<Document> at_crash;
  auto remember = [&]() -> Task<> { at_crash = (co_await store->list("")).value(); };
  auto crash = [&] {
    hook = nullptr;
    pools.reset();
    store = std::make_unique<MemoryStore>();
    auto restore = [&](PoolsTest*) -> Task<> {
      Transaction all;
      for (auto& d : at_crash) all.put(d.key, d.value);
      EXPECT_TRUE(co_await store->commit(std::move(all)));
    };
    run(restore);
    boot();
    EXPECT_TRUE(problems.empty());
    auto rows = [&](PoolsTest*) -> Task<> { at_crash = (co_await store->list("")).value(); };
    run(rows);
  };
  hook = remember;
  ASSERT_TRUE(create(fast()));
  EXPECT_FALSE(at_crash.empty()) << "an intent";
  crash();
  EXPECT_TRUE(pools->list().empty());
  EXPECT_FALSE(fs::exists(base + "/state/storage-pools/fast"));
  EXPECT_TRUE(at_crash.empty()) << "no row, no document";

  ASSERT_TRUE(create(fast()));
  hook = remember;
  ASSERT_TRUE(remove("fast"));
  EXPECT_EQ(at_crash.size(), 2u) << "the pool and an intent";
  crash();
  EXPECT_TRUE(pools->list().empty());
  EXPECT_FALSE(fs::exists(base + "/state/storage-pools/fast"));
  EXPECT_TRUE(at_crash.empty());
}

}  // namespace
}  // namespace virga::engine
