// What every storage driver promises, over the fake and the real `dir`; and what only `dir` can show: mounts, ids, files. The real
// one works in a private mount namespace of this process, so that nothing stays mounted whatever a test does.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <sched.h>
#include <sys/fsuid.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <boost/asio/io_context.hpp>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <future>

#include "drivers/storage/dir/dir.h"
#include "drivers/storage/dir/qcow2.h"
#include "drivers/storage/fake/fake.h"
#include "io/file.h"
#include "io/mount.h"
#include "io/process.h"

namespace virga::storage {
namespace {

using testing::HasSubstr;
using testing::UnorderedElementsAre;
namespace fs = std::filesystem;

template <class T>
Task<> keep(Task<T> task, std::optional<T>& out) {
  out.emplace(co_await std::move(task));
}
/// Runs a task to its end on an event loop of its own.
template <class T>
T wait(Task<T> task) {
  boost::asio::io_context loop;
  TaskGroup group(loop.get_executor());
  std::optional<T> out;
  group.spawn("test", keep(std::move(task), out));
  loop.run();
  return std::move(out.value());
}

#define EXPECT_OK(...)                                                           \
  do {                                                                           \
    auto result_ = (__VA_ARGS__);                                                \
    EXPECT_TRUE(result_.has_value()) << (result_ ? "" : result_.error().text()); \
  } while (false)
#define EXPECT_KIND(expected, ...)                                                    \
  do {                                                                                \
    auto result_ = (__VA_ARGS__);                                                     \
    ASSERT_FALSE(result_.has_value());                                                \
    EXPECT_EQ(result_.error().kind(), ErrorKind::expected) << result_.error().text(); \
  } while (false)

VolumeId container(std::string name, std::string project = "default") {
  return {.kind = VolumeKind::container, .project = std::move(project), .name = std::move(name)};
}
VolumeId machine(std::string name) {
  return {.kind = VolumeKind::virtual_machine, .project = "default", .name = std::move(name)};
}
VolumeId image(std::string fingerprint) {
  return {.kind = VolumeKind::image, .project = {}, .name = std::move(fingerprint)};
}
VolumeSpec tree(VolumeId id) {
  return {.id = std::move(id), .content = ContentType::filesystem, .size = {}};
}
VolumeSpec disk(VolumeId id, std::optional<Bytes> size = {}) {
  return {.id = std::move(id), .content = ContentType::block, .size = size};
}
constexpr Bytes MiB = 1 << 20;

constexpr IdShift range{.base = 3'000'000, .count = 65536};

struct stat stat_of(const std::string& path) {
  struct stat st{};
  EXPECT_EQ(::lstat(path.c_str(), &st), 0) << path;
  return st;
}
void write(const std::string& path, const std::string& text) {
  std::ofstream(path) << text;
}
std::string read(const std::string& path) {
  return io::read_file(path).value_or("(unreadable)");
}

void enter_private_mounts() {
  static const bool done = ::unshare(CLONE_NEWNS) == 0 && ::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0;
  ASSERT_TRUE(done) << "cannot make a mount namespace";
}

class StorageTest : public testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    real = GetParam() == "dir";
    if (!real) {
      driver = std::make_unique<FakeDriver>();
      return;
    }
    if (::geteuid() != 0) GTEST_SKIP() << "mounts need root";
    enter_private_mounts();
    char name[] = "/var/tmp/virga-storage-XXXXXX";
    ASSERT_NE(::mkdtemp(name), nullptr);
    base = name;
    ASSERT_EQ(::chmod(base.c_str(), 0711), 0);
    // Inside a container /var/tmp is an overlay itself, which cannot carry another one.
    struct statfs st{};
    ASSERT_EQ(::statfs(base.c_str(), &st), 0);
    if (st.f_type == 0x794c7630) ASSERT_EQ(::mount("tmpfs", base.c_str(), "tmpfs", 0, "mode=0711,size=64m"), 0);
    pool = std::make_unique<BlockingPool>("storage", 2);
    restart();
  }
  void TearDown() override {
    driver.reset();
    pool.reset();
    if (base.empty()) return;
    auto left = io::mounts_below(root());
    EXPECT_TRUE(left && left->empty()) << "a test left something mounted";
    EXPECT_TRUE(io::unmount_below(base));
    EXPECT_TRUE(io::remove_tree(base));
  }
  std::string root() const { return base + "/pool"; }
  /// As after the daemon was killed: a new driver on the same pool.
  void restart() {
    driver = make_dir_driver(root(), *pool, VIRGA_WORKER);
    EXPECT_OK(wait(driver->open()));
  }
  /// Publishes an image with a small tree or disk in it.
  void publish(const std::string& fingerprint, ContentType content) {
    auto stage = wait(driver->images()->stage(fingerprint));
    ASSERT_TRUE(stage) << stage.error().text();
    if (real) fill(*stage, content);
    EXPECT_OK(wait(driver->images()->publish(fingerprint, content)));
  }
  static void fill(const std::string& stage, ContentType content) {
    if (content == ContentType::block) {
      EXPECT_OK(dir::create_qcow2(stage + "/disk.qcow2", {.size = 64 * MiB, .backing = {}}));
      write(stage + "/kernel", "k");
      return;
    }
    fs::create_directories(stage + "/rootfs/etc/deep");
    fs::permissions(stage + "/rootfs", fs::perms(0755));
    write(stage + "/rootfs/etc/hostname", "image\n");
    write(stage + "/rootfs/etc/deep/file", "deep");
    ::chown((stage + "/rootfs/etc/hostname").c_str(), 7, 8) == 0 ? void() : std::abort();
  }
  std::vector<std::string> names() {
    auto all = wait(driver->list());
    EXPECT_TRUE(all);
    std::vector<std::string> out;
    for (const auto& v : *all) out.push_back(relative_path(v.id));
    return out;
  }

  bool real = false;
  std::string base;
  std::unique_ptr<BlockingPool> pool;
  std::unique_ptr<Driver> driver;
};
INSTANTIATE_TEST_SUITE_P(All, StorageTest, testing::Values("fake", "dir"), [](const auto& i) { return i.param; });

TEST_P(StorageTest, CreatingTwiceIsSuccessAndRemovingWhatIsAbsentToo) {
  EXPECT_OK(wait(driver->create(tree(container("web")))));
  EXPECT_OK(wait(driver->create(tree(container("web")))));
  EXPECT_OK(wait(driver->create(disk(machine("db"), 32 * MiB))));
  EXPECT_OK(wait(driver->create(disk(machine("db"), 32 * MiB))));
  EXPECT_KIND(exists, wait(driver->create(disk(machine("db"), 64 * MiB))));
  EXPECT_THAT(names(), UnorderedElementsAre("containers/web", "virtual-machines/db"));
  EXPECT_OK(wait(driver->remove(container("web"))));
  EXPECT_OK(wait(driver->remove(container("web"))));
  EXPECT_OK(wait(driver->remove(machine("db"))));
  EXPECT_OK(wait(driver->remove(machine("absent"))));
  EXPECT_OK(wait(driver->remove(image("absent"))));
  EXPECT_THAT(names(), UnorderedElementsAre());
}

TEST_P(StorageTest, ProjectsAreApart) {
  EXPECT_OK(wait(driver->create(tree(container("web")))));
  EXPECT_OK(wait(driver->create(tree(container("web", "lab")))));
  EXPECT_OK(wait(driver->create(tree({.kind = VolumeKind::custom, .project = "lab", .name = "my_data"}))));
  EXPECT_THAT(names(), UnorderedElementsAre("containers/web", "containers/lab_web", "custom/lab_my_data"));
  auto all = wait(driver->list());
  ASSERT_TRUE(all);
  EXPECT_TRUE(std::any_of(all->begin(), all->end(), [](const auto& v) { return v.id.project == "lab" && v.id.name == "my_data"; }));
}

TEST_P(StorageTest, RefusesWhatItCannotKeep) {
  EXPECT_KIND(invalid, wait(driver->create(disk(container("web")))));
  EXPECT_KIND(invalid, wait(driver->create(tree(machine("db")))));
  auto sized = tree(container("web"));
  sized.size = 1 << 30;
  auto refused = wait(driver->create(sized));
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().kind(), ErrorKind::unsupported);
  EXPECT_EQ(refused.error().field(), "size");
  EXPECT_THAT(names(), UnorderedElementsAre());
}

TEST_P(StorageTest, RefusesNamesThatCouldLeaveThePool) {
  for (const auto& name :
       {std::string(), std::string("."), std::string(".."), std::string("../x"), std::string("a/b"), std::string("-rf"),
        std::string(".new-x"), std::string("a\0b", 3), std::string("a\nb"), std::string("\xff"), std::string("a_b")}) {
    EXPECT_KIND(invalid, wait(driver->create(tree(container(name)))));
    EXPECT_KIND(invalid, wait(driver->attach(container(name), range)));
    EXPECT_KIND(invalid, wait(driver->remove(container(name))));
    EXPECT_KIND(invalid, wait(driver->rename(container("web"), container(name))));
  }
  EXPECT_KIND(invalid, wait(driver->create(tree(container("web", "a_b")))));
  EXPECT_KIND(invalid, wait(driver->create(tree(container("web", "..")))));
  EXPECT_KIND(invalid, wait(driver->images()->stage("../x")));
  EXPECT_KIND(invalid, wait(driver->images()->publish("", ContentType::block)));
}

TEST_P(StorageTest, AttachAndDetachPair) {
  publish("f00", ContentType::filesystem);
  EXPECT_OK(wait(driver->clones()->from_image(tree(container("web")), "f00")));
  EXPECT_KIND(not_found, wait(driver->attach(container("absent"), range)));
  auto first = wait(driver->attach(container("web"), range));
  ASSERT_TRUE(first) << first.error().text();
  auto second = wait(driver->attach(container("web"), range));
  ASSERT_TRUE(second) << second.error().text();
  EXPECT_EQ(first->path, second->path);
  EXPECT_FALSE(first->qcow2);
  EXPECT_KIND(busy, wait(driver->attach(container("web"), IdShift{.base = 9'000'000, .count = 65536})));
  EXPECT_OK(wait(driver->detach(container("web"))));
  EXPECT_OK(wait(driver->detach(container("web"))));
  EXPECT_OK(wait(driver->detach(container("absent"))));
  auto again = wait(driver->attach(container("web"), range));
  EXPECT_OK(std::move(again));
  EXPECT_OK(wait(driver->remove(container("web"))));
  EXPECT_KIND(not_found, wait(driver->attach(container("web"), range)));
}

TEST_P(StorageTest, DisksAreAttachedWithTheirImage) {
  publish("d15c", ContentType::block);
  EXPECT_OK(wait(driver->clones()->from_image(disk(machine("db")), "d15c")));
  EXPECT_OK(wait(driver->create(disk(machine("empty"), 32 * MiB))));
  auto db = wait(driver->attach(machine("db"), {}));
  ASSERT_TRUE(db) << db.error().text();
  EXPECT_TRUE(db->qcow2);
  EXPECT_THAT(db->path, testing::EndsWith("/virtual-machines/db/root.qcow2"));
  EXPECT_THAT(db->backing, testing::ElementsAre(testing::EndsWith("/images/d15c/disk.qcow2")));
  auto empty = wait(driver->attach(machine("empty"), {}));
  ASSERT_TRUE(empty);
  EXPECT_THAT(empty->backing, testing::IsEmpty());
  EXPECT_OK(wait(driver->detach(machine("db"))));
}

TEST_P(StorageTest, RenameIsIdempotentAndNeedsADetachedVolume) {
  EXPECT_OK(wait(driver->create(tree(container("old")))));
  EXPECT_OK(wait(driver->create(tree(container("other")))));
  EXPECT_OK(wait(driver->attach(container("old"), range)));
  EXPECT_KIND(busy, wait(driver->rename(container("old"), container("new"))));
  EXPECT_OK(wait(driver->detach(container("old"))));
  EXPECT_KIND(exists, wait(driver->rename(container("old"), container("other"))));
  EXPECT_OK(wait(driver->rename(container("old"), container("new"))));
  EXPECT_OK(wait(driver->rename(container("old"), container("new"))));
  EXPECT_KIND(not_found, wait(driver->rename(container("absent"), container("nowhere"))));
  EXPECT_THAT(names(), UnorderedElementsAre("containers/new", "containers/other"));
  EXPECT_OK(wait(driver->attach(container("new"), range)));
  EXPECT_OK(wait(driver->detach(container("new"))));
}

TEST_P(StorageTest, ImagesStayUntilTheirLastCloneGoes) {
  publish("f00", ContentType::filesystem);
  EXPECT_KIND(not_found, wait(driver->clones()->from_image(tree(container("one")), "absent")));
  EXPECT_OK(wait(driver->clones()->from_image(tree(container("one")), "f00")));
  EXPECT_OK(wait(driver->clones()->from_image(tree(container("one")), "f00")));
  EXPECT_OK(wait(driver->clones()->from_image(tree(container("two")), "f00")));
  const auto path = driver->images()->path("f00");
  ASSERT_TRUE(path);
  EXPECT_OK(wait(driver->remove(image("f00"))));
  EXPECT_OK(wait(driver->remove(image("f00"))));
  EXPECT_KIND(not_found, driver->images()->path("f00"));
  EXPECT_KIND(not_found, wait(driver->clones()->from_image(tree(container("three")), "f00")));
  EXPECT_THAT(names(), UnorderedElementsAre("containers/one", "containers/two"));
  if (real) restart();
  EXPECT_OK(wait(driver->rename(container("one"), container("uno"))));
  EXPECT_OK(wait(driver->attach(container("uno"), range)));
  EXPECT_OK(wait(driver->remove(container("two"))));
  if (real) EXPECT_TRUE(io::exists(*path + "/rootfs"));
  EXPECT_OK(wait(driver->remove(container("uno"))));
  if (real) EXPECT_FALSE(io::exists(*path)) << "nobody uses the deleted image any more";
  EXPECT_OK(wait(driver->destroy()));
}

TEST_P(StorageTest, AnImageThatComesBackIsTheOneThatWasKept) {
  publish("f00", ContentType::filesystem);
  EXPECT_OK(wait(driver->clones()->from_image(tree(container("one")), "f00")));
  EXPECT_OK(wait(driver->remove(image("f00"))));
  publish("f00", ContentType::filesystem);
  publish("f00", ContentType::filesystem);
  EXPECT_OK(driver->images()->path("f00"));
  EXPECT_OK(wait(driver->remove(container("one"))));
  EXPECT_OK(driver->images()->path("f00"));
  EXPECT_THAT(names(), UnorderedElementsAre("images/f00"));
}

TEST_P(StorageTest, CloningFromTheOtherKindIsRefused) {
  publish("f00", ContentType::filesystem);
  publish("d15c", ContentType::block);
  EXPECT_KIND(invalid, wait(driver->clones()->from_image(disk(machine("db")), "f00")));
  EXPECT_KIND(invalid, wait(driver->clones()->from_image(tree(container("web")), "d15c")));
  EXPECT_THAT(names(), UnorderedElementsAre("images/f00", "images/d15c"));
  EXPECT_OK(wait(driver->remove(image("f00"))));
  EXPECT_THAT(names(), UnorderedElementsAre("images/d15c")) << "a failed clone holds no image";
}

TEST_P(StorageTest, StagesAreFreshAndCanBeThrownAway) {
  auto stage = wait(driver->images()->stage("f00"));
  ASSERT_TRUE(stage);
  if (real) write(*stage + "/kernel", "left by an attempt that failed");
  stage = wait(driver->images()->stage("f00"));
  ASSERT_TRUE(stage);
  if (real) EXPECT_FALSE(io::exists(*stage + "/kernel"));
  EXPECT_OK(wait(driver->images()->discard_stage("f00")));
  EXPECT_OK(wait(driver->images()->discard_stage("f00")));
  EXPECT_KIND(not_found, wait(driver->images()->publish("f00", ContentType::filesystem)));
  EXPECT_KIND(not_found, driver->images()->path("f00"));
}

TEST_P(StorageTest, DestroyNeedsAnEmptyPool) {
  EXPECT_OK(wait(driver->open()));
  EXPECT_OK(wait(driver->create(tree(container("web")))));
  EXPECT_KIND(busy, wait(driver->destroy()));
  EXPECT_OK(wait(driver->remove(container("web"))));
  EXPECT_OK(wait(driver->destroy()));
  EXPECT_OK(wait(driver->destroy()));
  if (real) EXPECT_FALSE(io::exists(root()));
}

TEST_P(StorageTest, UsageIsKnown) {
  EXPECT_OK(wait(driver->create(tree(container("web")))));
  EXPECT_KIND(not_found, wait(driver->usage(container("absent"))));
  EXPECT_OK(wait(driver->usage(container("web"))));
  auto total = wait(driver->pool_usage());
  ASSERT_TRUE(total && total->total);
  EXPECT_LE(total->used, *total->total);
}

TEST_P(StorageTest, SnapshotsAreKeptByName) {
  auto* ops = driver->snapshots();
  ASSERT_NE(ops, nullptr);
  publish("f00", ContentType::filesystem);
  publish("d15c", ContentType::block);
  EXPECT_OK(wait(driver->clones()->from_image(tree(container("web")), "f00")));
  EXPECT_OK(wait(driver->create(tree(container("plain")))));
  EXPECT_OK(wait(driver->clones()->from_image(disk(machine("db")), "d15c")));
  EXPECT_OK(wait(driver->create(disk(machine("empty"), 32 * MiB))));
  for (const auto& id : {container("web"), container("plain"), machine("db"), machine("empty")}) {
    SCOPED_TRACE(to_string(id));
    auto names_of = [&] { return wait(ops->list(id)).value(); };
    EXPECT_THAT(names_of(), testing::IsEmpty());
    EXPECT_OK(wait(ops->create(id, "snap0")));
    EXPECT_OK(wait(ops->create(id, "snap0")));
    EXPECT_OK(wait(ops->create(id, "snap1")));
    EXPECT_THAT(names_of(), testing::ElementsAre("snap0", "snap1"));
    if (real) restart(), ops = driver->snapshots();
    EXPECT_THAT(names_of(), testing::ElementsAre("snap0", "snap1"));
    EXPECT_KIND(exists, wait(ops->rename(id, "snap0", "snap1")));
    EXPECT_KIND(not_found, wait(ops->rename(id, "absent", "snap2")));
    EXPECT_OK(wait(ops->rename(id, "snap0", "before-the-update")));
    EXPECT_OK(wait(ops->rename(id, "snap0", "before-the-update")));
    EXPECT_THAT(names_of(), testing::ElementsAre("before-the-update", "snap1"));
    EXPECT_OK(wait(ops->usage(id, "snap1")));
    EXPECT_KIND(not_found, wait(ops->usage(id, "absent")));
    EXPECT_KIND(not_found, wait(ops->restore(id, "absent")));
    EXPECT_OK(wait(ops->restore(id, "before-the-update")));
    EXPECT_OK(wait(ops->restore(id, "before-the-update")));
    EXPECT_THAT(names_of(), testing::ElementsAre("before-the-update", "snap1"));
    EXPECT_OK(wait(ops->remove(id, "snap1")));
    EXPECT_OK(wait(ops->remove(id, "snap1")));
    EXPECT_THAT(names_of(), testing::ElementsAre("before-the-update"));

    auto moved = id;
    moved.name += "-2";
    EXPECT_OK(wait(driver->rename(id, moved)));
    EXPECT_THAT(wait(ops->list(moved)).value(), testing::ElementsAre("before-the-update"));
    EXPECT_OK(wait(driver->remove(moved)));
    EXPECT_KIND(not_found, wait(ops->list(moved)));
  }
  EXPECT_KIND(not_found, wait(ops->create(container("absent"), "snap0")));
  EXPECT_OK(wait(ops->remove(container("absent"), "snap0")));
}

TEST_P(StorageTest, SnapshotsRefuseNamesThatCouldLeaveTheirPlace) {
  EXPECT_OK(wait(driver->create(tree(container("web")))));
  auto* ops = driver->snapshots();
  for (const auto& name : {std::string(), std::string("."), std::string(".."), std::string("../x"), std::string("a/b"),
                           std::string(".new-x"), std::string("a\0b", 3), std::string("a\nb"), std::string(200, 'x')}) {
    EXPECT_KIND(invalid, wait(ops->create(container("web"), name)));
    EXPECT_KIND(invalid, wait(ops->remove(container("web"), name)));
    EXPECT_KIND(invalid, wait(ops->restore(container("web"), name)));
    EXPECT_KIND(invalid, wait(ops->rename(container("web"), "snap0", name)));
    EXPECT_KIND(invalid, wait(ops->attach(container("web"), name, range)));
  }
}

TEST_P(StorageTest, SnapshotsAreShownBesideTheirVolume) {
  auto* ops = driver->snapshots();
  publish("f00", ContentType::filesystem);
  EXPECT_OK(wait(driver->clones()->from_image(tree(container("web")), "f00")));
  EXPECT_OK(wait(driver->attach(container("web"), range)));
  EXPECT_OK(wait(ops->create(container("web"), "snap0")));
  EXPECT_KIND(not_found, wait(ops->attach(container("web"), "absent", range)));
  auto shown = wait(ops->attach(container("web"), "snap0", range));
  ASSERT_TRUE(shown) << shown.error().text();
  auto again = wait(ops->attach(container("web"), "snap0", range));
  ASSERT_TRUE(again) << again.error().text();
  EXPECT_EQ(shown->path, again->path);
  EXPECT_KIND(busy, wait(ops->restore(container("web"), "snap0")));
  EXPECT_KIND(busy, wait(ops->rename(container("web"), "snap0", "other")));
  EXPECT_OK(wait(driver->detach(container("web"))));
  EXPECT_KIND(busy, wait(driver->rename(container("web"), container("uno"))));
  EXPECT_OK(wait(ops->detach(container("web"), "snap0")));
  EXPECT_OK(wait(ops->detach(container("web"), "snap0")));
  EXPECT_OK(wait(driver->rename(container("web"), container("uno"))));
  EXPECT_OK(wait(ops->attach(container("uno"), "snap0", range)));
  EXPECT_OK(wait(driver->remove(container("uno"))));
}

// What only the real driver shows.

class DirTest : public StorageTest {};
INSTANTIATE_TEST_SUITE_P(All, DirTest, testing::Values("dir"), [](const auto& i) { return i.param; });

TEST_P(StorageTest, VolumesAreCopiedWithinAPool) {
  auto* ops = driver->copies();
  ASSERT_NE(ops, nullptr);
  publish("f00", ContentType::filesystem);
  publish("d15c", ContentType::block);
  EXPECT_OK(wait(driver->clones()->from_image(tree(container("web")), "f00")));
  EXPECT_OK(wait(driver->create(tree(container("plain")))));
  EXPECT_OK(wait(driver->clones()->from_image(disk(machine("db")), "d15c")));
  EXPECT_OK(wait(driver->snapshots()->create(container("web"), "snap0")));
  EXPECT_OK(wait(driver->snapshots()->create(machine("db"), "snap0")));
  auto control = std::make_shared<TransferControl>();
  auto from = [&](VolumeId id) { return CopySource{.driver = driver.get(), .id = std::move(id)}; };
  EXPECT_OK(wait(ops->copy(tree(container("web2")), from(container("web")), range, control)));
  EXPECT_OK(wait(ops->copy(tree(container("plain2")), from(container("plain")), range, control)));
  EXPECT_OK(wait(ops->copy(disk(machine("db2")), from(machine("db")), {}, control)));
  EXPECT_KIND(exists, wait(ops->copy(tree(container("web2")), from(container("web")), range, control)));
  EXPECT_KIND(not_found, wait(ops->copy(tree(container("x")), from(container("absent")), range, control)));
  EXPECT_KIND(invalid, wait(ops->copy(disk(machine("x")), from(container("web")), range, control)));
  EXPECT_KIND(not_found, wait(ops->refresh(tree(container("x")), from(container("web")), range, control)));
  EXPECT_TRUE(wait(driver->snapshots()->list(container("web2"))).value().empty());
  for (const auto& [id, spec] : {std::pair{container("web"), tree(container("all"))}, {machine("db"), disk(machine("all"))}}) {
    auto with = from(id);
    with.with_snapshots = true;
    EXPECT_OK(wait(ops->copy(spec, with, range, control)));
    EXPECT_THAT(wait(driver->snapshots()->list(spec.id)).value(), testing::ElementsAre("snap0"));
    auto then = from(id);
    then.snapshot = "snap0";
    auto target = spec;
    target.id.name = "then";
    EXPECT_OK(wait(ops->copy(target, then, range, control)));
    EXPECT_TRUE(wait(driver->snapshots()->list(target.id)).value().empty());
    then.snapshot = "absent";
    target.id.name = "none";
    EXPECT_KIND(not_found, wait(ops->copy(target, then, range, control)));
  }
  EXPECT_OK(wait(ops->refresh(tree(container("web2")), from(container("web")), range, control)));
  EXPECT_OK(wait(driver->remove(image("f00"))));
  EXPECT_OK(wait(driver->remove(container("web"))));
  EXPECT_OK(wait(driver->attach(container("web2"), range)));  // the image is there for it
  EXPECT_KIND(busy, wait(ops->refresh(tree(container("web2")), from(container("all")), range, control)));
  EXPECT_OK(wait(driver->detach(container("web2"))));
  control->stop = true;
  if (real) EXPECT_KIND(cancelled, wait(ops->copy(tree(container("late")), from(container("all")), range, control)));
  if (real) restart();
  for (const auto* name : {"x", "none", "late"}) EXPECT_KIND(not_found, wait(driver->usage(container(name))));
}

TEST_P(DirTest, ACopyIsShiftedAndOnAnotherPoolBringsItsImage) {
  publish("f00", ContentType::filesystem);
  EXPECT_OK(wait(driver->clones()->from_image(tree(container("web")), "f00")));
  auto shown = wait(driver->attach(container("web"), range));
  ASSERT_TRUE(shown) << shown.error().text();
  write(shown->path + "/mine", "text");
  ASSERT_EQ(::lchown((shown->path + "/mine").c_str(), range.base + 33, range.base + 44), 0);
  ASSERT_EQ(::unlink((shown->path + "/etc/hostname").c_str()), 0);
  const auto elsewhere = base + "/other";
  auto other = make_dir_driver(elsewhere, *pool);
  EXPECT_OK(wait(other->open()));
  constexpr IdShift theirs{.base = 7'000'000, .count = 65536};
  auto control = std::make_shared<TransferControl>();
  const CopySource from{.driver = driver.get(), .id = container("web")};
  for (auto* target : {driver.get(), other.get()}) {
    EXPECT_OK(wait(target->copies()->copy(tree(container("copy")), from, theirs, control)));
    auto copy = wait(target->attach(container("copy"), theirs));
    ASSERT_TRUE(copy) << copy.error().text();
    EXPECT_EQ(read(copy->path + "/mine"), "text");
    EXPECT_EQ(stat_of(copy->path + "/mine").st_uid, theirs.base + 33);
    EXPECT_EQ(stat_of(copy->path + "/mine").st_gid, theirs.base + 44);
    EXPECT_FALSE(fs::exists(copy->path + "/etc/hostname"));
    EXPECT_EQ(read(copy->path + "/etc/deep/file"), "deep");
    EXPECT_OK(wait(target->detach(container("copy"))));
  }
  EXPECT_TRUE(fs::exists(elsewhere + "/images/f00"));
  EXPECT_KIND(not_found, Result<std::string>(other->images()->path("f00")));
  EXPECT_OK(wait(other->remove(container("copy"))));
  EXPECT_FALSE(fs::exists(elsewhere + "/images/f00"));
  EXPECT_OK(wait(driver->detach(container("web"))));
}

TEST_P(DirTest, ARootIsShiftedWritableAndItsImageUntouched) {
  publish("f00", ContentType::filesystem);
  const auto base_file = *driver->images()->path("f00") + "/rootfs/etc/hostname";
  EXPECT_OK(wait(driver->clones()->from_image(tree(container("one")), "f00")));
  EXPECT_OK(wait(driver->clones()->from_image(tree(container("two")), "f00")));
  auto one = wait(driver->attach(container("one"), range));
  auto two = wait(driver->attach(container("two"), IdShift{.base = 4'000'000, .count = 65536}));
  ASSERT_TRUE(one && two);
  EXPECT_EQ(stat_of(one->path).st_uid, 3'000'000u);
  EXPECT_EQ(stat_of(one->path).st_mode & 07777, 0755u);
  EXPECT_EQ(stat_of(one->path + "/etc/hostname").st_uid, 3'000'007u);
  EXPECT_EQ(stat_of(one->path + "/etc/hostname").st_gid, 3'000'008u);
  EXPECT_EQ(stat_of(two->path + "/etc/hostname").st_uid, 4'000'007u);

  write(one->path + "/etc/hostname", "one\n");
  EXPECT_EQ(::rename((one->path + "/etc/deep").c_str(), (one->path + "/etc/moved").c_str()), 0)
      << "directories of the image can be renamed";
  EXPECT_EQ(stat_of(one->path + "/etc/hostname").st_uid, 3'000'007u) << "copied up with its owner";
  EXPECT_EQ(read(base_file), "image\n");
  EXPECT_EQ(stat_of(base_file).st_uid, 7u);
  EXPECT_EQ(read(two->path + "/etc/hostname"), "image\n");

  EXPECT_OK(wait(driver->detach(container("one"))));
  EXPECT_OK(wait(driver->rename(container("one"), container("uno"))));
  one = wait(driver->attach(container("uno"), range));
  ASSERT_TRUE(one);
  EXPECT_EQ(read(one->path + "/etc/hostname"), "one\n");
  EXPECT_EQ(read(one->path + "/etc/moved/file"), "deep");
  EXPECT_KIND(busy, wait(driver->attach(container("uno"), {})));
  EXPECT_OK(wait(driver->detach(container("uno"))));
  EXPECT_KIND(unsupported, wait(driver->attach(container("uno"), IdShift{.base = 9'000'000, .count = 65536})));
  EXPECT_OK(wait(driver->detach(container("two"))));
}

TEST_P(DirTest, APlainTreeIsStoredUnshifted) {
  EXPECT_OK(wait(driver->create(tree(container("web")))));
  auto at = wait(driver->attach(container("web"), range));
  ASSERT_TRUE(at) << at.error().text();
  EXPECT_EQ(stat_of(at->path).st_uid, 3'000'000u);
  EXPECT_OK(wait(driver->detach(container("web"))));
  at = wait(driver->attach(container("web"), {}));
  ASSERT_TRUE(at) << at.error().text();
  EXPECT_EQ(stat_of(at->path).st_uid, 0u);
  EXPECT_OK(wait(driver->detach(container("web"))));
}

// --- snapshots of trees

TEST_P(DirTest, ARestoredTreeIsWhatItWasWithWhiteoutsOwnersAndLinks) {
  publish("f00", ContentType::filesystem);
  auto* ops = driver->snapshots();
  const auto id = container("web");
  EXPECT_OK(wait(driver->clones()->from_image(tree(id), "f00")));
  auto at = wait(driver->attach(id, range));
  ASSERT_TRUE(at);
  const auto root_path = at->path;
  auto run = [&](const std::string& script) {
    const int code = std::system(("cd " + root_path + " && { " + script + "; }").c_str());
    EXPECT_EQ(code, 0) << script;
  };
  run("echo one > file && ln file link && chown 3000033:3000044 file && chmod 4751 file && touch -d @1000000000 file");
  run("rm etc/hostname && mv etc/deep etc/moved && ln -s /nowhere symlink && mkfifo fifo");
  run("mkdir opaque && truncate -s 1G sparse && printf x | dd of=sparse bs=1 seek=500M conv=notrunc status=none");
  run("setfattr -n user.kept -v yes file && setcap cap_net_raw+ep sparse");
  // An opaque directory: one of the image's that was removed and made again.
  run("mkdir etc/again && rm -r etc && mkdir etc && echo new > etc/new");
  const auto before = stat_of(root_path + "/file");
  EXPECT_OK(wait(ops->create(id, "snap0")));
  run("rm -r file link opaque symlink && echo changed > etc/new && mkdir other && rm sparse");
  EXPECT_OK(wait(driver->detach(id)));
  const auto look = [&](const std::string& where) {
    SCOPED_TRACE(where);
    const auto file = stat_of(where + "/file");
    EXPECT_EQ(read(where + "/file"), "one\n");
    EXPECT_EQ(file.st_uid, 3'000'033u);
    EXPECT_EQ(file.st_gid, 3'000'044u);
    EXPECT_EQ(file.st_mode & 07777, 04751u);
    EXPECT_EQ(file.st_mtim.tv_sec, before.st_mtim.tv_sec);
    EXPECT_EQ(file.st_ino, stat_of(where + "/link").st_ino);
    EXPECT_EQ(file.st_nlink, 2u);
    char value[16] = {};
    EXPECT_EQ(::getxattr((where + "/file").c_str(), "user.kept", value, sizeof value), 3);
    EXPECT_GT(::getxattr((where + "/sparse").c_str(), "security.capability", nullptr, 0), 0);
    EXPECT_EQ(stat_of(where + "/sparse").st_size, off_t(1) << 30);
    EXPECT_LT(stat_of(where + "/sparse").st_blocks, 1000);
    EXPECT_EQ(fs::read_symlink(where + "/symlink"), "/nowhere");
    EXPECT_TRUE(S_ISFIFO(stat_of(where + "/fifo").st_mode));
    EXPECT_EQ(read(where + "/etc/new"), "new\n");
    EXPECT_FALSE(io::exists(where + "/etc/hostname")) << "a whiteout, or the directory that hides the image's, was lost";
    EXPECT_FALSE(io::exists(where + "/etc/deep"));
    EXPECT_TRUE(io::exists(where + "/opaque"));
    EXPECT_FALSE(io::exists(where + "/other"));
  };
  auto shown = wait(ops->attach(id, "snap0", range));
  ASSERT_TRUE(shown) << shown.error().text();
  look(shown->path);
  EXPECT_NE(::mkdir((shown->path + "/written").c_str(), 0700), 0);
  EXPECT_EQ(errno, EROFS);
  EXPECT_OK(wait(ops->detach(id, "snap0")));
  EXPECT_OK(wait(ops->restore(id, "snap0")));
  at = wait(driver->attach(id, range));
  ASSERT_TRUE(at) << at.error().text();
  look(at->path);
  // The snapshot is a copy: what is done to the restored tree does not reach it.
  run("echo again > file && rm -r etc");
  EXPECT_OK(wait(driver->detach(id)));
  EXPECT_OK(wait(ops->restore(id, "snap0")));
  at = wait(driver->attach(id, range));
  ASSERT_TRUE(at);
  look(at->path);
  EXPECT_OK(wait(driver->detach(id)));
}

TEST_P(DirTest, ASnapshotFromBeforeTheFirstStartIsShownInTheRange) {
  publish("f00", ContentType::filesystem);
  auto* ops = driver->snapshots();
  EXPECT_OK(wait(driver->clones()->from_image(tree(container("web")), "f00")));
  EXPECT_OK(wait(ops->create(container("web"), "fresh")));
  EXPECT_OK(wait(ops->create(container("web"), "shown")));
  EXPECT_OK(wait(driver->attach(container("web"), range)));
  EXPECT_OK(wait(driver->detach(container("web"))));
  EXPECT_OK(wait(ops->restore(container("web"), "fresh")));
  auto at = wait(driver->attach(container("web"), range));
  ASSERT_TRUE(at) << at.error().text();
  EXPECT_EQ(stat_of(at->path).st_uid, 3'000'000u);
  auto shown = wait(ops->attach(container("web"), "shown", range));
  ASSERT_TRUE(shown) << shown.error().text();
  EXPECT_EQ(stat_of(shown->path).st_uid, 3'000'000u);
  EXPECT_EQ(read(shown->path + "/etc/hostname"), "image\n");
  EXPECT_OK(wait(ops->detach(container("web"), "shown")));
  EXPECT_OK(wait(driver->detach(container("web"))));
}

TEST_P(DirTest, WhatACrashLeftOfASnapshotIsNotOne) {
  publish("f00", ContentType::filesystem);
  auto* ops = driver->snapshots();
  EXPECT_OK(wait(driver->clones()->from_image(tree(container("web")), "f00")));
  const auto at = root() + "/containers/web/snapshots";
  fs::create_directories(at + "/.new-snap0/upper/half");
  EXPECT_THAT(wait(ops->list(container("web"))).value(), testing::IsEmpty());
  EXPECT_OK(wait(ops->create(container("web"), "snap0")));
  EXPECT_FALSE(io::exists(at + "/.new-snap0"));
  EXPECT_FALSE(io::exists(at + "/snap0/upper/half"));
  EXPECT_OK(wait(driver->create(disk(machine("db"), 32 * MiB))));
  const auto volume = root() + "/virtual-machines/db";
  EXPECT_OK(dir::create_qcow2(volume + "/layer-0123456789ab.qcow2", {.size = 32 * MiB, .backing = "root.qcow2"}));
  EXPECT_OK(wait(ops->create(machine("db"), "snap0")));
  EXPECT_FALSE(io::exists(volume + "/layer-0123456789ab.qcow2"));
  write(volume + "/disk.json", "{\"active\":[\"../../../etc/shadow\"]}");
  EXPECT_KIND(unavailable, wait(driver->attach(machine("db"), {})));
}

// --- snapshots of disks

/// What a guest would do: through all layers, each named.
class DiskSnapshots : public DirTest {
 protected:
  static std::string layered(const Attachment& disk) {
    std::string out = "null";
    auto layer = [&](const std::string& path) {
      out = R"({"driver":"qcow2","file":{"driver":"file","filename":")" + path + R"("},"backing":)" + out + "}";
    };
    for (auto path = disk.backing.rbegin(); path != disk.backing.rend(); ++path) layer(*path);
    layer(disk.path);
    return "json:" + out;
  }
  static int qemu_io(const Attachment& disk, const std::string& command, bool readonly) {
    io::ProcessSpec spec;
    spec.argv = {"qemu-io", "-c", command, layered(disk)};
    if (readonly) spec.argv.insert(spec.argv.begin() + 1, "-r");
    auto output = wait(io::run_process(std::move(spec)));
    EXPECT_TRUE(output) << output.error().text();
    // A pattern that differs is told on standard output only.
    return output->status.code != 0 || output->out.find("verification failed") != std::string::npos ? 1 : 0;
  }
  void put(const VolumeId& id, int byte, const char* where) {
    auto at = wait(driver->attach(id, {}));
    ASSERT_TRUE(at) << at.error().text();
    EXPECT_EQ(qemu_io(*at, "write -P " + std::to_string(byte) + " " + where, false), 0);
  }
  static bool holds(const Attachment& disk, int byte, const char* where) {
    return qemu_io(disk, "read -P " + std::to_string(byte) + " " + where, true) == 0;
  }
  bool shows(const VolumeId& id, int byte, const char* where) { return holds(wait(driver->attach(id, {})).value(), byte, where); }
  bool kept(const VolumeId& id, const std::string& snapshot, int byte, const char* where) {
    return holds(wait(driver->snapshots()->attach(id, snapshot, {})).value(), byte, where);
  }
  int layers_in(const std::string& volume) const {
    int n = 0;
    for (const auto& name : io::list_directory(root() + "/virtual-machines/" + volume).value())
      n += name.ends_with(".qcow2") ? 1 : 0;
    return n;
  }
  void merge_all(const VolumeId& id) {
    for (;;) {
      auto merge = wait(driver->snapshots()->next_merge(id));
      ASSERT_TRUE(merge) << merge.error().text();
      if (!*merge) return;
      EXPECT_OK(wait(driver->snapshots()->merge(id, **merge)));
      if (HasFailure()) return;
    }
  }
};
INSTANTIATE_TEST_SUITE_P(All, DiskSnapshots, testing::Values("dir"), [](const auto& i) { return i.param; });

TEST_P(DiskSnapshots, EachShowsTheDiskAsItWas) {
  publish("d15c", ContentType::block);
  auto* ops = driver->snapshots();
  const auto id = machine("db");
  EXPECT_OK(wait(driver->clones()->from_image(disk(id, 128 * MiB), "d15c")));
  put(id, 1, "0 1M");
  write(root() + "/virtual-machines/db/qemu.nvram", "first");
  EXPECT_OK(wait(ops->create(id, "one")));
  put(id, 2, "0 64k");
  put(id, 2, "100M 1M");
  write(root() + "/virtual-machines/db/qemu.nvram", "second");
  EXPECT_OK(wait(ops->create(id, "two")));
  put(id, 3, "0 64k");
  EXPECT_TRUE(kept(id, "one", 1, "0 1M"));
  EXPECT_TRUE(kept(id, "one", 0, "100M 1M"));
  EXPECT_TRUE(kept(id, "two", 2, "0 64k"));
  EXPECT_TRUE(kept(id, "two", 1, "64k 64k"));
  EXPECT_TRUE(kept(id, "two", 2, "100M 1M"));
  EXPECT_TRUE(shows(id, 3, "0 64k"));
  EXPECT_FALSE(shows(id, 2, "0 64k"));

  EXPECT_OK(wait(ops->restore(id, "one")));
  EXPECT_TRUE(shows(id, 1, "0 1M"));
  EXPECT_TRUE(shows(id, 0, "100M 1M"));
  EXPECT_EQ(read(root() + "/virtual-machines/db/qemu.nvram"), "first");
  put(id, 4, "0 64k");
  EXPECT_TRUE(kept(id, "one", 1, "0 1M"));
  EXPECT_OK(wait(ops->restore(id, "two")));
  EXPECT_TRUE(shows(id, 2, "0 64k"));
  EXPECT_TRUE(shows(id, 2, "100M 1M"));
  EXPECT_EQ(read(root() + "/virtual-machines/db/qemu.nvram"), "second");
  EXPECT_EQ(wait(driver->attach(id, {}))->backing.back(), root() + "/images/d15c/disk.qcow2");
  EXPECT_EQ(wait(driver->usage(id))->total, 128 * MiB);
  EXPECT_OK(wait(driver->clones()->from_image(disk(id, 128 * MiB), "d15c")));  // it is the same volume as ever
}

TEST_P(DiskSnapshots, SpaceComesBackByMerges) {
  publish("d15c", ContentType::block);
  auto* ops = driver->snapshots();
  const auto id = machine("db");
  EXPECT_OK(wait(driver->clones()->from_image(disk(id, 128 * MiB), "d15c")));
  for (int n = 1; n <= 4; ++n) {
    put(id, n, "0 4M");
    put(id, n, (std::to_string(10 * n) + "M 1M").c_str());
    EXPECT_OK(wait(ops->create(id, "s" + std::to_string(n))));
  }
  put(id, 0, "20M 1M");  // zeros over what a layer below holds
  const auto full = wait(driver->usage(id))->used;
  EXPECT_EQ(layers_in("db"), 5);
  merge_all(id);
  EXPECT_EQ(layers_in("db"), 5) << "every layer is somebody's";
  for (const char* name : {"s1", "s3"}) EXPECT_OK(wait(ops->remove(id, name)));
  merge_all(id);
  EXPECT_EQ(layers_in("db"), 3);
  EXPECT_LT(wait(driver->usage(id))->used, full - 7 * MiB);
  auto all_shown = [&] {
    EXPECT_TRUE(kept(id, "s2", 2, "0 4M"));
    EXPECT_TRUE(kept(id, "s2", 1, "10M 1M"));
    EXPECT_TRUE(kept(id, "s2", 2, "20M 1M"));
    EXPECT_TRUE(kept(id, "s2", 0, "30M 1M"));
    EXPECT_TRUE(shows(id, 4, "0 4M"));
    EXPECT_TRUE(shows(id, 0, "20M 1M"));
    EXPECT_TRUE(shows(id, 3, "30M 1M"));
    EXPECT_TRUE(shows(id, 4, "40M 1M"));
  };
  all_shown();
  // A branch: both lie on the same layer, which therefore stays.
  EXPECT_OK(wait(ops->restore(id, "s2")));
  EXPECT_TRUE(shows(id, 2, "0 4M"));
  put(id, 9, "0 64k");
  EXPECT_OK(wait(ops->remove(id, "s2")));
  merge_all(id);
  EXPECT_TRUE(kept(id, "s4", 4, "0 4M"));
  EXPECT_TRUE(kept(id, "s4", 4, "40M 1M"));
  EXPECT_TRUE(shows(id, 9, "0 64k"));
  EXPECT_TRUE(shows(id, 2, "64k 64k"));
  EXPECT_OK(wait(ops->remove(id, "s4")));
  merge_all(id);
  EXPECT_EQ(layers_in("db"), 1);
  EXPECT_TRUE(shows(id, 9, "0 64k"));
  EXPECT_TRUE(shows(id, 2, "20M 1M"));
  EXPECT_TRUE(shows(id, 0, "30M 1M"));
}

TEST_P(DiskSnapshots, LayersThatOthersHaveAreNotWrittenTo) {
  auto* ops = driver->snapshots();
  const auto id = machine("db");
  EXPECT_OK(wait(driver->create(disk(id, 64 * MiB))));
  put(id, 1, "0 1M");
  EXPECT_OK(wait(ops->create(id, "one")));
  put(id, 2, "0 64k");
  const auto volume = root() + "/virtual-machines/db";
  fs::create_hard_link(volume + "/root.qcow2", base + "/shared.qcow2");
  EXPECT_OK(wait(ops->remove(id, "one")));
  auto merge = wait(ops->next_merge(id));
  ASSERT_TRUE(merge);
  EXPECT_FALSE(*merge);
  fs::remove(base + "/shared.qcow2");
  merge_all(id);
  EXPECT_EQ(layers_in("db"), 1);
  EXPECT_TRUE(shows(id, 2, "0 64k"));
  EXPECT_TRUE(shows(id, 1, "64k 64k"));
}

TEST_P(DiskSnapshots, ALayerThatQemuHasOpenIsNotMerged) {
  auto* ops = driver->snapshots();
  const auto id = machine("db");
  EXPECT_OK(wait(driver->create(disk(id, 64 * MiB))));
  put(id, 1, "0 1M");
  EXPECT_OK(wait(ops->create(id, "one")));
  auto at = wait(driver->attach(id, {}));
  ASSERT_TRUE(at);
  io::ProcessSpec spec;
  spec.argv = {"qemu-io", "-c", "sleep 5000", layered(*at)};
  auto user = io::Process::start(spec);
  ASSERT_TRUE(user);
  ::usleep(700'000);
  EXPECT_OK(wait(ops->remove(id, "one")));
  auto merge = wait(ops->next_merge(id));
  ASSERT_TRUE(merge && *merge);
  EXPECT_KIND(busy, wait(ops->merge(id, **merge)));
  EXPECT_EQ(layers_in("db"), 2);
}

/// Keeps a thread of the pool until `end`; says whether it waited in vain.
Task<> keep_thread(BlockingPool& pool, std::shared_future<void> end, int& in_vain) {
  const auto ended = co_await pool.run([end] { return end.wait_for(std::chrono::seconds(20)) == std::future_status::ready; });
  if (!ended) ++in_vain;
}
Task<> work_on_trees(Driver& driver, std::promise<void>& end) {
  EXPECT_OK(co_await driver.usage(container("web")));
  EXPECT_OK(co_await driver.remove(container("web")));
  EXPECT_OK(co_await driver.images()->stage("f01"));
  EXPECT_OK(co_await driver.images()->discard_stage("f01"));
  EXPECT_OK(co_await driver.remove(image("f00")));
  end.set_value();
}

TEST_P(DirTest, WorkOnTreesTakesNoThreadThatMountsWaitFor) {
  publish("f00", ContentType::filesystem);
  EXPECT_OK(wait(driver->create(tree(container("web")))));
  std::promise<void> end;
  int in_vain = 0;
  boost::asio::io_context loop;
  TaskGroup group(loop.get_executor());
  const std::shared_future<void> ended = end.get_future();
  for (int n = 0; n < 2; ++n) group.spawn("mount", keep_thread(*pool, ended, in_vain));
  group.spawn("trees", work_on_trees(*driver, end));
  loop.run();
  EXPECT_EQ(in_vain, 0);
}

TEST_P(DirTest, AttachmentsSurviveTheDriver) {
  publish("f00", ContentType::filesystem);
  EXPECT_OK(wait(driver->clones()->from_image(tree(container("web")), "f00")));
  EXPECT_OK(wait(driver->attach(container("web"), range)));
  const auto mounts = io::mounts_below(root());
  restart();
  EXPECT_EQ(io::mounts_below(root())->size(), mounts->size());
  EXPECT_OK(wait(driver->attach(container("web"), range)));
  EXPECT_EQ(io::mounts_below(root())->size(), mounts->size());
  EXPECT_OK(wait(driver->remove(image("f00"))));
  EXPECT_TRUE(io::exists(root() + "/images/f00"));
  EXPECT_OK(wait(driver->remove(container("web"))));
}

TEST_P(DirTest, HostUsersCannotGetIntoGuestsTrees) {
  publish("f00", ContentType::filesystem);
  EXPECT_OK(wait(driver->clones()->from_image(tree(container("web")), "f00")));
  EXPECT_OK(wait(driver->clones()->from_image(tree(container("never-attached")), "f00")));
  auto at = wait(driver->attach(container("web"), range));
  ASSERT_TRUE(at);
  EXPECT_OK(wait(driver->create(disk(machine("db"), MiB))));
  auto reaches = [&](uid_t uid, const std::string& path) {
    const pid_t child = ::fork();
    if (child == 0) _exit(::setgid(uid) == 0 && ::setuid(uid) == 0 && ::access(path.c_str(), F_OK) == 0 ? 1 : 0);
    int status = 0;
    EXPECT_EQ(::waitpid(child, &status, 0), child);
    return WEXITSTATUS(status) == 1;
  };
  EXPECT_TRUE(reaches(range.base, at->path + "/etc")) << "the container's own root has to get there";
  for (const auto* path : {"/containers/web/rootfs", "/containers/web/upper", "/containers/never-attached/upper", "/images/f00",
                           "/virtual-machines/db"}) {
    EXPECT_FALSE(reaches(65534, root() + path + "/.")) << path;
    EXPECT_FALSE(reaches(4'000'000, root() + path + "/.")) << path << " by another container's root";
  }
  EXPECT_EQ(stat_of(root() + "/virtual-machines/db/root.qcow2").st_mode & 077, 0u);
  EXPECT_OK(wait(driver->detach(container("web"))));
}

TEST_P(DirTest, DeviceNodesOfAShiftedRootAreInert) {
  EXPECT_OK(wait(driver->create(tree(container("web")))));
  ASSERT_EQ(::mknod((root() + "/containers/web/data/null").c_str(), S_IFCHR | 0666, (1 << 8) | 3), 0);
  auto at = wait(driver->attach(container("web"), range));
  ASSERT_TRUE(at);
  EXPECT_EQ(::open((at->path + "/null").c_str(), O_RDONLY | O_CLOEXEC), -1);
  EXPECT_EQ(errno, EACCES);
  EXPECT_OK(wait(driver->detach(container("web"))));
}

TEST_P(DirTest, ACrashInTheMiddleOfAttachIsCompleted) {
  publish("f00", ContentType::filesystem);
  EXPECT_OK(wait(driver->clones()->from_image(tree(container("web")), "f00")));
  // Killed after the upper layer was shifted and the lower one mounted, before the volume had its owner.
  const auto volume = root() + "/containers/web";
  ASSERT_EQ(::chown((volume + "/upper").c_str(), range.base, range.base), 0);
  ASSERT_TRUE(io::bind_mount(root() + "/images/f00/rootfs", volume + "/lower"));
  auto at = wait(driver->attach(container("web"), range));
  ASSERT_TRUE(at) << at.error().text();
  EXPECT_EQ(stat_of(at->path).st_uid, range.base);
  EXPECT_EQ(stat_of(at->path + "/etc/hostname").st_uid, range.base + 7);
  EXPECT_EQ(io::mounts_below(volume)->size(), 1u);
  EXPECT_OK(wait(driver->detach(container("web"))));
}

TEST_P(DirTest, WhatACrashLeftIsSwept) {
  publish("f00", ContentType::filesystem);
  fs::create_directories(root() + "/containers/.new-web/upper");
  fs::create_directories(root() + "/containers/.gone-1/rootfs");
  fs::create_directories(root() + "/images/.stage-abc/rootfs");
  write(root() + "/virtual-machines/.new-db", "x");
  ASSERT_TRUE(io::bind_mount(root() + "/images/f00/rootfs", root() + "/containers/.gone-1/rootfs"));
  EXPECT_THAT(names(), UnorderedElementsAre("images/f00"));
  restart();
  EXPECT_THAT(names(), UnorderedElementsAre("images/f00"));
  EXPECT_EQ(read(root() + "/images/f00/rootfs/etc/hostname"), "image\n") << "what was mounted there is not swept along";
  EXPECT_OK(wait(driver->remove(image("f00"))));
  EXPECT_OK(wait(driver->destroy()));
}

TEST_P(DirTest, ADeletedImageWithoutClonesGoesAtTheNextStart) {
  publish("f00", ContentType::filesystem);
  write(root() + "/images/f00/.deleted", "");
  restart();
  EXPECT_FALSE(io::exists(root() + "/images/f00"));
}

TEST_P(DirTest, ADamagedVolumeBreaksNothingElseAndNoImageIsRemoved) {
  publish("f00", ContentType::filesystem);
  EXPECT_OK(wait(driver->clones()->from_image(tree(container("hurt")), "f00")));
  EXPECT_OK(wait(driver->clones()->from_image(tree(container("well")), "f00")));
  const auto backing = root() + "/containers/hurt/backing";
  for (const auto* target : {"../../images/../x", "/etc", ""}) {
    fs::remove(backing);
    if (*target != '\0') fs::create_symlink(target, backing);
    if (*target == '\0') write(backing, "no link");
    restart();
    EXPECT_KIND(unavailable, wait(driver->attach(container("hurt"), range)));
    EXPECT_OK(wait(driver->attach(container("well"), range)));
    EXPECT_OK(wait(driver->detach(container("well"))));
  }
  EXPECT_OK(wait(driver->remove(image("f00"))));
  EXPECT_OK(wait(driver->remove(container("well"))));
  EXPECT_TRUE(io::exists(root() + "/images/f00/rootfs"));
  EXPECT_OK(wait(driver->remove(container("hurt"))));
  restart();
  EXPECT_FALSE(io::exists(root() + "/images/f00")) << "with the damaged volume gone its images can go";
}

TEST_P(DirTest, ClonedDisksAreSoundQcow2) {
  publish("d15c", ContentType::block);
  EXPECT_EQ(stat_of(root() + "/images/d15c/kernel").st_mode & 0777, 0644u);
  EXPECT_KIND(invalid, wait(driver->clones()->from_image(disk(machine("small"), 32 * MiB), "d15c")));
  EXPECT_OK(wait(driver->clones()->from_image(disk(machine("db")), "d15c")));
  EXPECT_OK(wait(driver->clones()->from_image(disk(machine("big"), Bytes(3) << 40), "d15c")));
  EXPECT_OK(wait(driver->clones()->from_image(disk(machine("exact"), 64 * MiB), "d15c")));
  for (const auto& [name, size] :
       std::map<std::string, Bytes>{{"db", Bytes(10) << 30}, {"big", Bytes(3) << 40}, {"exact", 64 * MiB}}) {
    auto at = wait(driver->attach(machine(name), {}));
    ASSERT_TRUE(at);
    EXPECT_EQ(dir::qcow2_size(at->path), size);
    EXPECT_LT(wait(driver->usage(machine(name)))->used, MiB);
    io::ProcessSpec check;
    check.argv = {"qemu-img", "check", "-q", "-f", "qcow2", at->path};
    auto sound = wait(io::check_process(check));
    if (!sound && sound.error().kind() == ErrorKind::not_found) GTEST_SKIP() << "qemu-img is not installed";
    EXPECT_OK(std::move(sound));
    io::ProcessSpec info;
    info.argv = {"qemu-img", "info", "--backing-chain", "-f", "qcow2", at->path};
    auto told = wait(io::check_process(info));
    ASSERT_TRUE(told) << told.error().text();
    EXPECT_THAT(*told, HasSubstr("backing file format: qcow2"));
    EXPECT_THAT(*told, HasSubstr("(actual path: "));
  }
}

TEST_P(DirTest, ADiskBootsWithTheKernelOfItsImageAlsoWhenThatIsDeleted) {
  publish("d15c", ContentType::block);
  write(root() + "/images/d15c/cmdline", "console=ttyS0 quiet\x01\xff\nsecond line");
  publish("beef", ContentType::block);
  fs::remove(root() + "/images/beef/kernel");
  EXPECT_OK(wait(driver->clones()->from_image(disk(machine("db")), "d15c")));
  EXPECT_OK(wait(driver->clones()->from_image(disk(machine("firmware")), "beef")));
  EXPECT_OK(wait(driver->remove(image("d15c"))));
  for (int round = 0; round < 2; ++round) {
    auto db = wait(driver->attach(machine("db"), {}));
    ASSERT_TRUE(db && db->boot);
    EXPECT_EQ(db->boot->kernel, root() + "/images/d15c/kernel");
    EXPECT_EQ(db->boot->initrd, "");
    EXPECT_EQ(db->boot->command_line, "console=ttyS0 quiet");
    EXPECT_TRUE(io::exists(db->backing.at(0)));
    restart();
  }
  auto firmware = wait(driver->attach(machine("firmware"), {}));
  ASSERT_TRUE(firmware);
  EXPECT_FALSE(firmware->boot);
}

TEST_P(DirTest, AnImageWithAStrangeTopLevelIsRefused) {
  auto attempt = [&](const std::string& what, auto make) {
    auto stage = wait(driver->images()->stage("f00"));
    ASSERT_TRUE(stage);
    make(*stage);
    auto published = wait(driver->images()->publish("f00", ContentType::filesystem));
    ASSERT_FALSE(published) << what;
    EXPECT_EQ(published.error().kind(), ErrorKind::invalid) << what;
    EXPECT_KIND(not_found, driver->images()->path("f00"));
    EXPECT_OK(wait(driver->images()->discard_stage("f00")));
  };
  attempt("no root", [](const std::string&) {});
  attempt("root is a link", [](const std::string& s) { fs::create_directory_symlink("/etc", s + "/rootfs"); });
  attempt("root is a file", [](const std::string& s) { write(s + "/rootfs", ""); });
  attempt("metadata is a link", [](const std::string& s) {
    fs::create_directory(s + "/rootfs"), fs::create_symlink("/etc/passwd", s + "/metadata.yaml");
  });
  attempt("templates is a file", [](const std::string& s) { fs::create_directory(s + "/rootfs"), write(s + "/templates", ""); });
  attempt("our mark", [](const std::string& s) { fs::create_directory(s + "/rootfs"), write(s + "/.deleted", ""); });
  attempt("a fifo", [](const std::string& s) {
    fs::create_directory(s + "/rootfs");
    EXPECT_EQ(::mkfifo((s + "/pipe").c_str(), 0600), 0);
  });
}

TEST_P(DirTest, AFullDiskLeavesNothingHalfMade) {
  publish("f00", ContentType::filesystem);
  publish("d15c", ContentType::block);
  EXPECT_OK(wait(driver->clones()->from_image(tree(container("kept")), "f00")));
  driver.reset();
  // The same pool on a small file system that runs out of inodes first, then of blocks.
  for (std::string option : {"nr_inodes=48,size=16m", "nr_inodes=10000,size=400k"}) {
    const auto small = base + "/small";
    fs::create_directories(small);
    ASSERT_EQ(::mount("tmpfs", small.c_str(), "tmpfs", 0, ("mode=0711," + option).c_str()), 0);
    driver = make_dir_driver(small + "/pool", *pool);
    ASSERT_TRUE(wait(driver->open()));
    publish("f00", ContentType::filesystem);
    publish("d15c", ContentType::block);
    std::vector<std::string> made;
    bool full = false;
    for (int n = 0; n < 200 && !full; ++n) {
      const auto name = "v" + std::to_string(n);
      auto result = n % 2 == 0 ? wait(driver->clones()->from_image(tree(container(name)), "f00"))
                               : wait(driver->clones()->from_image(disk(machine(name)), "d15c"));
      if (result) {
        made.push_back((n % 2 == 0 ? "containers/" : "virtual-machines/") + name);
      } else {
        full = true;
        EXPECT_EQ(result.error().kind(), ErrorKind::unavailable) << result.error().text();
      }
    }
    EXPECT_TRUE(full) << option;
    EXPECT_GT(made.size(), 2u) << option;
    made.push_back("images/f00");
    made.push_back("images/d15c");
    EXPECT_THAT(names(), testing::UnorderedElementsAreArray(made));
    for (const auto* folder : {"containers", "virtual-machines"})
      for (const auto& entry : fs::directory_iterator(small + "/pool/" + folder))
        EXPECT_FALSE(entry.path().filename().string().starts_with('.')) << entry.path();
    EXPECT_OK(wait(driver->remove(container("v0"))));  // deleting works on a full disk
    EXPECT_OK(wait(driver->clones()->from_image(tree(container("again")), "f00")));
    driver.reset();
    ASSERT_TRUE(io::unmount(small));
  }
  restart();
}

TEST_P(DirTest, APoolIsNotMadeWhereOtherThingsAre) {
  fs::create_directories(base + "/home/data");
  auto foreign = make_dir_driver(base + "/home", *pool);
  EXPECT_KIND(exists, wait(foreign->open()));
  EXPECT_FALSE(io::exists(base + "/home/containers"));
  for (std::string path : {base + "/a:b", base + "/a,b", std::string("relative"), base + "/x/../y"}) {
    auto strange = make_dir_driver(path, *pool);
    EXPECT_KIND(invalid, wait(strange->open()));
  }
}

TEST(Names, AreTakenApartAsTheyWerePutTogether) {
  EXPECT_EQ(relative_path(container("web")), "containers/web");
  EXPECT_EQ(relative_path({.kind = VolumeKind::custom, .project = "default", .name = "a_b"}), "custom/default_a_b");
  EXPECT_EQ(parse_entry(VolumeKind::custom, "default_a_b")->name, "a_b");
  EXPECT_FALSE(parse_entry(VolumeKind::custom, "data"));
  EXPECT_EQ(parse_entry(VolumeKind::container, "lab_web")->project, "lab");
  EXPECT_FALSE(parse_entry(VolumeKind::container, "default_web")) << "not how it would be written";
  EXPECT_FALSE(parse_entry(VolumeKind::container, ".new-web"));
  EXPECT_EQ(to_string(container("web", "lab")), "container 'web' of project 'lab'");
}

TEST(Fake, FailsOnceWhenTold) {
  FakeDriver fake;
  fake.fail_next("create", Error(ErrorKind::unavailable, "no space"));
  EXPECT_KIND(unavailable, wait(fake.create(tree(container("web")))));
  EXPECT_OK(wait(fake.create(tree(container("web")))));
}

}  // namespace
}  // namespace virga::storage
