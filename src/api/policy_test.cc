// Limits and restrictions of projects (S22, S31): whatever path leads to an instance, the merged object is held against them, and a
// refused change leaves nothing behind. A new path that makes or changes instances belongs into these tables.
#include "api/site_test.h"

namespace virga::api {
namespace {

using testing::Site;

struct Policy : Site {
  Policy() {
    make_world();
    // "lab" has profiles of its own and shares the images of the default project.
    EXPECT_EQ(change("POST", "/1.0/projects", R"({"name":"lab","config":{"features.images":"false"}})"), "");
    EXPECT_EQ(
        change("PUT", "/1.0/profiles/default?project=lab", R"({"devices":{"root":{"type":"disk","path":"/","pool":"default"}}})"),
        "");
    EXPECT_EQ(change("POST", "/1.0/profiles?project=lab", R"({"name":"extra"})"), "");
    EXPECT_EQ(make("a"), "");
  }
  std::string make(std::string name,
                   std::string more = R"(,"config":{"limits.memory":"256MiB","limits.cpu":"1","limits.processes":"10"})") {
    return change("POST", "/1.0/instances?project=lab",
                  fmt::format(R"({{"name":"{}","source":{{"type":"image","alias":"tiny"}}{}}})", name, more));
  }
  std::string limit(std::string config) {
    return change("PATCH", "/1.0/projects/lab", fmt::format(R"({{"config":{{{}}}}})", config));
  }
  std::string everything() {
    return json::serialize(get("/1.0/instances?project=lab&recursion=1").metadata()) +
           json::serialize(get("/1.0/profiles?project=lab&recursion=1").metadata()) +
           json::serialize(get("/1.0/projects/lab").metadata());
  }
};

struct Path {
  std::string method, target, body;
};

/// Every way to give instance "a", or a new one, a configuration.
std::vector<Path> paths(const std::string& key, const std::string& value) {
  const auto config =
      fmt::format(R"("config":{{"limits.memory":"256MiB","limits.cpu":"1","limits.processes":"10","{}":"{}"}})", key, value);
  const auto only = fmt::format(R"("config":{{"{}":"{}"}})", key, value);
  return {{"POST", "/1.0/instances?project=lab",
           fmt::format(R"({{"name":"b","source":{{"type":"image","alias":"tiny"}},{}}})", config)},
          {"PUT", "/1.0/instances/a?project=lab", fmt::format(R"({{"profiles":["default"],{}}})", config)},
          {"PATCH", "/1.0/instances/a?project=lab", fmt::format("{{{}}}", only)},
          {"PUT", "/1.0/profiles/default?project=lab",
           fmt::format(R"({{"devices":{{"root":{{"type":"disk","path":"/","pool":"default"}}}},{}}})", only)},
          {"PATCH", "/1.0/profiles/default?project=lab", fmt::format("{{{}}}", only)}};
}

TEST_F(Policy, RestrictedKeysAreRefusedOnEveryPath) {
  ASSERT_EQ(limit(R"("restricted":"true")"), "");
  const auto before = everything();
  for (const auto& p : paths("security.nesting", "true")) {
    const auto error = change(p.method, p.target, p.body);
    EXPECT_NE(error.find("restricted.containers.nesting"), std::string::npos) << p.method << " " << p.target << ": " << error;
    EXPECT_EQ(everything(), before) << p.method << " " << p.target;
  }
  // A new profile that nobody uses yet, and one that an instance would get.
  EXPECT_NE(change("POST", "/1.0/profiles?project=lab", R"({"name":"bad","config":{"security.nesting":"true"}})"), "");
  EXPECT_EQ(everything(), before);
  ASSERT_EQ(limit(R"("restricted.containers.nesting":"allow")"), "");
  for (const auto& p : paths("security.nesting", "true"))
    EXPECT_EQ(change(p.method, p.target, p.body), "") << p.method << " " << p.target;
  // And now the project itself cannot take the permission back.
  EXPECT_NE(limit(R"("restricted.containers.nesting":"block")").find("instance 'a'"), std::string::npos);
  EXPECT_NE(limit(R"("restricted.containers.nesting":"")"), "") << "nor by leaving it to the default";
}

TEST_F(Policy, AProfileOfAnotherProjectIsNoWayAround) {
  ASSERT_EQ(change("POST", "/1.0/projects",
                   R"({"name":"guests","config":{"features.images":"false","features.profiles":"false","restricted":"true"}})"),
            "");
  ASSERT_EQ(change("POST", "/1.0/profiles", R"({"name":"nest","config":{"security.nesting":"true"}})"), "");
  const auto with = [&](std::string profiles) {
    return change("POST", "/1.0/instances?project=guests",
                  fmt::format(R"({{"name":"g","profiles":[{}],"source":{{"type":"image","alias":"tiny"}}}})", profiles));
  };
  EXPECT_NE(with(R"("default","nest")").find("restricted.containers.nesting"), std::string::npos);
  EXPECT_EQ(with(R"("default")"), "");
  EXPECT_NE(change("PATCH", "/1.0/instances/g?project=guests", R"({"profiles":["default","nest"]})"), "");
  // An edit in the default project reaches the other's instance.
  EXPECT_NE(change("PATCH", "/1.0/profiles/default", R"({"config":{"security.nesting":"true"}})").find("in project 'guests'"),
            std::string::npos);
  EXPECT_EQ(get("/1.0/instances/g?project=guests").metadata().at("expanded_config").as_object().contains("security.nesting"),
            false);
}

TEST_F(Policy, ASnapshotIsNoWayAround) {
  const auto snapshots = "/1.0/instances/a/snapshots?project=lab";
  ASSERT_EQ(change("PATCH", "/1.0/instances/a?project=lab", R"({"config":{"security.nesting":"true"}})"), "");
  ASSERT_EQ(change("POST", snapshots, R"({"name":"nested"})"), "");
  ASSERT_EQ(change("PATCH", "/1.0/instances/a?project=lab", R"({"config":{"security.nesting":""}})"), "");
  ASSERT_EQ(limit(R"("restricted":"true")"), "");
  const auto before = everything();
  EXPECT_NE(change("POST", snapshots, R"({"name":"more"})").find("restricted.snapshots"), std::string::npos);
  EXPECT_NE(change("POST", "/1.0/instances/a/backups?project=lab", R"({"name":"b"})").find("restricted.backups"),
            std::string::npos);
  EXPECT_NE(change("PUT", "/1.0/instances/a?project=lab", R"({"restore":"nested"})").find("restricted.containers.nesting"),
            std::string::npos);
  EXPECT_EQ(everything(), before);
  EXPECT_EQ(get(snapshots).metadata().as_array().size(), 1u);
  ASSERT_EQ(limit(R"("restricted.snapshots":"allow","restricted.containers.nesting":"allow")"), "");
  EXPECT_EQ(change("POST", snapshots, R"({"name":"more"})"), "");
  EXPECT_EQ(change("PUT", "/1.0/instances/a?project=lab", R"({"restore":"nested"})"), "");
  EXPECT_EQ(get("/1.0/instances/a?project=lab").metadata().at("config").at("security.nesting").as_string(), "true");
  // Limits count what the snapshot asks for.
  ASSERT_EQ(change("PATCH", "/1.0/instances/a?project=lab", R"({"config":{"limits.memory":"64MiB"}})"), "");
  ASSERT_EQ(limit(R"("limits.memory":"128MiB")"), "");
  EXPECT_NE(change("PUT", "/1.0/instances/a?project=lab", R"({"restore":"nested"})").find("limits.memory"), std::string::npos);
}

TEST_F(Policy, LimitsHoldOnEveryPath) {
  ASSERT_EQ(limit(R"("limits.memory":"400MiB","limits.instances":"3")"), "");
  const auto before = everything();
  const auto all = paths("limits.memory", "512MiB");
  for (const auto& p : all) {
    // The instance's own memory wins over its profile's.
    if (p.target.starts_with("/1.0/profiles")) continue;
    const auto error = change(p.method, p.target, p.body);
    EXPECT_NE(error.find("'limits.memory'"), std::string::npos) << p.method << " " << p.target << ": " << error;
    EXPECT_EQ(everything(), before);
  }
  // One that gets its memory from the profile, and the profile's edit.
  ASSERT_EQ(change("PATCH", "/1.0/profiles/default?project=lab", R"({"config":{"limits.memory":"64MiB"}})"), "");
  ASSERT_EQ(make("b", ""), "");
  const auto with_b = everything();
  const auto error = change("PATCH", "/1.0/profiles/default?project=lab", R"({"config":{"limits.memory":"256MiB"}})");
  EXPECT_NE(error.find("project 'lab' is limited to 400.00MiB by 'limits.memory': 320.00MiB in use, 192.00MiB more asked for"),
            std::string::npos)
      << error;
  EXPECT_NE(change("PATCH", "/1.0/profiles/default?project=lab", R"({"config":{"limits.memory":""}})"), "")
      << "b could not be counted";
  EXPECT_EQ(everything(), with_b);
  // The number of instances, and what the project itself may be changed to.
  ASSERT_EQ(make("c", ""), "");
  EXPECT_NE(make("d", "").find("'limits.instances': 3 in use, 1 more asked for"), std::string::npos);
  EXPECT_NE(limit(R"("limits.instances":"2")"), "");
  EXPECT_NE(limit(R"("limits.memory":"100MiB")"), "");
  EXPECT_NE(limit(R"("limits.processes":"100")"), "") << "b has no such limit";
  EXPECT_EQ(limit(R"("limits.instances":"4")"), "");
}

TEST_F(Policy, AMoveEndsInTheProjectItGoesTo) {
  ASSERT_EQ(
      change(
          "POST", "/1.0/projects",
          R"({"name":"tight","config":{"features.images":"false","features.profiles":"false","limits.memory":"128MiB","restricted":"true"}})"),
      "");
  const auto move = [&](std::string body) { return change("POST", "/1.0/instances/a?project=lab", std::move(body)); };
  const auto before = everything();
  EXPECT_NE(move(R"({"name":"a","migration":true,"project":"tight"})").find("'limits.memory'"), std::string::npos);
  EXPECT_NE(move(R"({"name":"a","project":"tight","config":{"limits.memory":"64MiB","security.nesting":"true"}})")
                .find("restricted.containers.nesting"),
            std::string::npos);
  EXPECT_NE(move(R"({"name":"a","project":"nowhere"})"), "");
  EXPECT_NE(move(R"({"name":"a","project":"lab"})"), "") << "it is there";
  EXPECT_NE(move(R"({"name":"a","project":"tight","Profiles":["none"]})"), "");
  EXPECT_EQ(everything(), before);
  EXPECT_EQ(
      move(R"({"name":"b","migration":true,"project":"tight","Config":{"limits.memory":"64MiB"},"Devices":null,"Profiles":null})"),
      "");
  EXPECT_EQ(get("/1.0/instances/a?project=lab").status, 404);
  const auto moved = get("/1.0/instances/b?project=tight").metadata().as_object();
  EXPECT_EQ(moved.at("project").as_string(), "tight");
  EXPECT_EQ(moved.at("expanded_devices").at("eth0").at("network").as_string(), "br0") << "by the other project's profile";
  EXPECT_EQ(get("/1.0/projects/tight").metadata().at("used_by").as_array().size(), 1u);
  EXPECT_NE(change("DELETE", "/1.0/projects/tight"), "");
  EXPECT_EQ(change("PUT", "/1.0/instances/b/state?project=tight", R"({"action":"start"})"), "");
  EXPECT_NE(change("POST", "/1.0/instances/b?project=tight", R"({"name":"b","project":"lab"})").find("running"), std::string::npos);
  EXPECT_EQ(change("PUT", "/1.0/instances/b/state?project=tight", R"({"action":"stop","force":true})"), "");
  EXPECT_EQ(change("POST", "/1.0/instances/b?project=tight", R"({"name":"a","project":"lab"})"), "");
  EXPECT_EQ(change("DELETE", "/1.0/projects/tight"), "");
  EXPECT_EQ(change("DELETE", "/1.0/instances/a?project=lab"), "");
}

TEST_F(Policy, DisksHaveASizeThatIsCounted) {
  ASSERT_EQ(change("DELETE", "/1.0/instances/a?project=lab"), "");
  upload("vm image", {});
  ASSERT_EQ(change("POST", "/1.0/images/aliases", fmt::format(R"({{"name":"tinyvm","target":"{}"}})", sha256_hex("vm image"))), "");
  ASSERT_EQ(limit(R"("limits.disk":"3GiB","limits.disk.pool.default":"2GiB")"), "");
  const auto vm = [&](std::string name, std::string size) {
    return change("POST", "/1.0/instances?project=lab",
                  fmt::format(R"({{"name":"{}","type":"virtual-machine","source":{{"type":"image","alias":"tinyvm"}},
                              "devices":{{"root":{{"type":"disk","path":"/","pool":"default"{}}}}}}})",
                              name, size));
  };
  EXPECT_NE(vm("v", "").find("no 'root.size'"), std::string::npos);
  EXPECT_EQ(vm("v", R"(,"size":"1GiB")"), "");
  EXPECT_NE(vm("w", R"(,"size":"1500MiB")").find("'limits.disk.pool.default': 1.00GiB in use, 1.46GiB more"), std::string::npos);
  EXPECT_EQ(vm("w", R"(,"size":"1GiB")"), "");
  EXPECT_NE(limit(R"("limits.disk.pool.default":"1GiB")"), "");
  EXPECT_EQ(json::serialize(get("/1.0/projects/lab/state").metadata().at("resources").at("disk.default")),
            R"({"Limit":2147483648,"Usage":2147483648})");
}

TEST_F(Policy, ImagesAndNetworksCountToo) {
  ASSERT_EQ(change("PATCH", "/1.0/projects/lab", R"({"config":{"features.images":"false"}})"), "");
  ASSERT_EQ(change("POST", "/1.0/projects", R"({"name":"small","config":{"limits.disk":"100"}})"), "");
  auto upload_to = [&](std::string project, std::string bytes) {
    auto answer = call("POST", "/1.0/images?project=" + project, std::move(bytes), {{"Content-Type", "application/octet-stream"}});
    if (answer.status >= 400) return answer.error();  // what is too long already as it comes in
    return std::string(get(std::string(answer.body.at("operation").as_string()) + "/wait").metadata().at("err").as_string());
  };
  EXPECT_EQ(upload_to("small", std::string(60, 'x')), "");
  EXPECT_NE(upload_to("small", std::string(60, 'y')).find("'limits.disk': 60B in use, 60B more asked for"), std::string::npos);
  EXPECT_EQ(get("/1.0/images?project=small").metadata().as_array().size(), 1u);
  ASSERT_EQ(change("PATCH", "/1.0/projects/default", R"({"config":{"limits.networks":"1"}})"), "");
  EXPECT_NE(change("POST", "/1.0/networks", R"({"name":"br1"})").find("'limits.networks'"), std::string::npos);
  EXPECT_EQ(get("/1.0/networks").metadata().as_array().size(), 1u);
}

TEST_F(Policy, WhatAProjectMayNotUseItDoesNotSee) {
  EXPECT_EQ(get("/1.0/networks?project=lab").metadata().as_array().size(), 1u);
  ASSERT_EQ(limit(R"("restricted":"true","restricted.networks.access":"other","restricted.storage-pools.access":"default")"), "");
  EXPECT_EQ(get("/1.0/networks?project=lab").metadata().as_array().size(), 0u);
  for (const std::string part : {"", "/state", "/leases"}) {
    EXPECT_EQ(get("/1.0/networks/br0" + part + "?project=lab").status, 404) << part;
    EXPECT_EQ(get("/1.0/networks/br0" + part).status, 200) << part;
  }
  ASSERT_EQ(change("POST", "/1.0/storage-pools", R"({"name":"fast","driver":"dir"})"), "");
  EXPECT_EQ(get("/1.0/storage-pools?project=lab").metadata().as_array().size(), 1u);
  for (const std::string part : {"", "/resources", "/volumes"}) {
    EXPECT_EQ(get("/1.0/storage-pools/fast" + part + "?project=lab").status, 404) << part;
    EXPECT_EQ(get("/1.0/storage-pools/fast" + part).status, 200) << part;
  }
  EXPECT_NE(limit(R"("restricted.storage-pools.access":"other")"), "") << "an instance is there";
  EXPECT_NE(change("PATCH", "/1.0/instances/a?project=lab", R"({"devices":{"eth0":{"type":"nic","network":"br0"}}})"), "");
}

TEST_F(Policy, TwoAtTheSameTimeDoNotShareTheLastPlace) {
  ASSERT_EQ(limit(R"("limits.instances":"2")"), "");
  std::vector<std::string> operations;
  for (int n = 0; n < 4; ++n) {
    auto answer = call("POST", "/1.0/instances?project=lab",
                       fmt::format(R"({{"name":"n{}","source":{{"type":"image","alias":"tiny"}}}})", n));
    if (answer.status == 202) operations.emplace_back(answer.body.at("operation").as_string());
  }
  int made = 0;
  for (const auto& o : operations) made += get(o + "/wait").metadata().at("err").as_string().empty() ? 1 : 0;
  EXPECT_EQ(made, 1);
  EXPECT_EQ(get("/1.0/instances?project=lab").metadata().as_array().size(), 2u);
}

TEST_F(Policy, StateShowsLimitAndUse) {
  ASSERT_EQ(limit(R"("limits.memory":"1GiB","limits.cpu":"4")"), "");
  auto resources = get("/1.0/projects/lab/state").metadata().at("resources").as_object();
  auto amount = [&](const char* name) { return json::serialize(resources.at(name)); };
  EXPECT_EQ(amount("memory"), R"({"Limit":1073741824,"Usage":268435456})");
  EXPECT_EQ(amount("cpu"), R"({"Limit":4,"Usage":1})");
  EXPECT_EQ(amount("containers"), R"({"Limit":-1,"Usage":1})");
  EXPECT_EQ(amount("processes"), R"({"Limit":-1,"Usage":10})");
  EXPECT_EQ(resources.size(), 8u);
}

}  // namespace
}  // namespace virga::api
