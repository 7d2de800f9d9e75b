// From words to requests, and from instances to cells.
#include <gtest/gtest.h>

#include "apps/virga/instances/columns.h"
#include "apps/virga/instances/filter.h"
#include "apps/virga/instances/request.h"
#include "apps/virga/run.h"

namespace virga::cli {
namespace {

Args arguments(std::vector<std::string> words) {
  static const Command root = root_command();
  auto parsed = parse(root, words);
  EXPECT_TRUE(parsed) << parsed.error().text();
  return parsed->args;
}

json::object object(const char* text) {
  return *parse_json_object(text);
}

TEST(Launch, FlagsBecomeARequest) {
  auto args = arguments({"launch", "tiny", "v1", "--vm", "-c", "limits.cpu=2", "-c", "user.a=b=c", "-d", "root,size=2GiB", "-p",
                         "a", "-p", "b", "-n", "virgabr0", "-s", "pool"});
  auto request = instance_request(args, {}, "v1");
  ASSERT_TRUE(request);
  ASSERT_TRUE(needs_profile_devices(args));
  ASSERT_TRUE(
      apply_device_flags(*request, args, object(R"({"root":{"type":"disk","path":"/","pool":"default","io.bus":"nvme"}})")));
  EXPECT_EQ(json::value(*request), json::value(object(R"({
    "name": "v1", "type": "virtual-machine", "profiles": ["a", "b"],
    "config": {"limits.cpu": "2", "user.a": "b=c"},
    "devices": {"eth0": {"name": "eth0", "network": "virgabr0", "type": "nic"},
                "root": {"type": "disk", "path": "/", "pool": "pool", "io.bus": "nvme", "size": "2GiB"}}})")));
}

TEST(Launch, WithoutFlagsOnlyTheTypeIsSaid) {
  auto request = instance_request(arguments({"create", "tiny"}), {}, "");
  EXPECT_EQ(json::value(*request), json::value(object(R"({"devices":{},"config":{},"type":"container"})")));
  EXPECT_EQ(json::value((*instance_request(arguments({"create", "tiny", "--no-profiles", "-e"}), {}, ""))["profiles"]),
            json::value(json::array()));
}

TEST(Launch, FlagsGoOverTheDocument) {
  auto request = instance_request(arguments({"create", "tiny", "c1", "-c", "a=2"}),
                                  object(R"({"type":"virtual-machine","config":{"a":"1","b":"1"},"profiles":["x"]})"), "c1");
  EXPECT_EQ(json::serialize((*request)["config"]), R"({"a":"2","b":"1"})");
  EXPECT_EQ((*request)["type"], "virtual-machine");
  EXPECT_EQ(json::serialize((*request)["profiles"]), R"(["x"])");
}

TEST(Launch, MalformedFlagsAreRefused) {
  EXPECT_EQ(instance_request(arguments({"create", "tiny", "-c", "limits.cpu"}), {}, "").error().message(),
            "Bad key=value pair: \"limits.cpu\"");
  for (auto bad : {"root", ",a=b", "root,", "root,=x", "root=a,b"}) {
    json::object request;
    EXPECT_FALSE(apply_device_flags(request, arguments({"create", "tiny", "-d", bad}), {})) << bad;
  }
}

TEST(Launch, StorageWithoutARootInTheProfilesMakesOne) {
  json::object request;
  ASSERT_TRUE(apply_device_flags(request, arguments({"create", "tiny", "-s", "p"}), {}));
  EXPECT_EQ(json::serialize(request), R"({"devices":{"root":{"type":"disk","path":"/","pool":"p"}}})");
}

TEST(Launch, EnvironmentFiles) {
  auto environment = parse_environment_file("# no\n\nA=b\nC=d=e\n");
  EXPECT_EQ(json::serialize(*environment), R"({"environment.A":"b","environment.C":"d=e"})");
  EXPECT_FALSE(parse_environment_file("nothing"));
}

const char* running = R"({"name":"c1","status":"Running","status_code":103,"type":"container","ephemeral":true,"profiles":["a","b"],
  "config":{"volatile.base_image":"ba2a49d8b16462ae2668"},
  "expanded_config":{"limits.memory":"64MB","user.blah":"abc","image.os":"busybox"},
  "expanded_devices":{"root":{"type":"disk","path":"/","pool":"fast"},"eth0":{"type":"nic","network":"br"}},
  "snapshots":[{},{}],
  "state":{"pid":7,"processes":3,"cpu":{"usage":5900000000},"memory":{"usage":757760},"disk":{"root":{"usage":1048576}},
    "network":{"lo":{"type":"loopback","addresses":[{"family":"inet","address":"127.0.0.1","scope":"local"}]},
               "eth0":{"type":"broadcast","addresses":[{"family":"inet","address":"10.0.0.5","scope":"global"},
                                                       {"family":"inet","address":"10.0.0.9","scope":"global"},
                                                       {"family":"inet6","address":"fe80::1","scope":"link"}]}}}})";

std::string cell(const char* spec, const json::object& instance) {
  auto columns = instance_columns(spec);
  EXPECT_TRUE(columns) << spec;
  return columns->at(0).cell(instance);
}

TEST(Columns, ShowTheInstance) {
  auto o = object(running);
  EXPECT_EQ(cell("4", o), "10.0.0.9 (eth0)\n10.0.0.5 (eth0)");
  EXPECT_EQ(cell("6", o), "");
  EXPECT_EQ(cell("b", o), "fast");
  EXPECT_EQ(cell("s", o), "RUNNING");
  EXPECT_EQ(cell("t", o), "CONTAINER (EPHEMERAL)");
  EXPECT_EQ(cell("P", o), "a\nb");
  EXPECT_EQ(cell("S", o), "2");
  EXPECT_EQ(cell("N", o), "3");
  EXPECT_EQ(cell("p", o), "7");
  EXPECT_EQ(cell("u", o), "5s");
  EXPECT_EQ(cell("m", o), "740.00KiB");
  EXPECT_EQ(cell("M", o), "1.2%");
  EXPECT_EQ(cell("D", o), "1.00MiB");
  EXPECT_EQ(cell("f", o), "ba2a49d8b164");
  EXPECT_EQ(cell("image.os", o), "busybox");
  EXPECT_EQ(cell("devices:eth0.network:NET:1", o), "b");
}

TEST(Columns, OddAnswersAreEmptyCells) {
  auto o = object(R"({"name":7,"status":"Running","state":[],"profiles":"x","expanded_config":null})");
  for (auto spec : {"n", "4", "b", "c", "m", "M", "D", "f", "image.os", "P"}) EXPECT_EQ(cell(spec, o), "") << spec;
}

TEST(Columns, SpecsAreChecked) {
  EXPECT_EQ(instance_columns("ns,user.x:COMMENT:0")->back().header, "COMMENT");
  for (auto bad : {"n,,s", "Z", "a:b:c:d", "devices:root", "user.x:Y:z", ""}) EXPECT_FALSE(instance_columns(bad)) << bad;
  EXPECT_TRUE(needs_state("n4"));
  EXPECT_FALSE(needs_state("nsacPt,user.46"));
}

TEST(Filters, NamesPairsAndShorthands) {
  auto o = object(running);
  for (auto yes : {"c", "c1", ".*1$", "type=container", "status=running,stopped", "user.blah=abc", "u.blah=a.*", "ipv4=10.0.0.0/8",
                   "ipv4=10.0.0.9"})
    EXPECT_TRUE(matches_filters(o, {yes})) << yes;
  for (auto no : {"1", "d.*", "type=virtual-machine", "user.blah=ab", "ipv4=10.1.0.0/16", "ipv6=fd00::/8", "ipv4=x/99", "user=abc"})
    EXPECT_FALSE(matches_filters(o, {no})) << no;
  EXPECT_FALSE(matches_filters(o, {"c1", "status=stopped"}));
  EXPECT_FALSE(matches_filters(o, {"(unbalanced"}));
}

TEST(Filters, Addresses) {
  EXPECT_TRUE(address_matches("fd42::5", "fd42::/16"));
  EXPECT_TRUE(address_matches("10.1.2.3", "0.0.0.0/0"));
  for (auto bad : {"10.1.2.3/33", "10.1.2/8", "", "/", "10.1.2.3/-1"}) EXPECT_FALSE(address_matches("10.1.2.3", bad)) << bad;
}

}  // namespace
}  // namespace virga::cli
