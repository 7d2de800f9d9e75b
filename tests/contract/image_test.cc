// The image reader against hostile images: S01 to S07, S09, S13 and S14 of the security table. Whatever an image says, the reader
// answers with a value or an error, writes only below the directory it was given, leaves no process, and its worker stays below 256
// MB.
#include <dirent.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <boost/asio/io_context.hpp>
#include <filesystem>
#include <functional>

#include "drivers/image/confined/confined.h"
#include "io/file.h"
#include "io/process.h"
#include "tests/support/files.h"
#include "tests/support/run_task.h"
#include "tests/support/tar_builder.h"

namespace virga::image {
namespace {

using test::run;
using test::slurp;
using test::spill;
using test::TarBuilder;
using test::TarEntry;
using namespace std::string_literals;
namespace fs = std::filesystem;

#if __has_feature(address_sanitizer)
constexpr bool sanitized = true;  // no limit of address space then, and the sanitizer's own memory
#else
constexpr bool sanitized = false;
#endif

constexpr const char* metadata_yaml = "architecture: x86_64\ncreation_date: 1700000000\nproperties:\n  os: Tiny\n  release: 12\n";

struct Outcome {
  Result<Inspection> inspected = fail(ErrorKind::internal, "not run");
  Result<Inspection> unpacked = fail(ErrorKind::internal, "not run");
};

/// A private directory: `outside/` with canaries, `work/` with the image's files, and `work/into` that is unpacked into.
class ImageTest : public ::testing::Test {
 protected:
  void SetUp() override {
    char name[] = "/tmp/virga-image-XXXXXX";
    ASSERT_NE(::mkdtemp(name), nullptr);
    base_ = name;
    fs::create_directories(base_ / "outside");
    fs::create_directories(base_ / "work");
    spill(base_ / "outside/canary", "alive");
    fs::create_directories(base_ / "outside/etc");
    spill(base_ / "outside/etc/passwd", "root");
    reader_ = make_confined_reader(VIRGA_WORKER);
    outside_before_ = listing(base_ / "outside");
  }
  void TearDown() override {
    EXPECT_EQ(listing(base_ / "outside"), outside_before_) << "something outside was touched";
    EXPECT_TRUE(io::remove_tree(base_.string()));
    EXPECT_EQ(::waitpid(-1, nullptr, WNOHANG), -1) << "a process is left";
    rusage usage{};
    ::getrusage(RUSAGE_CHILDREN, &usage);
    if (!sanitized) EXPECT_LT(usage.ru_maxrss, 256 * 1024) << "kB, the largest child so far";
  }

  /// Names, types, modes and contents of everything below a directory.
  static std::string listing(const fs::path& root) {
    std::map<std::string, std::string> entries;
    for (const auto& e : fs::recursive_directory_iterator(root)) {
      struct ::stat st{};
      ::lstat(e.path().c_str(), &st);
      std::string text = std::to_string(st.st_mode) + " " + std::to_string(st.st_uid) + " " + std::to_string(st.st_nlink) + " ";
      if (S_ISREG(st.st_mode)) text += slurp(e.path());
      entries[e.path().string()] = text;
    }
    std::string out;
    for (const auto& [k, v] : entries) out += k + " " + v + "\n";
    return out;
  }

  fs::path into() const { return base_ / "work/into"; }
  fs::path root() const { return into() / "rootfs"; }

  /// Inspects and unpacks; after a refusal the directory goes away without trouble.
  Outcome read(std::string_view metadata, std::optional<std::string_view> rootfs = {}, Limits limits = {}) {
    const auto m = (base_ / "work/meta").string(), r = (base_ / "work/root").string();
    spill(m, metadata);
    if (rootfs) spill(r, *rootfs);
    return read_files(m, rootfs ? r : "", limits);
  }
  Outcome read_files(const std::string& m, const std::string& r, Limits limits = {}) {
    EXPECT_TRUE(io::remove_tree(into().string()));
    fs::create_directory(into());
    Outcome out;
    out.inspected = run<Result<Inspection>>([&] { return reader_->inspect(m, r); });
    UnpackRequest request{m, r, into().string(), limits};
    out.unpacked = run<Result<Inspection>>([&] { return reader_->unpack(request); });
    for (const auto* one : {&out.inspected, &out.unpacked})
      if (!*one) {
        EXPECT_EQ(one->error().chain().find("by signal"), std::string::npos) << one->error().text();
        EXPECT_NE(one->error().kind(), ErrorKind::internal) << one->error().text();
      }
    EXPECT_EQ(listing(base_ / "outside"), outside_before_) << "something outside was touched";
    return out;
  }

  /// Both refuse with `invalid`; `word` is in the message.
  void refuses(std::string_view what, std::string_view metadata, std::string_view word, std::optional<std::string_view> rootfs = {},
               Limits limits = {}) {
    SCOPED_TRACE(what);
    auto out = read(metadata, rootfs, limits);
    EXPECT_FALSE(out.inspected) << "inspect accepted it";
    EXPECT_FALSE(out.unpacked) << "unpack accepted it";
    if (!out.unpacked) {
      EXPECT_TRUE(out.unpacked.error().kind() == ErrorKind::invalid || out.unpacked.error().kind() == ErrorKind::unsupported)
          << out.unpacked.error().text();
      EXPECT_NE(out.unpacked.error().chain().find(word), std::string::npos) << out.unpacked.error().text();
    }
  }
  /// For what only unpacking can find.
  void unpack_refuses(std::string_view what, std::string_view metadata, std::string_view word) {
    SCOPED_TRACE(what);
    auto out = read(metadata);
    ASSERT_FALSE(out.unpacked) << "unpack accepted it";
    EXPECT_EQ(out.unpacked.error().kind(), ErrorKind::invalid);
    EXPECT_NE(out.unpacked.error().chain().find(word), std::string::npos) << out.unpacked.error().text();
  }

  static TarBuilder start() {
    TarBuilder tar;
    tar.file("metadata.yaml", metadata_yaml).directory("rootfs/");
    return tar;
  }

  /// Runs a tool of the host to prepare something.
  void tool(std::vector<std::string> argv) {
    io::ProcessSpec spec;
    spec.argv = argv;
    spec.cwd = (base_ / "work").string();
    auto r = run<Result<std::string>>([&] { return io::check_process(spec, {.timeout = Milliseconds(60'000)}); });
    ASSERT_TRUE(r) << r.error().text();
  }
  std::string packed(const std::string& bytes, std::vector<std::string> packer) {
    spill(base_ / "work/plain", bytes);
    packer.push_back("plain");
    io::ProcessSpec spec;
    spec.argv = packer;
    spec.cwd = (base_ / "work").string();
    auto r = run<Result<std::string>>(
        [&] { return io::check_process(spec, {.timeout = Milliseconds(60'000), .max_output = 64u << 20}); });
    EXPECT_TRUE(r) << r.error().text();
    return r.value_or("");
  }
  std::string qcow2(std::string size = "16M", std::vector<std::string> more = {}) {
    std::vector<std::string> argv{"qemu-img", "create", "-q", "-f", "qcow2"};
    argv.insert(argv.end(), more.begin(), more.end());
    argv.insert(argv.end(), {"disk.tmp", size});
    fs::remove(base_ / "work/disk.tmp");
    tool(argv);
    return slurp(base_ / "work/disk.tmp");
  }

  fs::path base_;
  std::unique_ptr<Reader> reader_;
  std::string outside_before_;
};

// ---------------------------------------------------------------------------------------------------------------- what is accepted

std::string good_container() {
  TarBuilder tar;
  tar.file("metadata.yaml",
           std::string(metadata_yaml) + "templates:\n  /etc/hostname:\n    when: [create]\n    template: hostname.tpl\n")
      .directory("rootfs", 0755)
      .directory("rootfs/bin/")
      .add({.name = "rootfs/bin/su", .data = "x", .mode = 04755, .uid = 0, .gid = 42})
      .hardlink("rootfs/bin/su2", "rootfs/bin/su")
      .symlink("rootfs/bin/up", "../../../../etc/passwd")
      .add({.name = "rootfs/var/lib/deep/file", .data = "d", .mode = 0600, .uid = 1000, .gid = 65534})
      .add({.name = "rootfs/fifo", .type = '6', .mode = 0620})
      .directory("templates")
      .file("templates/hostname.tpl", "{{ instance.name }}");
  return tar.str();
}

TEST_F(ImageTest, UnpacksUnifiedContainersInEveryPacking) {
  const auto plain = good_container();
  for (const auto& packer :
       std::vector<std::vector<std::string>>{{"cat"}, {"gzip", "-c"}, {"xz", "-c"}, {"bzip2", "-c"}, {"zstd", "-q", "-c"}}) {
    SCOPED_TRACE(packer[0]);
    auto out = read(packed(plain, packer));
    ASSERT_TRUE(out.inspected) << out.inspected.error().text();
    ASSERT_TRUE(out.unpacked) << out.unpacked.error().text();
    EXPECT_EQ(out.unpacked->type, Type::container);
    EXPECT_EQ(out.inspected->metadata.architecture, "x86_64");
    EXPECT_EQ(out.inspected->metadata.properties.at("release"), "12");
    EXPECT_EQ(out.unpacked->metadata.templates.at("/etc/hostname").template_file, "hostname.tpl");
    struct ::stat st{};
    ASSERT_EQ(::lstat((root() / "bin/su").c_str(), &st), 0);
    EXPECT_EQ(st.st_mode, S_IFREG | 04755u);
    EXPECT_EQ(st.st_gid, 42u);
    EXPECT_EQ(st.st_nlink, 2u);
    EXPECT_EQ(st.st_mtime, 1'700'000'000);
    EXPECT_EQ(fs::read_symlink(root() / "bin/up"), "../../../../etc/passwd");
    ASSERT_EQ(::lstat((root() / "var/lib/deep/file").c_str(), &st), 0);
    EXPECT_EQ(st.st_uid, 1000u);
    EXPECT_EQ(st.st_gid, 65534u);
    ASSERT_EQ(::lstat((root() / "fifo").c_str(), &st), 0);
    EXPECT_EQ(st.st_mode, S_IFIFO | 0620u);
    EXPECT_EQ(slurp(into() / "templates/hostname.tpl"), "{{ instance.name }}");
    EXPECT_TRUE(fs::exists(into() / "metadata.yaml"));
  }
}

TEST_F(ImageTest, UnpacksSplitContainers) {
  const auto meta = packed(TarBuilder().file("metadata.yaml", metadata_yaml).str(), {"xz", "-c"});
  const auto root_tar = TarBuilder()
                            .directory("./", 0751)
                            .directory("./etc")
                            .add({.name = "./etc/shadow", .data = "s", .mode = 0640, .gid = 42})
                            .str();
  auto check = [&](const Outcome& out) {
    ASSERT_TRUE(out.inspected) << out.inspected.error().text();
    ASSERT_TRUE(out.unpacked) << out.unpacked.error().text();
    EXPECT_EQ(out.unpacked->type, Type::container);
    struct ::stat st{};
    ASSERT_EQ(::lstat((root() / "etc/shadow").c_str(), &st), 0);
    EXPECT_EQ(st.st_mode, S_IFREG | 0640u);
    EXPECT_EQ(st.st_gid, 42u);
    ASSERT_EQ(::lstat(root().c_str(), &st), 0);
    EXPECT_EQ(st.st_mode, S_IFDIR | 0751u);
  };
  check(read(meta, packed(root_tar, {"gzip", "-c"})));
  fs::create_directories(base_ / "work/tree/etc");
  spill(base_ / "work/tree/etc/shadow", "s");
  ::chmod((base_ / "work/tree").c_str(), 0751);
  ::chmod((base_ / "work/tree/etc/shadow").c_str(), 0640);
  ASSERT_EQ(::chown((base_ / "work/tree/etc/shadow").c_str(), 0, 42), 0);
  for (const char* packer : {"gzip", "xz", "zstd"}) {
    SCOPED_TRACE(packer);
    tool({"mksquashfs", "tree", "sq", "-noappend", "-quiet", "-no-progress", "-comp", packer});
    check(read(meta, slurp(base_ / "work/sq")));
  }
}

TEST_F(ImageTest, UnpacksVirtualMachines) {
  const auto disk = qcow2();
  TarBuilder unified;
  unified.file("metadata.yaml", metadata_yaml)
      .directory("boot")
      .file("boot/kernel", "KERNEL")
      .file("boot/initrd", "INITRD")
      .file("boot/cmdline", "console=ttyS0 quiet\n")
      .file("rootfs.img", disk);
  auto check = [&](const Outcome& out) {
    ASSERT_TRUE(out.inspected) << out.inspected.error().text();
    ASSERT_TRUE(out.unpacked) << out.unpacked.error().text();
    EXPECT_EQ(out.inspected->type, Type::virtual_machine);
    EXPECT_EQ(out.unpacked->type, Type::virtual_machine);
    EXPECT_EQ(slurp(into() / "disk.qcow2").substr(0, 4), "QFI\xfb");
    EXPECT_FALSE(fs::exists(into() / "rootfs.img"));
    EXPECT_FALSE(fs::exists(root()));
  };
  check(read(packed(unified.str(), {"gzip", "-c"})));
  EXPECT_EQ(slurp(into() / "kernel"), "KERNEL");
  EXPECT_EQ(slurp(into() / "initrd"), "INITRD");
  EXPECT_EQ(slurp(into() / "cmdline"), "console=ttyS0 quiet");
  const auto meta = TarBuilder().file("metadata.yaml", metadata_yaml).str();
  for (const auto& options : std::vector<std::vector<std::string>>{
           {}, {"-o", "compat=0.10"}, {"-o", "cluster_size=2M"}, {"-o", "extended_l2=on,compression_type=zstd"}}) {
    SCOPED_TRACE(options.empty() ? "" : options[1]);
    check(read(meta, qcow2("16M", options)));
  }
}

TEST_F(ImageTest, ManyReadersAtOnceAndCancelling) {
  const auto path = (base_ / "work/meta").string();
  spill(path, good_container());
  boost::asio::io_context io;
  TaskGroup group(io.get_executor());
  int good = 0;
  auto one = [](Reader& reader, std::string file, int& count) -> Task<> {
    auto r = co_await reader.inspect(file, "");
    if (r) ++count;
  };
  for (int i = 0; i < 8; ++i) group.spawn("inspect", one(*reader_, path, good));
  const auto doomed = group.spawn("cancelled", one(*reader_, path, good));
  group.cancel(doomed);
  io.run();
  EXPECT_EQ(good, 8);
  EXPECT_EQ(group.failures(), 0);
}

// ---------------------------------------------------------------------------------------------------------------- S01 names

TEST_F(ImageTest, S01NamesNeverLeadOutside) {
  for (const auto& name : {"../x"s, "/x"s, "rootfs/../../x"s, "rootfs/a/../../../outside/canary"s, "rootfs/.."s, "rootfs/./x"s,
                           "rootfs//x"s, "/"s, "//"s, ".."s, "../"s, "rootfs/" + std::string(4096, 'a'),
                           "rootfs/" + std::string(256, 'a'), base_.string() + "/outside/canary", "./../x"s, "./"s + "/x"s})
    refuses(name.substr(0, 60), start().file(name, "evil").str(), "entry");
  refuses("empty", start().file("", "evil").str(), "");
  std::string deep = "rootfs";
  for (int i = 0; i < 600; ++i) deep += "/d";
  refuses("deep", start().directory(deep).str(), "deeper");
  refuses("pax path", start().pax({{"path", "rootfs/../../x"}}).file("rootfs/harmless", "evil").str(), "'..'");
  refuses("pax absolute", start().pax({{"path", "/tmp/x"}}).file("rootfs/harmless", "evil").str(), "absolute");
  refuses("metadata is absolute", TarBuilder().file("/metadata.yaml", metadata_yaml).str(), "absolute");
}

TEST_F(ImageTest, S01OddNamesAreKeptByteExact) {
  for (const auto& name : {"trailing "s, " leading"s, "new\nline"s, "\xff\xfe"s, "\xc3\xa9"s, "e\xcc\x81"s, "-rf"s, "$(id)"s,
                           "a\\b"s, "..."s, "..x"s, std::string(255, 'a'), "%2e%2e"s, "\x01"s}) {
    SCOPED_TRACE(name);
    auto out = read(start().file("rootfs/" + name, "kept").str());
    ASSERT_TRUE(out.unpacked) << out.unpacked.error().text();
    EXPECT_EQ(slurp(root() / name), "kept");
  }
  for (const auto& name : {"\xc3\xa9"s, "e\xcc\x81"s, "\xff\xfe"s, "\xe6\x97\xa5"s}) {
    SCOPED_TRACE("pax " + name);
    auto out = read(start().pax({{"path", "rootfs/" + name}}).file("rootfs/ascii", "kept").str());
    ASSERT_TRUE(out.unpacked) << out.unpacked.error().text();
    EXPECT_EQ(slurp(root() / name), "kept");
  }
}

// ---------------------------------------------------------------------------------------------------------------- S02 duplicates

TEST_F(ImageTest, S02TopNamesAreUniqueAndOfTheirKind) {
  const auto outside = (base_ / "outside").string();
  refuses("rootfs again as a symlink", start().symlink("rootfs", outside).file("rootfs/canary", "evil").str(), "twice");
  refuses("rootfs is a symlink",
          TarBuilder().file("metadata.yaml", metadata_yaml).symlink("rootfs", outside).file("rootfs/canary", "evil").str(),
          "directory");
  refuses("rootfs is a file", TarBuilder().file("metadata.yaml", metadata_yaml).file("rootfs", "x").str(), "directory");
  refuses("rootfs twice", start().directory("rootfs").str(), "twice");
  refuses("templates as a symlink", start().symlink("templates", outside).file("templates/canary", "evil").str(), "directory");
  refuses("templates again as a symlink", start().directory("templates").symlink("templates", outside).str(), "twice");
  refuses("template is a symlink", start().directory("templates").symlink("templates/x", outside + "/canary").str(), "plain files");
  refuses("template twice", start().file("templates/x", "1").file("templates/x", "2").str(), "twice");
  refuses("template below", start().file("templates/x/y", "1").str(), "plain files");
  refuses("metadata.yaml twice", start().file("metadata.yaml", metadata_yaml).str(), "twice");
  refuses("metadata.yaml is a symlink", TarBuilder().symlink("metadata.yaml", outside + "/canary").directory("rootfs").str(),
          "plain file");
  refuses("metadata.yaml is a directory", TarBuilder().directory("metadata.yaml").directory("rootfs").str(), "plain file");
  refuses("metadata.yaml is a hard link", TarBuilder().directory("rootfs").hardlink("metadata.yaml", "rootfs/x").str(),
          "plain file");
  refuses("exec-output twice", start().directory("exec-output").symlink("exec-output", outside).str(), "twice");
  refuses("backup.yaml twice", start().file("backup.yaml", "x").symlink("backup.yaml", outside).str(), "twice");
  refuses("kernel is a symlink", start().symlink("boot/kernel", outside + "/canary").str(), "plain files");
  refuses("kernel twice", start().file("boot/kernel", "a").file("boot/kernel", "b").str(), "twice");
  refuses("root of both kinds", start().file("rootfs.img", qcow2()).str(), "rootfs.img");
  refuses("two disks",
          TarBuilder().file("metadata.yaml", metadata_yaml).file("rootfs.img", qcow2()).file("rootfs.img", qcow2()).str(), "twice");
  refuses("root in the metadata of a split image", start().str(), "other file", TarBuilder().directory("./").str());
  refuses("no metadata", TarBuilder().directory("rootfs").str(), "metadata.yaml");
  refuses("no root", TarBuilder().file("metadata.yaml", metadata_yaml).str(), "rootfs");
  refuses("nothing", TarBuilder().str(), "metadata.yaml");
}

TEST_F(ImageTest, S02NamesInTheRootAppearOnce) {
  unpack_refuses("file twice", start().file("rootfs/a", "1").file("rootfs/a", "2").str(), "twice");
  unpack_refuses("file over directory", start().directory("rootfs/a").file("rootfs/a", "2").str(), "twice");
  unpack_refuses("directory over file", start().file("rootfs/a", "1").directory("rootfs/a").str(), "twice");
  refuses("file over symlink", start().symlink("rootfs/a", "/etc/passwd").file("rootfs/a", "2").str(), "twice");
  refuses("directory over symlink", start().symlink("rootfs/a", "/etc").directory("rootfs/a").str(), "twice");
  auto out = read(start().directory("rootfs/a", 0700).directory("rootfs/a", 0751).str());
  EXPECT_TRUE(out.unpacked) << "a directory that is said again is the same directory";
}

// ---------------------------------------------------------------------------------------------------------------- S03 links

TEST_F(ImageTest, S03LinksStayInside) {
  const auto outside = (base_ / "outside").string();
  refuses("through a symlink", start().symlink("rootfs/d", outside + "/etc").file("rootfs/d/passwd", "evil").str(),
          "symbolic link");
  refuses("through a relative symlink", start().symlink("rootfs/d", "../../../outside/etc").file("rootfs/d/passwd", "evil").str(),
          "symbolic link");
  refuses("through a symlink to inside", start().directory("rootfs/r").symlink("rootfs/d", "r").file("rootfs/d/f", "x").str(),
          "symbolic link");
  refuses("directory through a symlink", start().symlink("rootfs/d", outside).directory("rootfs/d/etc", 0777).str(),
          "symbolic link");
  refuses("symlink through a symlink", start().symlink("rootfs/d", outside).symlink("rootfs/d/x", "y").str(), "symbolic link");
  refuses("fifo through a symlink", start().symlink("rootfs/d", outside).add({.name = "rootfs/d/x", .type = '6'}).str(),
          "symbolic link");
  refuses("hard link through a symlink", start().symlink("rootfs/d", outside).hardlink("rootfs/h", "rootfs/d/canary").str(),
          "symbolic link");
  refuses("hard link to /etc/shadow", start().hardlink("rootfs/h", "/etc/shadow").str(), "absolute");
  refuses("hard link upwards", start().hardlink("rootfs/h", "rootfs/../../../outside/canary").str(), "'..'");
  refuses("hard link to metadata", start().hardlink("rootfs/h", "metadata.yaml").str(), "out of the root");
  refuses("hard link to a symlink",
          start().symlink("rootfs/s", outside + "/canary").hardlink("rootfs/h", "rootfs/s").file("rootfs/h", "evil").str(),
          "hard link");
  unpack_refuses("hard link to nothing", start().hardlink("rootfs/h", "rootfs/none").str(), "not there");
  unpack_refuses("hard link to a directory", start().directory("rootfs/d").hardlink("rootfs/h", "rootfs/d").str(), "not a file");
  unpack_refuses("hard link to itself", start().hardlink("rootfs/h", "rootfs/h").str(), "not there");
  refuses("symlink to nothing", start().symlink("rootfs/s", "").str(), "");
  const auto meta = TarBuilder().file("metadata.yaml", metadata_yaml).str();
  refuses("split, through a symlink", meta, "symbolic link", TarBuilder().symlink("./d", outside).file("./d/canary", "evil").str());
  refuses("split, root is a symlink", meta, "root must be", TarBuilder().symlink("./", outside).file("./canary", "evil").str());
}

// ---------------------------------------------------------------------------------------------------------------- S04 special
// files

TEST_F(ImageTest, S04DevicesAndSocketsAreRefused) {
  refuses("block device", start().add({.name = "rootfs/dev/sda", .type = '4', .major = 8}).str(), "device");
  refuses("kmem", start().add({.name = "rootfs/dev/mem", .type = '3', .major = 1, .minor = 1}).str(), "device");
  refuses("overlay whiteout", start().add({.name = "rootfs/etc/passwd", .type = '3'}).str(), "device");
  refuses("null elsewhere", start().add({.name = "rootfs/etc/null", .type = '3', .major = 1, .minor = 3}).str(), "device");
  refuses("a disk that says it is null", start().add({.name = "rootfs/dev/null", .type = '4', .major = 8}).str(), "device");
  refuses("null with other numbers", start().add({.name = "rootfs/dev/null", .type = '3', .major = 1, .minor = 1}).str(), "device");
  refuses("device at the top", start().add({.name = "null", .type = '3', .major = 1, .minor = 3}).str(), "device");
  auto out = read(start().directory("rootfs/dev").add({.name = "rootfs/dev/null", .type = '3', .major = 1, .minor = 3}).str());
  ASSERT_TRUE(out.unpacked) << "what debootstrap makes is left out";
  EXPECT_FALSE(fs::exists(root() / "dev/null"));
  fs::create_directories(base_ / "work/tree/dev");
  ASSERT_EQ(::mknod((base_ / "work/tree/dev/sda").c_str(), S_IFBLK | 0600, ::makedev(8, 0)), 0);
  tool({"mksquashfs", "tree", "sq", "-noappend", "-quiet", "-no-progress"});
  refuses("device in a squashfs", TarBuilder().file("metadata.yaml", metadata_yaml).str(), "device", slurp(base_ / "work/sq"));
}

TEST_F(ImageTest, S04OnlyHarmlessExtendedAttributesAreKept) {
  auto out = read(start()
                      .pax({{"SCHILY.xattr.trusted.overlay.opaque", "y"},
                            {"SCHILY.xattr.security.capability", "\x01\0\0\x02\0\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0"s},
                            {"SCHILY.xattr.user.overlay.redirect", "/etc"},
                            {"SCHILY.xattr.user.kept", "value"}})
                      .file("rootfs/f", "x")
                      .str());
  ASSERT_TRUE(out.unpacked) << out.unpacked.error().text();
  char names[512];
  const auto n = ::llistxattr((root() / "f").c_str(), names, sizeof names);
  ASSERT_GE(n, 0);
  EXPECT_TRUE(n == 0 || std::string(names, static_cast<std::size_t>(n)) == "user.kept\0"s)
      << std::string(names, static_cast<std::size_t>(n));
}

TEST_F(ImageTest, S04OwnersOutOfRange) {
  refuses("huge uid", start().add({.name = "rootfs/f", .data = "x", .uid = 0xffffffffull}).str(), "owner");
  refuses("uid beyond 32 bits", start().add({.name = "rootfs/f", .data = "x", .uid = 0x100000000ull}).str(), "owner");
  refuses("negative gid", start().add({.name = "rootfs/f", .data = "x", .gid = ~0ull}).str(), "");
}

// ---------------------------------------------------------------------------------------------------------------- S05 bombs

TEST_F(ImageTest, S05BombsStopAtTheCap) {
  Limits small;
  small.max_unpacked = 8u << 20;
  small.max_entries = 1000;
  const auto zeros = std::string(1u << 20, '\0');
  TarBuilder many_bytes = start();
  for (int i = 0; i < 64; ++i) many_bytes.file("rootfs/f" + std::to_string(i), zeros);
  for (const auto& packer : std::vector<std::vector<std::string>>{{"gzip", "-c"}, {"xz", "-c"}, {"zstd", "-q", "-c"}}) {
    auto out = read(packed(many_bytes.str(), packer), {}, small);
    ASSERT_FALSE(out.unpacked);
    EXPECT_NE(out.unpacked.error().chain().find("more than allowed"), std::string::npos) << out.unpacked.error().text();
  }
  TarBuilder many_files = start();
  for (int i = 0; i < 2000; ++i) many_files.file("rootfs/f" + std::to_string(i), "");
  auto out = read(many_files.str(), {}, small);
  ASSERT_FALSE(out.unpacked);
  EXPECT_NE(out.unpacked.error().chain().find("entries"), std::string::npos) << out.unpacked.error().text();
  refuses("8 EB", start().add({.name = "rootfs/huge", .claimed_size = 0x7fffffffffffffffull}).str(), "");
  refuses("1 TB", start().add({.name = "rootfs/huge", .claimed_size = 1ull << 40}).str(), "allowed");
  refuses("negative size", start().add({.name = "rootfs/huge", .claimed_size = ~0ull}).str(), "");
  refuses("sparse 8 EB",
          start()
              .pax({{"GNU.sparse.major", "1"},
                    {"GNU.sparse.minor", "0"},
                    {"GNU.sparse.realsize", "9223372036854775807"},
                    {"GNU.sparse.name", "rootfs/s"}})
              .file("rootfs/s", "0\n")
              .str(),
          "");
  refuses("packed twice", packed(packed(start().str(), {"gzip", "-c"}), {"gzip", "-c"}), "more than once");
}

std::uint32_t crc32(std::string_view data) {
  std::uint32_t crc = ~0u;
  for (char c : data) {
    crc ^= static_cast<unsigned char>(c);
    for (int i = 0; i < 8; ++i) crc = crc >> 1 ^ (crc & 1 ? 0xedb88320u : 0);
  }
  return ~crc;
}

TEST_F(ImageTest, S05XzDictionaryOf4GB) {
  if (sanitized) GTEST_SKIP() << "the address sanitizer cannot work below a limit of address space";
  auto bytes = packed(good_container(), {"xz", "-c"});
  // Block header behind the 12 bytes of the stream header: size, flags, filter id, size of properties, dictionary, ..., CRC.
  ASSERT_EQ(bytes[14], 0x21);
  bytes[16] = 40;  // 4 GiB - 1
  const auto length = static_cast<std::size_t>((static_cast<unsigned char>(bytes[12]) + 1) * 4);
  const auto crc = crc32(std::string_view(bytes).substr(12, length - 4));
  for (std::size_t i = 0; i < 4; ++i) bytes[12 + length - 4 + i] = static_cast<char>(crc >> (8 * i));
  refuses("dictionary", bytes, "");
}

TEST_F(ImageTest, S05LargeDictionariesOfOrdinaryPackersWork) {
  auto out = read(packed(good_container(), {"xz", "-9", "-c"}));
  EXPECT_TRUE(out.unpacked) << out.unpacked.error().text();
  auto z = read(packed(good_container(), {"zstd", "-q", "--ultra", "-19", "--long=27", "-c"}));
  EXPECT_TRUE(z.unpacked) << z.unpacked.error().text();
}

// ---------------------------------------------------------------------------------------------------------------- S06, S09
// metadata

TEST_F(ImageTest, S06MetadataIsBoundedAndStrict) {
  auto image = [](const std::string& yaml) { return TarBuilder().file("metadata.yaml", yaml).directory("rootfs").str(); };
  const std::string good = metadata_yaml;
  std::string anchors = good + "a: &a [x,x]\nb: &b [*a,*a]\n", depth = good + "x: " + std::string(100'000, '[');
  refuses("1 MiB", image(good + "x: " + std::string(1u << 20, 'y')), "larger");
  refuses("anchors", image(anchors), "anchors");
  refuses("depth", image(depth), "deeper");
  refuses("duplicate keys", image(good + "architecture: i686\n"), "twice");
  refuses("not a map", image("- a\n"), "map");
  refuses("empty", image(""), "architecture");
  refuses("no architecture", image("creation_date: 1\n"), "architecture");
  refuses("no date", image("architecture: x86_64\n"), "creation_date");
  refuses("NaN", image("architecture: x86_64\ncreation_date: .nan\n"), "creation_date");
  refuses("overflow", image("architecture: x86_64\ncreation_date: 9223372036854775808\n"), "creation_date");
  refuses("negative", image("architecture: x86_64\ncreation_date: -1\n"), "creation_date");
  refuses("float", image("architecture: x86_64\ncreation_date: 1e9\n"), "creation_date");
  refuses("wrong type of properties", image("architecture: x86_64\ncreation_date: 1\nproperties: [a]\n"), "properties");
  refuses("wrong type of a property", image("architecture: x86_64\ncreation_date: 1\nproperties: {a: {b: c}}\n"), "properties");
  refuses("wrong type of architecture", image("architecture: [x86_64]\ncreation_date: 1\n"), "architecture");
  refuses("wrong type of templates", image(good + "templates: [a]\n"), "templates");
  refuses("wrong type of a template", image(good + "templates: {/a: b}\n"), "template");
  refuses("control characters", image("architecture: x86_64\ncreation_date: 1\nproperties: {a: \"\\e[31m\"}\n"), "control");
  refuses("NUL", image("architecture: x86_64\ncreation_date: 1\nproperties: {a: \"\\0\"}\n"), "control");
  refuses("not UTF-8", image(good + "x: \xff\n"), "YAML");
  for (const char* name : {"../../x", "a/b", "/etc/passwd", "..", "", "\\n"})
    refuses(name, image(good + "templates: {/a: {template: \"" + name + "\"}}\n"), "template");
  refuses("missing template", image(good + "templates: {/a: {template: none.tpl}}\n"), "not in the image");
  auto out = read(image(good + "expiry_date:\nproperties2: null\ntemplates: {}\n"));
  EXPECT_TRUE(out.unpacked) << out.unpacked.error().text();
}

// ---------------------------------------------------------------------------------------------------------------- S07 damage

TEST_F(ImageTest, S07CutsAreRefused) {
  const auto plain = good_container();
  const auto whole = plain.size() - 1024;
  for (std::size_t cut = 0; cut <= whole; cut += 512) {
    SCOPED_TRACE(cut);
    auto out = read(std::string_view(plain).substr(0, cut));
    EXPECT_FALSE(out.inspected);
    EXPECT_FALSE(out.unpacked);
  }
  for (const auto& packer :
       std::vector<std::vector<std::string>>{{"gzip", "-c"}, {"xz", "-c"}, {"zstd", "-q", "-c"}, {"bzip2", "-c"}}) {
    const auto bytes = packed(plain, packer);
    for (std::size_t i = 0; i < 12; ++i) {
      SCOPED_TRACE(packer[0] + " " + std::to_string(i));
      auto out = read(std::string_view(bytes).substr(0, bytes.size() * i / 12));
      EXPECT_FALSE(out.unpacked);
    }
  }
}

TEST_F(ImageTest, S07FlippedBitsDoNoHarm) {
  const auto plain = good_container();
  unsigned seed = 1;
  auto next = [&seed] { return seed = seed * 1103515245 + 12345, (seed >> 8); };
  auto flip = [&](std::string bytes, int times, std::optional<std::string> meta) {
    for (int i = 0; i < times; ++i) {
      auto damaged = bytes;
      const auto at = next() % damaged.size();
      damaged[at] = static_cast<char>(damaged[at] ^ (1 << (next() % 8)));
      SCOPED_TRACE(at);
      if (meta)
        (void)read(*meta, damaged);
      else
        (void)read(damaged);
    }
  };
  flip(plain, 100, {});
  flip(packed(plain, {"gzip", "-c"}), 30, {});
  flip(packed(plain, {"xz", "-c"}), 30, {});
  flip(packed(plain, {"zstd", "-q", "-c"}), 30, {});
  const auto meta = TarBuilder().file("metadata.yaml", metadata_yaml).str();
  fs::create_directories(base_ / "work/tree/etc");
  spill(base_ / "work/tree/etc/shadow", "secret");
  tool({"mksquashfs", "tree", "sq", "-noappend", "-quiet", "-no-progress"});
  flip(slurp(base_ / "work/sq"), 60, meta);
  flip(qcow2("1M").substr(0, 512), 60, meta);
}

// ---------------------------------------------------------------------------------------------------------------- S13, S14 disks

std::string patched(std::string bytes, std::size_t at, std::string_view with) {
  bytes.replace(at, with.size(), with);
  return bytes;
}
std::string be32(std::uint32_t v) {
  std::string s(4, '\0');
  for (int i = 0; i < 4; ++i) s[static_cast<std::size_t>(i)] = static_cast<char>(v >> (24 - 8 * i));
  return s;
}
std::string be64(std::uint64_t v) {
  return be32(static_cast<std::uint32_t>(v >> 32)) + be32(static_cast<std::uint32_t>(v));
}

TEST_F(ImageTest, S13DisksThatNameOtherFiles) {
  const auto meta = TarBuilder().file("metadata.yaml", metadata_yaml).str();
  const auto canary = (base_ / "outside/canary").string();
  auto both = [&](std::string_view what, const std::string& disk, std::string_view word) {
    refuses(what, meta, word, disk);
    refuses(std::string(what) + ", unified", TarBuilder().file("metadata.yaml", metadata_yaml).file("rootfs.img", disk).str(),
            word);
  };
  spill(base_ / "work/raw", std::string(1u << 20, '\0'));
  for (const auto& backing :
       {canary, "/etc/shadow"s, "json:{\"driver\":\"file\",\"filename\":\"/etc/shadow\"}"s, "nbd://localhost/x"s})
    both("backing file " + backing, qcow2("1M", {"-u", "-F", "raw", "-b", backing}), "backing file");
  both("external data", qcow2("1M", {"-o", "data_file=ext.raw"}), "another file");
  tool({"rm", "-f", "luks.tmp"});
  tool({"qemu-img", "create", "-q", "--object", "secret,id=s,data=x", "-f", "qcow2", "-o",
        "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10", "luks.tmp", "1M"});
  both("luks inside", slurp(base_ / "work/luks.tmp"), "encrypted");
  for (const auto& format : {"vmdk"s, "vhdx"s, "vdi"s, "vpc"s, "qed"s}) {
    fs::remove(base_ / "work/other");
    tool({"qemu-img", "create", "-q", "-f", format, "other", "1M"});
    // As the disk of a unified image; a split root that is no qcow2 and no squashfs is read as a tarball and fails as that.
    refuses(format, TarBuilder().file("metadata.yaml", metadata_yaml).file("rootfs.img", slurp(base_ / "work/other")).str(), "not");
    refuses(format + " split", meta, "", slurp(base_ / "work/other"));
  }
  refuses("raw", TarBuilder().file("metadata.yaml", metadata_yaml).file("rootfs.img", std::string(1u << 20, '\0')).str(), "qcow2");
  refuses("empty disk", TarBuilder().file("metadata.yaml", metadata_yaml).file("rootfs.img", "").str(), "qcow2");
}

TEST_F(ImageTest, S14DisksWithAbsurdTables) {
  const auto meta = TarBuilder().file("metadata.yaml", metadata_yaml).str();
  const auto good = qcow2("16M");
  struct Case {
    const char* what;
    std::string disk;
    const char* word;
  };
  const Case cases[] = {
      {"virtual size 8 EB", patched(good, 24, be64(0x7fffffffffffffffull)), "too large"},
      {"virtual size 2^64-1", patched(good, 24, be64(~0ull)), "too large"},
      {"no size", patched(good, 24, be64(0)), "empty"},
      {"cluster bits 22", patched(good, 20, be32(22)), "clusters"},
      {"cluster bits 0", patched(good, 20, be32(0)), "clusters"},
      {"cluster bits 2^32-1", patched(good, 20, be32(~0u)), "clusters"},
      {"L1 of 2^32-1", patched(good, 36, be32(~0u)), "L1"},
      {"L1 of none", patched(good, 36, be32(0)), "L1"},
      {"L1 outside", patched(good, 40, be64(1ull << 40)), "L1"},
      {"L1 at the header", patched(good, 40, be64(0)), "L1"},
      {"L1 askew", patched(good, 40, be64(0x10001)), "L1"},
      {"L1 wraps", patched(good, 40, be64(0xffffffffffff0000ull)), "L1"},
      {"refcounts outside", patched(good, 48, be64(1ull << 50)), "reference"},
      {"refcounts of 2^32-1", patched(good, 56, be32(~0u)), "reference"},
      {"refcounts of none", patched(good, 56, be32(0)), "reference"},
      {"snapshots", patched(good, 60, be32(1)), "snapshots"},
      {"65536 snapshots", patched(patched(good, 60, be32(65536)), 64, be64(1ull << 40)), "snapshots"},
      {"snapshot table outside", patched(good, 64, be64(1ull << 40)), "snapshot"},
      {"version 1", patched(good, 4, be32(1)), "version"},
      {"version 4", patched(good, 4, be32(4)), "version"},
      {"unknown feature", patched(good, 72, be64(1ull << 40)), "features"},
      {"corrupt", patched(good, 72, be64(2)), "corrupt"},
      {"dirty", patched(good, 72, be64(1)), "cleanly"},
      {"crypt", patched(good, 32, be32(1)), "encrypted"},
      {"refcount order", patched(good, 96, be32(7)), "64 bits"},
      {"header length", patched(good, 100, be32(0xfffffff8)), "header"},
      {"extension beyond", patched(good, 116, be32(0xfffffff0)), ""},
      {"cut in the header", good.substr(0, 60), "header"},
      {"cut behind the header", good.substr(0, 4096), "outside"},
  };
  for (const auto& c : cases) refuses(c.what, meta, c.word, c.disk);
  // Tables that point at themselves pass the header's check; the converter ends with an error or a harmless disk, in bounded time.
  auto l1 = good;
  const auto l1_at = 3u * 65536u;
  if (l1.size() >= l1_at + 8) {
    l1.replace(l1_at, 8, be64(0x8000000000000000ull | l1_at));
    (void)read(meta, l1);
  }
}

}  // namespace
}  // namespace virga::image
