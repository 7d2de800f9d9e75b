#include "drivers/compute/qemu/plan.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "drivers/compute/qemu/accelerator.h"
#include "drivers/compute/qemu/descriptors.h"
#include "drivers/compute/qemu/guest.h"

namespace virga::compute::qemu_driver {
namespace {

Host host() {
  return {"/usr/bin/qemu-system-x86_64", {7, 2, 22, "7.2.22"}, false, "/usr/share/qemu/qboot.rom", "/fw/CODE.fd", "/fw/SECURE.fd"};
}

GuestSpec direct_spec() {
  GuestSpec s;
  s.id = "6d2f5c0e-3b7e-4c53-9a3f-0d9f3b0a0001";
  s.project = "default";
  s.name = "v1";
  s.kind = Kind::virtual_machine;
  s.run_dir = "/run/v1";
  s.log_dir = "/log/v1";
  s.ids = {1'000'000, 1};
  s.cpus = 2;
  s.memory = Bytes(512) << 20;
  s.direct_boot = DirectBoot{"/images/a,b/vmlinuz", "/images/a,b/initrd", "console=ttyS0 x=\"a,b\""};
  s.disks.push_back({.device = "root", .path = "/pool/v1.qcow2", .backing = {"/pool/layer-1.qcow2", "/images/disk,fd=3.qcow2"}});
  s.disks.push_back({.device = "data, \"odd\" name", .path = "/pool/data.raw", .format = DiskFormat::raw, .readonly = true});
  s.nics.push_back({.device = "eth0", .guest_name = {}, .host_name = "vtap0", .mac = "00:16:3e:01:02:03", .mtu = 1400});
  return s;
}

GuestSpec firmware_spec(bool secure) {
  auto s = direct_spec();
  s.cpus.reset();
  s.memory.reset();
  s.direct_boot.reset();
  s.disks.resize(1);
  s.disks[0].backing.clear();
  s.nics.clear();
  s.firmware = FirmwareBoot{"/pool/v1.vars", secure};
  return s;
}

std::string show(const Plan& plan) {
  std::string text;
  for (const auto& a : plan.argv) text += a + "\n";
  for (const auto& p : plan.passed)
    text += fmt::format("fd {}: {} {}{}\n", p.number, static_cast<int>(p.what), p.name, p.writable ? " (writable)" : "");
  return text;
}

/// VIRGA_UPDATE_GOLDEN=1 writes the files anew; look at the difference before committing it.
void expect_golden(const std::string& name, const std::string& text) {
  const auto path = std::filesystem::path(VIRGA_SOURCE_DIR "/drivers/compute/qemu/testdata") / name;
  if (std::getenv("VIRGA_UPDATE_GOLDEN") != nullptr) std::ofstream(path) << text;
  std::ifstream file(path);
  std::stringstream expected;
  expected << file.rdbuf();
  EXPECT_EQ(text, expected.str()) << path;
}

TEST(Plan, MatchesTheGoldenFiles) {
  auto direct = make_plan(direct_spec(), host());
  ASSERT_TRUE(direct.has_value()) << direct.error().text();
  expect_golden("direct-tcg.txt", show(*direct));
  auto kvm = host();
  kvm.kvm = true;
  auto secure = make_plan(firmware_spec(true), kvm);
  ASSERT_TRUE(secure.has_value()) << secure.error().text();
  expect_golden("secure-kvm.txt", show(*secure));
}

TEST(Plan, NothingThatAUserNamesReachesACommaList) {
  auto plan = make_plan(direct_spec(), host());
  ASSERT_TRUE(plan.has_value());
  // Each of these options takes JSON, a list made of our own words, or one whole value.
  for (std::size_t i = 1; i < plan->argv.size(); ++i) {
    const auto& a = plan->argv[i];
    EXPECT_TRUE(a.starts_with("{") || a.find("odd") == std::string::npos) << a;
    EXPECT_EQ(a.find("/images"), std::string::npos) << "paths are descriptors: " << a;
    EXPECT_EQ(a.find("/pool"), std::string::npos) << a;
  }
}

TEST(Plan, RefusesWhatQemuWouldMisread) {
  auto with = [](auto change) {
    auto s = direct_spec();
    change(s);
    return make_plan(s, host());
  };
  EXPECT_FALSE(with([](auto& s) { s.name = "a,debug-threads=off"; }).has_value());
  EXPECT_FALSE(with([](auto& s) { s.name = ""; }).has_value());
  EXPECT_FALSE(with([](auto& s) { s.id = "../x"; }).has_value());
  EXPECT_FALSE(with([](auto& s) { s.kind = Kind::container; }).has_value());
  EXPECT_FALSE(with([](auto& s) { s.cpus = 0; }).has_value());
  EXPECT_FALSE(with([](auto& s) { s.memory = 1000; }).has_value());
  EXPECT_FALSE(with([](auto& s) { s.nics[0].mac = "00:16:3e:01:02:0g"; }).has_value());
  EXPECT_FALSE(with([](auto& s) { s.nics[0].mac = "00:16:3e:01:02:03,x=y"; }).has_value());
  EXPECT_FALSE(with([](auto& s) { s.disks[1].backing = {"/x"}; }).has_value()) << "raw has no backing";
  EXPECT_FALSE(with([](auto& s) { s.direct_boot.reset(); }).has_value());
  EXPECT_FALSE(with([](auto& s) { s.disks.resize(40, s.disks[0]); }).has_value());
  auto no_firmware = host();
  no_firmware.firmware.clear();
  EXPECT_EQ(make_plan(firmware_spec(false), no_firmware).error().kind(), ErrorKind::unsupported);
}

TEST(Accelerator, KvmOnlyWhereItTrulyWorks) {
  KvmFacts good{.open_error = 0, .usable = true, .processor = true, .mode = 0660, .owner = 0, .group = 106};
  EXPECT_TRUE(choose_accelerator(good).kvm);
  EXPECT_EQ(choose_accelerator(good).group, 106u);
  auto open_to_all = good;
  open_to_all.mode = 0666;
  EXPECT_FALSE(choose_accelerator(open_to_all).group.has_value());
  auto missing = good;
  missing.open_error = ENOENT;
  auto nested = good;
  nested.processor = false;
  auto broken = good;
  broken.usable = false;
  auto rootly = good;
  rootly.mode = 0600;
  for (const auto& f : {missing, nested, broken, rootly}) {
    auto a = choose_accelerator(f);
    EXPECT_FALSE(a.kvm);
    EXPECT_FALSE(a.reason.empty());
    EXPECT_FALSE(a.remedy.empty());
  }
  EXPECT_TRUE(has_virtualization_flag("processor : 0\nflags\t\t: fpu vme vmx sse\n"));
  EXPECT_TRUE(has_virtualization_flag("flags\t\t: svm\n"));
  EXPECT_FALSE(has_virtualization_flag("flags\t\t: fpu vmx_x xsvm\nvmx flags\t: vnmi\n"));
}

TEST(Version, ReadsAndRefusesOldOnes) {
  EXPECT_EQ(parse_version("QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18)\nCopyright").value().text, "7.2.22");
  EXPECT_EQ(parse_version("QEMU emulator version 10.0.2\n").value().major, 10);
  EXPECT_EQ(parse_version("QEMU emulator version 6.2.0").error().kind(), ErrorKind::unsupported);
  EXPECT_EQ(parse_version("something else").error().kind(), ErrorKind::invalid);
  EXPECT_EQ(parse_version("version x.y").error().kind(), ErrorKind::invalid);
}

std::string qcow2_head(unsigned version, bool backing, unsigned features) {
  std::string h("QFI\xfb", 4);
  h.resize(112);
  h[7] = static_cast<char>(version);
  h[15] = backing ? 104 : 0;
  h[79] = static_cast<char>(features);
  return h;
}

TEST(Qcow2Header, RefusesWhatLivesElsewhere) {
  EXPECT_TRUE(check_qcow2_header(qcow2_head(3, false, 0), false).has_value());
  EXPECT_TRUE(check_qcow2_header(qcow2_head(3, true, 1), true).has_value());
  EXPECT_FALSE(check_qcow2_header(qcow2_head(3, true, 0), false).has_value()) << "a backing file that nobody named";
  EXPECT_FALSE(check_qcow2_header(qcow2_head(3, false, 4), false).has_value()) << "an external data file";
  EXPECT_FALSE(check_qcow2_header(qcow2_head(9, false, 0), false).has_value());
  EXPECT_FALSE(check_qcow2_header("VMDK", false).has_value());
  EXPECT_FALSE(check_qcow2_header(qcow2_head(3, false, 0).substr(0, 70), false).has_value());
}

TEST(Remember, ComesBackTheSameAndSurvivesNonsense) {
  auto spec = direct_spec();
  boost::asio::io_context io;
  Guest guest(io.get_executor(), "x");
  ASSERT_TRUE(recall(guest, json::serialize(remember(spec))).has_value());
  EXPECT_EQ(guest.memory_mib, 512u);
  EXPECT_EQ(guest.cpus, 2u);
  ASSERT_EQ(guest.nics.size(), 1u);
  EXPECT_EQ(guest.nics[0].host_name, "vtap0");
  EXPECT_EQ(guest.nics[0].mtu, 1400u);
  for (auto text : {"", "[]", "{\"nics\": [1]}", "{\"memory_mib\": \"x\"}"}) EXPECT_FALSE(recall(guest, text).has_value()) << text;
}

}  // namespace
}  // namespace virga::compute::qemu_driver
