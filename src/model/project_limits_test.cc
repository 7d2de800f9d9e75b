#include "model/project_limits.h"

#include <gtest/gtest.h>

#include "model/project_keys.h"
#include "model/project_restrictions.h"

namespace virga {
namespace {

Instance guest(Config config, InstanceType type = InstanceType::container, std::string size = "1GiB") {
  Instance i;
  i.name = "db1";
  i.project = "lab";
  i.type = type;
  i.expanded_config = std::move(config);
  i.expanded_devices = {{"root", {{"type", "disk"}, {"path", "/"}, {"pool", "fast"}, {"size", std::move(size)}}}};
  return i;
}

Project lab(Config config) {
  Project p;
  p.name = "lab";
  p.config = std::move(config);
  return p;
}

TEST(ProjectLimits, AddUpWhatInstancesMayUse) {
  Amounts sum;
  add(sum, amounts_of(guest({{"limits.cpu", "2"}, {"limits.memory", "512MiB"}, {"limits.processes", "100"}})));
  add(sum, amounts_of(guest({{"limits.cpu", "1"}, {"limits.memory", "1GiB"}}, InstanceType::virtual_machine)));
  const Amounts expected{{"instances", 2},         {"containers", 1},  {"virtual-machines", 1}, {"cpu", 3},
                         {"memory", 1536LL << 20}, {"processes", 100}, {"disk", 2LL << 30},     {"disk.pool.fast", 2LL << 30}};
  EXPECT_EQ(sum, expected);
}

TEST(ProjectLimits, ASumOfGiantsStaysAGiant) {
  Amounts sum;
  for (int n = 0; n < 20; ++n) add(sum, amounts_of(guest({}, InstanceType::container, "1EiB")));
  EXPECT_EQ(sum["disk"], INT64_MAX);
}

TEST(ProjectLimits, SayWhatIsUsedAndAskedFor) {
  const auto project = lab({{"limits.memory", "1GiB"}, {"limits.disk.pool.fast", "3GiB"}});
  auto refused = check_limits(project, {{"memory", 512 << 20}}, {{"memory", 1536 << 20}});
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().kind(), ErrorKind::denied);
  EXPECT_EQ(refused.error().message(),
            "project 'lab' is limited to 1.00GiB by 'limits.memory': 512.00MiB in use, 1.00GiB more asked for");
  EXPECT_TRUE(check_limits(project, {}, {{"memory", 1LL << 30}})) << "all of it";
  EXPECT_TRUE(check_limits(project, {{"memory", 3LL << 30}}, {{"memory", 2LL << 30}})) << "what is above may shrink";
  EXPECT_FALSE(check_limits(project, {}, {{"disk.pool.fast", 4LL << 30}}));
  EXPECT_TRUE(check_limits(project, {}, {{"disk.pool.slow", 4LL << 30}}));
  EXPECT_FALSE(check_room(lab({}), project, {{"memory", 2LL << 30}}));
  EXPECT_TRUE(check_room(project, project, {{"memory", 2LL << 30}})) << "a limit that does not change";
}

TEST(ProjectLimits, WhatCannotBeCountedIsRefused) {
  auto field = [](const Config& limits, const Instance& i) {
    auto r = check_counted(lab(limits), i);
    return r ? std::string() : std::string(r.error().field());
  };
  EXPECT_EQ(field({{"limits.memory", "1GiB"}}, guest({})), "config.limits.memory");
  EXPECT_EQ(field({{"limits.memory", "1GiB"}}, guest({{"limits.memory", "50%"}})), "config.limits.memory");
  EXPECT_EQ(field({{"limits.cpu", "4"}}, guest({{"limits.cpu", "0-3"}})), "config.limits.cpu");
  EXPECT_EQ(field({{"limits.processes", "4"}}, guest({})), "config.limits.processes");
  EXPECT_EQ(field({{"limits.processes", "4"}}, guest({}, InstanceType::virtual_machine)), "") << "VMs have no such key";
  EXPECT_EQ(field({{"limits.disk", "4GiB"}}, guest({}, InstanceType::container, "")), "devices.root.size");
  EXPECT_EQ(field({{"limits.disk.pool.fast", "4GiB"}}, guest({}, InstanceType::container, "")), "devices.root.size");
  EXPECT_EQ(field({{"limits.disk.pool.slow", "4GiB"}}, guest({}, InstanceType::container, "")), "");
}

std::string refused(Config restrictions, Config config, Devices devices = {},
                    std::optional<InstanceType> type = InstanceType::container) {
  restrictions.try_emplace("restricted", "true");
  auto r = check_restrictions(lab(std::move(restrictions)), type, config, devices);
  if (!r) EXPECT_EQ(r.error().kind(), ErrorKind::denied);
  return r ? "" : std::string(r.error().field());
}

TEST(ProjectRestrictions, AreAnAllowList) {
  EXPECT_EQ(refused({{"restricted", "false"}}, {{"raw.lxc", "x"}}), "");
  EXPECT_EQ(refused({}, {{"limits.memory", "1GiB"}, {"user.x", "y"}, {"boot.autostart", "true"}, {"environment.A", "b"}}), "");
  for (const std::string key : {"raw.lxc", "raw.idmap", "raw.qemu", "linux.kernel_modules", "linux.sysctl.net.x",
                                "security.syscalls.allow", "limits.kernel.nofile", "something.that.comes.later"})
    EXPECT_EQ(refused({}, {{key, "x"}}), "config." + key);
  EXPECT_EQ(refused({{"restricted.containers.lowlevel", "allow"}}, {{"raw.lxc", "x"}}), "");
  EXPECT_EQ(refused({{"restricted.containers.lowlevel", "allow"}}, {{"raw.qemu", "x"}}, {}, InstanceType::virtual_machine),
            "config.raw.qemu");
  EXPECT_EQ(refused({}, {{"security.nesting", "true"}}), "config.security.nesting");
  EXPECT_EQ(refused({}, {{"security.nesting", "false"}}), "");
  EXPECT_EQ(refused({}, {{"security.nesting", "perhaps"}}), "config.security.nesting");
  EXPECT_EQ(refused({{"restricted.containers.nesting", "allow"}}, {{"security.nesting", "true"}}), "");
  EXPECT_EQ(refused({}, {{"security.privileged", "true"}}), "config.security.privileged");
  EXPECT_EQ(refused({{"restricted.containers.privilege", "isolated"}}, {{"security.privileged", "1"}}),
            "config.security.privileged");
  EXPECT_EQ(refused({}, {{"security.syscalls.intercept.mknod", "true"}}), "config.security.syscalls.intercept.mknod");
  EXPECT_EQ(refused({{"restricted.containers.interception", "allow"}}, {{"security.syscalls.intercept.mknod", "true"}}), "");
  EXPECT_EQ(refused({{"restricted.containers.interception", "allow"}}, {{"security.syscalls.intercept.mount", "true"}}),
            "config.security.syscalls.intercept.mount");
  // A profile may hold what each kind that has such a key may have.
  EXPECT_EQ(refused({}, {{"security.nesting", "true"}}, {}, std::nullopt), "config.security.nesting");
  EXPECT_EQ(refused({{"restricted.containers.nesting", "allow"}}, {{"security.nesting", "true"}}, {}, std::nullopt), "");
  EXPECT_EQ(refused({}, {{"raw.qemu", "x"}}, {}, std::nullopt), "config.raw.qemu");
}

TEST(ProjectRestrictions, LookAtDevices) {
  const Config root{{"type", "disk"}, {"path", "/"}, {"pool", "fast"}};
  auto with = [&](Config device) { return Devices{{"root", root}, {"d", std::move(device)}}; };
  EXPECT_EQ(refused({{"restricted.devices.disk", "block"}}, {}, {{"root", root}}), "");
  EXPECT_EQ(refused({{"restricted.storage-pools.access", "slow"}}, {}, {{"root", root}}), "devices.root.pool");
  EXPECT_EQ(refused({{"restricted.storage-pools.access", "slow, fast"}}, {}, {{"root", root}}), "");
  EXPECT_EQ(refused({}, {}, with({{"type", "disk"}, {"source", "/etc"}, {"path", "/mnt"}})), "devices.d.source");
  EXPECT_EQ(refused({}, {}, with({{"type", "disk"}, {"pool", "fast"}, {"source", "data"}, {"path", "/mnt"}})), "");
  EXPECT_EQ(refused({{"restricted.devices.disk", "block"}}, {}, with({{"type", "disk"}, {"pool", "fast"}, {"source", "data"}})),
            "devices.d");
  const Config allow{{"restricted.devices.disk", "allow"}, {"restricted.devices.disk.paths", "/srv/a,/home"}};
  auto source = [&](std::string path) {
    return refused(allow, {}, with({{"type", "disk"}, {"source", std::move(path)}, {"path", "/mnt"}}));
  };
  EXPECT_EQ(source("/srv/a"), "");
  EXPECT_EQ(source("/home/kim"), "");
  for (auto path : {"/srv", "/srv/ab", "/home/../etc", "/home/..", "home", "", "/"})
    EXPECT_EQ(source(path), "devices.d.source") << path;
  EXPECT_EQ(refused({}, {}, with({{"type", "nic"}, {"nictype", "macvlan"}, {"parent", "eth0"}})), "devices.d");
  EXPECT_EQ(refused({}, {}, with({{"type", "nic"}, {"network", "br0"}})), "");
  EXPECT_EQ(refused({{"restricted.devices.nic", "block"}}, {}, with({{"type", "nic"}, {"network", "br0"}})), "devices.d");
  EXPECT_EQ(refused({{"restricted.networks.access", "br1"}}, {}, with({{"type", "nic"}, {"network", "br0"}})), "devices.d.network");
  for (const std::string type : {"gpu", "pci", "usb", "proxy", "unix-char", "unix-block", "unix-hotplug", "infiniband", "novelty"})
    EXPECT_EQ(refused({}, {}, with({{"type", type}})), "devices.d") << type;
  EXPECT_EQ(refused({{"restricted.devices.gpu", "allow"}}, {}, with({{"type", "gpu"}})), "");
}

TEST(ProjectKeys, AreRefusedByName) {
  auto kind = [](std::string key, std::string value) {
    auto r = check_project_key(false, key, value);
    return r ? std::string() : std::string(to_string(r.error().kind()));
  };
  EXPECT_EQ(kind("limits.disk.pool.fast", "1GiB"), "");
  EXPECT_EQ(kind("limits.disk.pool.", "1GiB"), "invalid");
  EXPECT_EQ(kind("limits.disk.pool.a/b", "1GiB"), "invalid");
  EXPECT_EQ(kind("limits.memory", "much"), "invalid");
  EXPECT_EQ(kind("limits.instances", "-1"), "invalid");
  EXPECT_EQ(kind("limits.instances", "99999999999999999999"), "invalid");
  EXPECT_EQ(kind("restricted.devices.nic", "maybe"), "invalid");
  EXPECT_EQ(kind("restricted.devices.disk.paths", "/a/../b"), "invalid");
  EXPECT_EQ(kind("restricted.devices.disk.paths", "/srv/..data,/x"), "");
  EXPECT_EQ(kind("restricted.networks.access", "br0,br 1"), "invalid");
  EXPECT_EQ(kind("restricted.snapshots", "allow"), "");
  EXPECT_EQ(kind("restricted.backups", "allow"), "");
  EXPECT_EQ(kind("restricted.idmap.uid", "0"), "unsupported");
  EXPECT_EQ(kind("restricted.idmap.pid", "0"), "invalid");
  EXPECT_EQ(kind("images.remote_cache_expiry", "3"), "unsupported");
  EXPECT_EQ(kind("images.colour", "blue"), "invalid");
  EXPECT_EQ(kind("features.networks", "true"), "unsupported");
  EXPECT_EQ(kind("limits.memroy", "1GiB"), "invalid");
}

}  // namespace
}  // namespace virga
