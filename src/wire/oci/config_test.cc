// The documents a runtime reads, held against the specification's field names.
#include "wire/oci/config.h"

#include <gtest/gtest.h>

namespace virga::oci {
namespace {

Config small() {
  Config c;
  c.process.args = {"/sbin/init"};
  c.process.env = {"PATH=/bin"};
  c.rootfs = "/pool/web/rootfs";
  c.hostname = "web";
  c.namespaces = {"pid", "user"};
  c.ids = {{0, 1000000, 65536}};
  c.cgroups_path = "/virga/t/web";
  return c;
}

TEST(OciConfig, IsExactly) {
  auto c = small();
  c.process.terminal = true;
  c.process.capabilities = {"CAP_CHOWN"};
  c.process.rlimits = {{"RLIMIT_NOFILE", 1024, 4096}};
  c.mounts = {{"/proc", "proc", "proc", {"nosuid"}}};
  c.resources = {.memory = 1024, .memory_swap = 2048, .cpu_quota_us = 150000, .processes = 9};
  c.seccomp = {{{"bpf", "kexec_load"}, 38}};
  c.seccomp_architectures = {"SCMP_ARCH_X86_64"};
  c.masked_paths = {"/proc/kcore"};
  c.readonly_paths = {"/proc/bus"};
  c.annotations = {{"virga.name", "web"}};
  auto expected = parse_json(R"({"ociVersion":"1.0.2",
    "process":{"terminal":true,"user":{"uid":0,"gid":0},"args":["/sbin/init"],"env":["PATH=/bin"],"cwd":"/","noNewPrivileges":false,
      "capabilities":{"bounding":["CAP_CHOWN"],"effective":["CAP_CHOWN"],"permitted":["CAP_CHOWN"],"inheritable":[],"ambient":[]},
      "consoleSize":{"height":24,"width":80},"rlimits":[{"type":"RLIMIT_NOFILE","soft":1024,"hard":4096}]},
    "root":{"path":"/pool/web/rootfs","readonly":false},"hostname":"web",
    "mounts":[{"destination":"/proc","type":"proc","source":"proc","options":["nosuid"]}],
    "linux":{"namespaces":[{"type":"pid"},{"type":"user"}],
      "uidMappings":[{"containerID":0,"hostID":1000000,"size":65536}],"gidMappings":[{"containerID":0,"hostID":1000000,"size":65536}],
      "cgroupsPath":"/virga/t/web",
      "resources":{"devices":[{"allow":false,"access":"rwm"}],"memory":{"limit":1024,"swap":2048},"cpu":{"quota":150000,"period":100000},"pids":{"limit":9}},
      "maskedPaths":["/proc/kcore"],"readonlyPaths":["/proc/bus"],
      "seccomp":{"defaultAction":"SCMP_ACT_ALLOW","architectures":["SCMP_ARCH_X86_64"],
        "syscalls":[{"names":["bpf","kexec_load"],"action":"SCMP_ACT_ERRNO","errnoRet":38}]}},
    "annotations":{"virga.name":"web"}})");
  ASSERT_TRUE(expected);
  auto made = to_json(c);
  ASSERT_TRUE(made) << made.error().text();
  // Through text and back, as the runtime does it: signedness is the parser's there.
  EXPECT_EQ(json::serialize(json::parse(json::serialize(*made))), json::serialize(*expected));
}

TEST(OciConfig, RefusesWhatARuntimeWouldMisread) {
  auto refused = [](auto change) {
    auto c = small();
    change(c);
    auto made = to_json(c);
    EXPECT_FALSE(made);
    return !made && made.error().kind() == ErrorKind::invalid;
  };
  using namespace std::string_literals;
  EXPECT_TRUE(refused([](Config& c) { c.process.args.clear(); }));
  EXPECT_TRUE(refused([](Config& c) { c.process.args = {""}; }));
  EXPECT_TRUE(refused([](Config& c) { c.process.args = {"a", "b\0c"s}; }));
  EXPECT_TRUE(refused([](Config& c) { c.process.env = {"=x"}; }));
  EXPECT_TRUE(refused([](Config& c) { c.process.env = {"x"}; }));
  EXPECT_TRUE(refused([](Config& c) { c.process.cwd = "tmp"; }));
  EXPECT_TRUE(refused([](Config& c) { c.hostname = "a\0b"s; }));
}

TEST(OciConfig, StringsStayOneDatum) {
  auto c = small();
  c.process.args = {"sh", "-c", "echo \"$(id)\"; \n\r\t%s {} \\", "-rf", "\xc3\xa9"};
  c.process.env = {"A=b=c\n", "E="};
  auto text = json::serialize(*to_json(c));
  auto back = parse_json_object(text);
  ASSERT_TRUE(back) << back.error().text();
  const auto& args = back->at("process").at("args").as_array();
  ASSERT_EQ(args.size(), 5u);
  for (std::size_t i = 0; i < 5; ++i) EXPECT_EQ(std::string(args[i].as_string()), c.process.args[i]);
}

TEST(OciProcess, GroupsAreWrittenWhereGiven) {
  Process p;
  p.args = {"id"};
  p.uid = 1000;
  p.gid = 100;
  EXPECT_EQ(json::serialize(to_json(p)->at("user")), R"({"uid":1000,"gid":100})");
  p.additional_gids = {4, 27};
  EXPECT_EQ(json::serialize(to_json(p)->at("user")), R"({"uid":1000,"gid":100,"additionalGids":[4,27]})");
}

}  // namespace
}  // namespace virga::oci
