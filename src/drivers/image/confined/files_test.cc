#include <gtest/gtest.h>
#include <unistd.h>

#include <boost/asio/io_context.hpp>
#include <filesystem>
#include <fstream>

#include "base/random.h"
#include "drivers/image/confined/confined.h"
#include "io/file.h"

namespace virga::image {
namespace {

void spill(const std::string& path, std::string_view text) {
  std::ofstream(path) << text;
}

TEST(DirectoryFiles, KeepsDigestsAndSweeps) {
  char name[] = "/tmp/virga-files-XXXXXX";
  ASSERT_NE(::mkdtemp(name), nullptr);
  const std::string base = name;
  boost::asio::io_context io;
  TaskGroup group(io.get_executor());
  BlockingPool blocking("test", 1);
  auto body = [](const std::string& directory, BlockingPool& pool) -> Task<> {
    auto files = make_directory_files(directory + "/images", pool);
    EXPECT_TRUE(co_await files->open());
    auto a = files->new_upload_path(), b = files->new_upload_path();
    EXPECT_NE(a, b);
    spill(a, "one");
    spill(b, "two");
    auto digest = co_await files->digest(a, b);
    EXPECT_TRUE(digest);
    EXPECT_EQ(digest->fingerprint, sha256_hex("onetwo"));
    EXPECT_EQ(digest->size, 6u);
    const auto fp = digest->fingerprint;
    EXPECT_TRUE(co_await files->keep(a, b, fp));
    EXPECT_TRUE(co_await files->keep(a, b, fp)) << "done already is success";
    EXPECT_TRUE(io::exists(files->metadata_path(fp)));
    EXPECT_TRUE(io::exists(files->rootfs_path(fp)));
    EXPECT_FALSE(io::exists(a));
    auto stale = files->new_upload_path();
    spill(stale, "x");
    spill(files->metadata_path(std::string(64, 'f')), "orphan");
    EXPECT_TRUE(co_await files->sweep({fp}));
    EXPECT_TRUE(io::exists(stale)) << "an upload that goes on";
    EXPECT_TRUE(io::exists(files->rootfs_path(fp)));
    EXPECT_FALSE(io::exists(files->metadata_path(std::string(64, 'f'))));
    EXPECT_FALSE(co_await files->discard_upload(files->metadata_path(fp))) << "not an upload";
    EXPECT_TRUE(co_await files->open());
    EXPECT_FALSE(io::exists(stale)) << "an upload of an earlier process";
    EXPECT_TRUE(co_await files->remove(fp));
    EXPECT_TRUE(co_await files->remove(fp));
    EXPECT_FALSE(io::exists(files->metadata_path(fp)));
  };
  group.spawn("test", body(base, blocking));
  io.run();
  EXPECT_EQ(group.failures(), 0);
  EXPECT_TRUE(io::remove_tree(base));
}

}  // namespace
}  // namespace virga::image
