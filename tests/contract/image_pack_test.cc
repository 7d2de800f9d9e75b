// Packing a root and reading the result again: what an image may hold comes back as it was, nothing outside is read, and what
// cannot be packed is an error.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <filesystem>
#include <functional>

#include "drivers/image/confined/confined.h"
#include "io/file.h"
#include "tests/support/files.h"
#include "tests/support/run_task.h"

namespace virga::image {
namespace {

namespace fs = std::filesystem;

using test::slurp;
using test::spill;

struct ::stat stat_of(const fs::path& path) {
  struct ::stat st{};
  EXPECT_EQ(::lstat(path.c_str(), &st), 0) << path;
  return st;
}

class PackTest : public ::testing::Test {
 protected:
  void SetUp() override {
    char name[] = "/tmp/virga-pack-XXXXXX";
    ASSERT_NE(::mkdtemp(name), nullptr);
    base_ = name;
    for (const char* d : {"root", "root/etc", "root/home", "base", "base/templates", "into"}) fs::create_directory(base_ / d);
    request_.metadata.architecture = "x86_64";
    request_.metadata.creation_date = 1'700'000'000;
    request_.metadata.properties = {{"os", "Test"}, {"note", "a: b\nc"}};
    request_.tree = base_ / "root";
    request_.into = base_ / "packed";
    request_.scratch = base_ / "scratch";
  }
  void TearDown() override { EXPECT_TRUE(io::remove_tree(base_.string())); }

  Result<> pack() {
    BlockingPool pool("test", 1);
    auto packer = make_confined_packer(VIRGA_WORKER, pool);
    return test::run<Result<>>([&] { return packer->pack(request_, [this](Bytes n) { read_ = n; }); });
  }
  Result<Inspection> unpack() {
    auto reader = make_confined_reader(VIRGA_WORKER);
    UnpackRequest request;
    request.metadata_file = request_.into;
    request.into = base_ / "into";
    return test::run<Result<Inspection>>([&] { return reader->unpack(request); });
  }

  fs::path base_;
  PackRequest request_;
  Bytes read_ = 0;
};

TEST_F(PackTest, ARootComesBackAsItWas) {
  if (::geteuid() != 0) GTEST_SKIP() << "owners need root";
  const auto root = base_ / "root";
  spill(root / "etc/secret", "hidden");
  ASSERT_EQ(::chmod((root / "etc/secret").c_str(), 0600), 0);
  ASSERT_EQ(::chown((root / "etc/secret").c_str(), 1'000'007, 1'000'008), 0);
  ASSERT_EQ(::chown(root.c_str(), 1'000'000, 1'000'000), 0);
  ASSERT_EQ(::chown((root / "home").c_str(), 5, 5), 0);  // outside of the range
  spill(root / "home/a", "one file, two names");
  fs::create_hard_link(root / "home/a", root / "home/b");
  fs::create_symlink("/etc/passwd", root / "link");
  fs::create_directory_symlink("/etc", root / "away");
  ASSERT_EQ(::mkfifo((root / "fifo").c_str(), 0640), 0);
  ASSERT_EQ(::setxattr((root / "home/a").c_str(), "user.note", "kept", 4, 0), 0);
  spill(root / "sparse", "begin");
  ASSERT_EQ(::truncate((root / "sparse").c_str(), 64 << 20), 0);
  spill(root / "hole", "");
  ASSERT_EQ(::truncate((root / "hole").c_str(), 8 << 20), 0);
  spill(root / "new\nline\xff", "odd name");
  const int s = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  (root / "socket").string().copy(address.sun_path, sizeof address.sun_path - 1);
  ASSERT_EQ(::bind(s, reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
  ::close(s);
  request_.base = base_ / "base";
  spill(base_ / "base/metadata.yaml",
        "architecture: x86_64\ncreation_date: 1\nproperties:\n  os: Old\ntemplates:\n  /etc/hosts:\n    when:\n    - create\n    "
        "template: hosts.tpl\n");
  spill(base_ / "base/templates/hosts.tpl", "{{ instance.name }}");
  request_.id_base = 1'000'000;
  request_.id_count = 65536;

  for (auto compression : {Compression::none, Compression::gzip, Compression::zstd, Compression::xz, Compression::bzip2}) {
    SCOPED_TRACE(to_string(compression));
    request_.compression = compression;
    fs::remove(request_.into);
    fs::remove_all(base_ / "into");
    fs::create_directory(base_ / "into");
    auto packed = pack();
    ASSERT_TRUE(packed) << packed.error().chain();
    EXPECT_GT(read_, 0u);
    auto image = unpack();
    ASSERT_TRUE(image) << image.error().chain();
    EXPECT_EQ(image->type, Type::container);
    EXPECT_EQ(image->metadata.properties, request_.metadata.properties);
    EXPECT_TRUE(image->metadata.templates.contains("/etc/hosts"));
    const auto out = base_ / "into/rootfs";
    EXPECT_EQ(slurp(out / "etc/secret"), "hidden");
    const auto secret = stat_of(out / "etc/secret");
    EXPECT_EQ(secret.st_mode & 07777, 0600u);
    EXPECT_EQ(secret.st_uid, 7u);
    EXPECT_EQ(secret.st_gid, 8u);
    EXPECT_EQ(stat_of(out).st_uid, 0u);
    EXPECT_EQ(stat_of(out / "home").st_uid, 65534u) << "an owner from outside becomes nobody";
    EXPECT_EQ(stat_of(out / "home/a").st_ino, stat_of(out / "home/b").st_ino);
    char value[8] = {};
    EXPECT_EQ(::getxattr((out / "home/a").c_str(), "user.note", value, sizeof value), 4);
    EXPECT_EQ(fs::read_symlink(out / "link"), "/etc/passwd");
    EXPECT_EQ(fs::read_symlink(out / "away"), "/etc") << "a link is a link, whatever it points to";
    EXPECT_TRUE(S_ISFIFO(stat_of(out / "fifo").st_mode));
    EXPECT_EQ(stat_of(out / "sparse").st_size, 64 << 20);
    EXPECT_LT(stat_of(out / "sparse").st_blocks, 2048);
    EXPECT_EQ(slurp(out / "sparse").substr(0, 6), std::string("begin\0", 6));
    EXPECT_EQ(stat_of(out / "hole").st_size, 8 << 20);
    EXPECT_EQ(slurp(out / "new\nline\xff"), "odd name");
    EXPECT_FALSE(fs::exists(fs::symlink_status(out / "socket")));
    EXPECT_LT(fs::file_size(request_.into), 1u << 20) << "holes are not packed";
  }
}

TEST_F(PackTest, TemplatesOfTheInstanceTakeThePlaceOfTheImages) {
  request_.base = base_ / "base";
  spill(base_ / "base/metadata.yaml",
        "architecture: x86_64\ncreation_date: 1\ntemplates:\n  /etc/hosts:\n    when:\n    - create\n    template: hosts.tpl\n    "
        "mode: "
        "\"0600\"\n");
  spill(base_ / "base/templates/hosts.tpl", "of the image");
  ASSERT_TRUE(pack());
  auto before = unpack();
  ASSERT_TRUE(before) << before.error().chain();
  EXPECT_EQ(before->metadata.templates.at("/etc/hosts").mode, "0600") << "with owner and mode";

  fs::remove(request_.into);
  fs::remove_all(base_ / "into");
  fs::create_directory(base_ / "into");
  Template motd{.when = {"start"}, .create_only = true, .template_file = "motd.tpl", .properties = {{"a", "b"}}};
  motd.uid = "7";
  request_.metadata.templates = {{"/etc/motd", motd}};
  request_.templates = {{{"motd.tpl", "line 1\n12 x\nline 3"}, {"empty.tpl", ""}, {"other name.tpl", "x"}}};
  auto packed = pack();
  ASSERT_TRUE(packed) << packed.error().chain();
  auto image = unpack();
  ASSERT_TRUE(image) << image.error().chain();
  ASSERT_EQ(image->metadata.templates.size(), 1u);
  const auto& back = image->metadata.templates.at("/etc/motd");
  EXPECT_EQ(back.when, motd.when);
  EXPECT_EQ(back.uid, "7");
  EXPECT_TRUE(back.create_only);
  EXPECT_EQ(slurp(base_ / "into/templates/motd.tpl"), "line 1\n12 x\nline 3");
  EXPECT_EQ(slurp(base_ / "into/templates/other name.tpl"), "x");
  EXPECT_TRUE(fs::exists(base_ / "into/templates/empty.tpl"));
  EXPECT_FALSE(fs::exists(base_ / "into/templates/hosts.tpl"));
}

TEST_F(PackTest, TheSameRootMakesTheSameBytes) {
  spill(base_ / "root/etc/a", "text");
  ASSERT_TRUE(pack());
  const auto first = slurp(request_.into);
  fs::remove(request_.into);
  ASSERT_TRUE(pack());
  EXPECT_EQ(slurp(request_.into), first);
}

TEST_F(PackTest, WhatIsTooMuchIsRefused) {
  spill(base_ / "root/large", std::string(1 << 20, 'x'));
  request_.limits.max_unpacked = 100'000;
  auto packed = pack();
  ASSERT_FALSE(packed);
  EXPECT_EQ(packed.error().kind(), ErrorKind::invalid) << packed.error().chain();
  fs::remove(request_.into);
  request_.limits = {};
  request_.limits.max_entries = 2;
  EXPECT_FALSE(pack());
  fs::remove(request_.into);
  request_.limits = {};
  fs::path deep = base_ / "root";
  for (int i = 0; i < 600; ++i) fs::create_directory(deep /= "d");
  packed = pack();
  ASSERT_FALSE(packed);
  EXPECT_NE(packed.error().chain().find("too deep"), std::string::npos) << packed.error().chain();
}

TEST_F(PackTest, AnExistingFileIsNotOverwritten) {
  spill(request_.into, "mine");
  EXPECT_FALSE(pack());
  EXPECT_EQ(slurp(request_.into), "mine");
}

}  // namespace
}  // namespace virga::image
