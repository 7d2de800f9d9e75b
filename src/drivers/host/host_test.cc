// On a made-up machine, and on this one.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "base/random.h"
#include "drivers/host/resources.h"

namespace virga::host {
namespace {

namespace fs = std::filesystem;

struct Machine : ::testing::Test {
  fs::path root = fs::temp_directory_path() / ("virga-host-" + random_hex(6));
  Host host{.roots = {.sys = root / "sys",
                      .proc = root / "proc",
                      .dev = root / "dev",
                      .share = root / "share",
                      .run = root / "run",
                      .top = root},
            .architecture = "x86_64",
            .kernel_version = "6.1"};
  ~Machine() override { fs::remove_all(root); }
  void file(const std::string& path, const std::string& content) {
    fs::create_directories((root / path).parent_path());
    std::ofstream(root / path) << content << "\n";
  }
  void link(const std::string& path, const std::string& target) {
    fs::create_directories((root / path).parent_path());
    fs::create_directories(root / target);
    fs::create_symlink(root / target, root / path);
  }
  static std::string show(const json::value& v) { return json::serialize(v); }
};

TEST_F(Machine, ProcessorsHaveSocketsCoresThreadsAndCaches) {
  file("sys/devices/system/cpu/present", "0-3");
  file("sys/devices/system/cpu/isolated", "3");
  std::string cpuinfo;
  for (int n = 0; n < 4; ++n) {
    const auto at = "sys/devices/system/cpu/cpu" + std::to_string(n);
    file(at + "/topology/physical_package_id", "0");
    file(at + "/topology/core_id", std::to_string(n / 2));
    file(at + "/topology/die_id", "0");
    if (n > 0) file(at + "/online", n == 2 ? "0" : "1");
    cpuinfo += "processor\t: " + std::to_string(n) +
               "\nvendor_id\t: GenuineIntel\nmodel name\t: Some CPU\ncpu MHz\t\t: 2400.5\nflags\t\t: fpu vmx\naddress sizes\t: 39 "
               "bits physical, 48 bits virtual\n\n";
  }
  file("proc/cpuinfo", cpuinfo);
  file("sys/devices/system/cpu/cpu0/cache/index0/level", "1");
  file("sys/devices/system/cpu/cpu0/cache/index0/type", "Data");
  file("sys/devices/system/cpu/cpu0/cache/index0/size", "32K");
  file("sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_min_freq", "800000");
  file("sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq", "3900000");
  file("sys/devices/system/node/node1/cpulist", "2-3");
  const auto out = cpu(host);
  EXPECT_EQ(out.at("total").to_number<int>(), 4);
  const auto& socket = out.at("sockets").at(0).as_object();
  EXPECT_EQ(show(socket.at("cache")), R"([{"level":1,"type":"Data","size":32768}])");
  EXPECT_EQ(show(socket.at("address_sizes")), R"({"physical_bits":39,"virtual_bits":48})");
  EXPECT_EQ(socket.at("frequency").to_number<int>(), 2400);
  EXPECT_EQ(socket.at("frequency_minimum").to_number<int>(), 800);
  EXPECT_EQ(socket.at("frequency_turbo").to_number<int>(), 3900);
  ASSERT_EQ(socket.at("cores").as_array().size(), 2u);
  EXPECT_EQ(
      show(socket.at("cores").at(1).at("threads")),
      R"([{"id":2,"numa_node":1,"thread":0,"online":false,"isolated":false},{"id":3,"numa_node":1,"thread":1,"online":true,"isolated":true}])");
  EXPECT_EQ(show(socket.at("cores").at(0).at("flags")), R"(["fpu","vmx"])");
}

TEST_F(Machine, MemoryCountsHugePagesOnEachNode) {
  file("proc/meminfo",
       "MemTotal:  1000 kB\nMemAvailable:  600 kB\nHugePages_Total:  4\nHugePages_Free:  1\nHugepagesize:  2048 kB");
  file("sys/devices/system/node/node0/meminfo",
       "Node 0 MemTotal:  1000 kB\nNode 0 MemUsed:  500 kB\nNode 0 HugePages_Total:  4\nNode 0 HugePages_Free:  1");
  EXPECT_EQ(show(memory(host)),
            R"({"total":1024000,"used":409600,"hugepages_size":2097152,"hugepages_total":8388608,"hugepages_used":6291456,)"
            R"("nodes":[{"numa_node":0,"total":1024000,"used":512000,"hugepages_total":8388608,"hugepages_used":6291456}]})");
}

TEST_F(Machine, DisksAndTheirPartitions) {
  const std::string disk = "sys/devices/pci0000:00/0000:00:1d.0/nvme/nvme0/nvme0n1";
  file(disk + "/dev", "259:0");
  file(disk + "/size", "2048");
  file(disk + "/queue/logical_block_size", "512");
  file(disk + "/queue/rotational", "0");
  file(disk + "/wwid", "eui.0001");
  file(disk + "/nvme0n1p1/partition", "1");
  file(disk + "/nvme0n1p1/dev", "259:1");
  file(disk + "/nvme0n1p1/size", "1024");
  link(disk + "/device", "sys/devices/pci0000:00/0000:00:1d.0/nvme/nvme0");
  file("sys/devices/pci0000:00/0000:00:1d.0/nvme/nvme0/model", "Fast Disk  ");
  file("sys/devices/pci0000:00/0000:00:1d.0/nvme/nvme0/serial", "S1");
  link("sys/class/block/nvme0n1", disk);
  link("sys/class/block/nvme0n1p1", disk + "/nvme0n1p1");
  file("sys/devices/virtual/block/loop0/dev", "7:0");
  link("sys/class/block/loop0", "sys/devices/virtual/block/loop0");
  fs::create_directories(root / "dev/disk/by-id");
  fs::create_symlink("../../nvme0n1", root / "dev/disk/by-id/nvme-Fast");
  const auto out = storage(host);
  ASSERT_EQ(out.at("total").to_number<int>(), 1);
  const auto& d = out.at("disks").at(0).as_object();
  EXPECT_EQ(d.at("type").as_string(), "nvme");
  EXPECT_EQ(d.at("size").to_number<int>(), 1 << 20);
  EXPECT_EQ(d.at("model").as_string(), "Fast Disk");
  EXPECT_EQ(d.at("wwn").as_string(), "eui.0001");
  EXPECT_EQ(d.at("pci_address").as_string(), "0000:00:1d.0");
  EXPECT_EQ(d.at("device_id").as_string(), "nvme-Fast");
  EXPECT_EQ(show(d.at("partitions")), R"([{"id":"nvme0n1p1","device":"259:1","partition":1,"read_only":false,"size":524288}])");
}

TEST_F(Machine, PciUsbAndGraphicsDevicesHaveNames) {
  const std::string card = "sys/devices/pci0000:00/0000:00:02.0";
  file(card + "/vendor", "0x8086");
  file(card + "/device", "0x3e92");
  file(card + "/class", "0x030000");
  file(card + "/numa_node", "-1");
  link(card + "/driver", "sys/bus/pci/drivers/i915");
  link(card + "/iommu_group", "sys/kernel/iommu_groups/7");
  link("sys/bus/pci/devices/0000:00:02.0", card);
  file(card + "/drm/card0/dev", "226:0");
  link(card + "/drm/card0/device", card);
  link("sys/class/drm/card0", card + "/drm/card0");
  file(card + "/mdev_supported_types/i915-GVTg_V5_4/available_instances", "1");
  file("share/misc/pci.ids",
       "# list\n8086  Intel Corporation\n\t1533  I210\n\t3e92  UHD Graphics 630\n\t\t1028 1234  Sub\n8087  Other");
  const auto devices = pci(host);
  EXPECT_EQ(
      show(devices.at("devices").at(0)),
      R"({"pci_address":"0000:00:02.0","vendor_id":"8086","vendor":"Intel Corporation","product_id":"3e92","product":"UHD Graphics 630",)"
      R"("numa_node":0,"iommu_group":7,"vpd":{},"driver":"i915","driver_version":"6.1"})");
  const auto cards = gpu(host);
  ASSERT_EQ(cards.at("total").to_number<int>(), 1);
  EXPECT_EQ(show(cards.at("cards").at(0).at("drm")), R"({"id":0,"card_name":"card0","card_device":"226:0"})");
  EXPECT_EQ(cards.at("cards").at(0).at("mdev").at("i915-GVTg_V5_4").at("available").to_number<int>(), 1);

  const std::string stick = "sys/devices/pci0000:00/0000:00:14.0/usb1/1-2";
  for (const auto& [name, value] : {std::pair{"busnum", "1"},
                                    {"devnum", "5"},
                                    {"idVendor", "1d6b"},
                                    {"idProduct", "0104"},
                                    {"bDeviceClass", "00"},
                                    {"manufacturer", "ACME"},
                                    {"product", "Stick"},
                                    {"serial", "42"},
                                    {"speed", "480"},
                                    {"1-2:1.0/bInterfaceNumber", "00"},
                                    {"1-2:1.0/bInterfaceClass", "08"},
                                    {"1-2:1.0/bInterfaceSubClass", "06"}})
    file(stick + "/" + name, value);
  link(stick + "/1-2:1.0/driver", "sys/bus/usb/drivers/usb-storage");
  link("sys/bus/usb/devices/1-2", stick);
  const auto sticks = usb(host);
  ASSERT_EQ(sticks.at("total").to_number<int>(), 1);
  EXPECT_EQ(sticks.at("devices").at(0).at("vendor").as_string(), "ACME");
  EXPECT_EQ(sticks.at("devices").at(0).at("interfaces").at(0).at("class").as_string(), "Mass Storage");
  EXPECT_EQ(usb_address(real_path(root / (stick + "/1-2:1.0"))), "1:5");
}

TEST_F(Machine, VirtualFunctionsArePartOfTheirCard) {
  for (int n = 0; n < 3; ++n) {
    const auto at = "sys/devices/pci0000:00/0000:00:05." + std::to_string(n);
    file(at + "/class", "0x020000");
    file(at + "/vendor", "0x8086");
    file(at + "/device", n == 0 ? "0x1572" : "0x154c");
    if (n == 0) file(at + "/sriov_totalvfs", "64");
    if (n == 0) file(at + "/sriov_numvfs", "2");
    if (n > 0) link(at + "/physfn", "sys/devices/pci0000:00/0000:00:05.0");
    link("sys/bus/pci/devices/0000:00:05." + std::to_string(n), at);
  }
  const auto out = network(host);
  ASSERT_EQ(out.at("total").to_number<int>(), 1) << show(out);
  const auto& sriov = out.at("cards").at(0).at("sriov");
  EXPECT_EQ(sriov.at("maximum_vfs").to_number<int>(), 64);
  EXPECT_EQ(sriov.at("vfs").at(1).at("pci_address").as_string(), "0000:00:05.2");
}

TEST_F(Machine, WhatHardwareSaysIsTextAndNoMore) {
  file("sys/class/dmi/id/sys_vendor", "Evil \xff\x1b[31mVendor");
  file("sys/class/dmi/id/chassis_type", "10");
  file("proc/cpuinfo", "flags : fpu hypervisor");
  const auto out = machine(host);
  EXPECT_EQ(out.at("vendor").as_string(), "Evil ??[31mVendor");
  EXPECT_EQ(out.at("chassis").at("type").as_string(), "Notebook");
  EXPECT_EQ(out.at("type").as_string(), "virtual-machine");
  // Vital product data that claims more than there is.
  file("sys/bus/pci/devices/0000:00:09.0/vpd", std::string("\x82\x05\x00Hello\x90\xff\xff", 11));
  EXPECT_EQ(show(pci(host).at("devices").at(0).at("vpd")), R"({"product_name":"Hello"})");
}

TEST(ThisHost, AnswersInFull) {
  const auto out = resources({.roots = {}, .architecture = "x86_64", .kernel_version = "x"});
  EXPECT_GT(out.at("cpu").at("total").to_number<int>(), 0);
  EXPECT_GT(out.at("memory").at("total").to_number<std::uint64_t>(), out.at("memory").at("used").to_number<std::uint64_t>());
  EXPECT_GT(out.at("load").at("Processes").to_number<int>(), 0);
  EXPECT_TRUE(parse_json(json::serialize(out)));
}

}  // namespace
}  // namespace virga::host
