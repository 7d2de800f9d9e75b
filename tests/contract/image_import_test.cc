// Images from upload to volume with the real parts: files, confined reader, a pool of directories; the tiny container image of
// share/images.
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <boost/asio/io_context.hpp>
#include <filesystem>

#include "drivers/image/confined/confined.h"
#include "drivers/storage/dir/dir.h"
#include "engine/events/events.h"
#include "engine/images/service.h"
#include "engine/journal/journal.h"
#include "engine/operations/operations.h"
#include "io/file.h"
#include "io/process.h"
#include "store/memory/store.h"
#include "tests/support/tar_builder.h"

namespace virga::engine {
namespace {

namespace fs = std::filesystem;

struct ImageImport : ::testing::Test {
  void SetUp() override {
    char name[] = "/tmp/virga-import-XXXXXX";
    ASSERT_NE(::mkdtemp(name), nullptr);
    base = name;
    fs::create_directory(base + "/pool");
    files = image::make_directory_files(base + "/images", blocking);
    pool = storage::make_dir_driver(base + "/pool", blocking);
    images = std::make_unique<Images>(Images::Parts{store,
                                                    journal,
                                                    operations,
                                                    events,
                                                    *reader,
                                                    *files,
                                                    clock,
                                                    [](const std::string& p) -> Result<std::string> { return p; },
                                                    [this] { return std::vector<storage::Driver*>{pool.get()}; },
                                                    {}},
                                      io.get_executor());
  }
  void TearDown() override {
    images.reset();
    pool.reset();
    EXPECT_TRUE(io::remove_tree(base));
  }

  template <class F>
  void run(F body) {
    bool finished = false;
    auto wrapped = [&]() -> Task<> {
      co_await body();
      finished = true;
    };
    group.spawn("test", wrapped());
    io.run();
    io.restart();
    EXPECT_TRUE(finished);
    EXPECT_EQ(group.failures(), 0);
  }

  Task<std::string> import(std::string from) {
    ImportImage request;
    request.metadata_file = images->new_upload_path();
    fs::copy_file(from, request.metadata_file);
    request.aliases = {{"tiny", ""}};
    auto op = images->import(internal_caller(), std::move(request));
    if (!op) {
      ADD_FAILURE() << op.error().text();
      co_return "";
    }
    auto done = co_await operations.wait((*op)->id(), std::nullopt);
    if ((*done)->error()) ADD_FAILURE() << (*done)->error()->text();
    co_return (*done)->metadata().contains("fingerprint") ? std::string((*done)->metadata().at("fingerprint").as_string()) : "";
  }

  std::string base;
  boost::asio::io_context io;
  BlockingPool blocking{"test", 2};
  TaskGroup group{io.get_executor()};
  MemoryStore store;
  ManualClock clock;
  Events events{io.get_executor(), clock};
  Journal journal{store};
  Operations operations{io.get_executor(), events, clock, {.retention = Milliseconds(1)}};
  std::unique_ptr<image::Reader> reader = image::make_confined_reader(VIRGA_WORKER);
  std::unique_ptr<image::Files> files;
  std::unique_ptr<storage::Driver> pool;
  std::unique_ptr<Images> images;
};

TEST_F(ImageImport, TinyFromScriptToVolume) {
  run([&]() -> Task<> {
    io::ProcessSpec script;
    script.argv = {
        VIRGA_SOURCE "/share/images/build-tiny", "--kind", "container", "--out", base + "/out", "--cache", base + "/cache"};
    auto built = co_await io::check_process(script, {.timeout = Milliseconds(120'000)});
    if (!built) {
      ADD_FAILURE() << built.error().text();
      co_return;
    }
    EXPECT_EQ(*built, "container " + base + "/out/tiny-container.tar.gz\n");
    EXPECT_TRUE(co_await pool->open());
    EXPECT_TRUE(co_await images->load());
    const auto fingerprint = co_await import(base + "/out/tiny-container.tar.gz");
    auto image = images->resolve("default", "tiny", "", InstanceType::container);
    if (!image) {
      ADD_FAILURE() << image.error().text();
      co_return;
    }
    EXPECT_EQ((*image)->properties.at("os"), "Tiny");

    int good = 0;
    auto one = [](ImageImport& t, std::string f, int n, int& count) -> Task<> {
      auto unpacked = co_await t.images->ensure_unpacked(*t.pool, f);
      if (!unpacked) co_return;
      storage::VolumeSpec spec{.id = {storage::VolumeKind::container, "", "c" + std::to_string(n)},
                               .content = storage::ContentType::filesystem,
                               .size = {}};
      if (co_await t.pool->clones()->from_image(spec, f)) ++count;
    };
    TaskGroup many(io.get_executor());
    for (int i = 0; i < 8; ++i) many.spawn("create", one(*this, fingerprint, i, good));
    co_await many.join();
    EXPECT_EQ(good, 8);
    const auto path = pool->images()->path(fingerprint);
    EXPECT_TRUE(path && fs::is_symlink(*path + "/rootfs/sbin/init"));
    EXPECT_TRUE(path && fs::exists(*path + "/rootfs/bin/busybox"));

    // Deleting the image while volumes stand on it, and importing it again.
    for (int round = 0; round < 2; ++round) {
      auto op = images->remove(internal_caller(), "default", fingerprint);
      auto done = co_await operations.wait((*op)->id(), std::nullopt);
      EXPECT_FALSE((*done)->error()) << (*done)->error()->text();
      EXPECT_TRUE(fs::is_empty(base + "/images"));
      EXPECT_FALSE(pool->images()->path(fingerprint));
      if (round == 0) {
        EXPECT_EQ(co_await import(base + "/out/tiny-container.tar.gz"), fingerprint);
        EXPECT_TRUE(co_await images->ensure_unpacked(*pool, fingerprint));
      }
    }
    for (int i = 0; i < 8; ++i) {
      storage::VolumeId id{storage::VolumeKind::container, "", "c" + std::to_string(i)};
      EXPECT_TRUE(co_await pool->remove(id));
    }
    EXPECT_TRUE((co_await pool->list())->empty());
    EXPECT_TRUE(fs::is_empty(base + "/pool/images")) << "what volumes stood on goes with the last of them";
    co_await images->stop();
  });
}

TEST_F(ImageImport, HostileUploadsLeaveNothing) {
  run([&]() -> Task<> {
    EXPECT_TRUE(co_await pool->open());
    EXPECT_TRUE(co_await images->load());
    test::TarBuilder tar;
    tar.file("metadata.yaml", "architecture: x86_64\ncreation_date: 1\n").directory("rootfs").file("rootfs/../../x", "evil");
    ImportImage request;
    request.metadata_file = images->new_upload_path();
    EXPECT_TRUE(io::write_file_durably(request.metadata_file, tar.str()));
    auto op = images->import(internal_caller(), std::move(request));
    auto done = co_await operations.wait((*op)->id(), std::nullopt);
    EXPECT_TRUE((*done)->error() && (*done)->error()->kind() == ErrorKind::invalid);
    EXPECT_TRUE(fs::is_empty(base + "/images"));
    EXPECT_TRUE(images->list({}).empty());

    // One that only unpacking can refuse: it is imported, the pool stays clean, and it can be deleted.
    test::TarBuilder late;
    late.file("metadata.yaml", "architecture: x86_64\ncreation_date: 1\n")
        .directory("rootfs")
        .file("rootfs/a", "1")
        .file("rootfs/a", "2");
    EXPECT_TRUE(io::write_file_durably(base + "/late.tar", late.str()));
    const auto fingerprint = co_await import(base + "/late.tar");
    auto unpacked = co_await images->ensure_unpacked(*pool, fingerprint);
    EXPECT_TRUE(!unpacked && unpacked.error().kind() == ErrorKind::invalid);
    EXPECT_FALSE(pool->images()->path(fingerprint));
    EXPECT_TRUE((co_await pool->list())->empty());
    co_await images->stop();
  });
}

}  // namespace
}  // namespace virga::engine
