// The nouns, from end to end: instances, their commands, images, operations and events.
#include <filesystem>
#include <fstream>
#include <set>

#include "api/server/extensions.h"
#include "api/site_test.h"

namespace virga::api {
namespace {

using http::WebSocket;
using http::testing::Done;
using testing::Answer;
using testing::Site;

TEST_F(Site, AnInstanceLives) {
  make_world();
  ASSERT_EQ(launch("web"), "");
  EXPECT_EQ(json::serialize(get("/1.0/instances").metadata()), R"(["/1.0/instances/web"])");
  auto one = get("/1.0/instances/web");
  EXPECT_EQ(one.metadata().at("status").as_string(), "Running");
  EXPECT_EQ(one.metadata().at("status_code").as_int64(), 103);
  EXPECT_EQ(one.metadata().at("type").as_string(), "container");
  EXPECT_EQ(one.metadata().at("expanded_devices").at("eth0").at("network").as_string(), "br0");
  EXPECT_EQ(one.header("ETag").size(), 66u);

  auto full = get("/1.0/instances?recursion=2").metadata().as_array().at(0).as_object();
  EXPECT_EQ(full.at("state").at("network").at("eth0").at("addresses").as_array().at(0).at("family").as_string(), "inet");
  EXPECT_TRUE(full.at("snapshots").is_null());
  EXPECT_EQ(get("/1.0/instances?recursion=1&filter=status+eq+running").metadata().as_array().size(), 1u);
  EXPECT_EQ(get("/1.0/instances?filter=config.user.x+eq+y").metadata().as_array().size(), 0u);
  EXPECT_EQ(get("/1.0/instances?filter=nothing+eq+y").status, 400);
  EXPECT_EQ(get("/1.0/instances?instance-type=virtual-machine").metadata().as_array().size(), 0u);
  EXPECT_EQ(get("/1.0/instances/web/state").metadata().at("status").as_string(), "Running");

  EXPECT_EQ(change("PATCH", "/1.0/instances/web", R"({"description":"hello"})"), "");
  EXPECT_EQ(get("/1.0/instances/web").metadata().at("description").as_string(), "hello") << "PATCH answers when it is done";
  EXPECT_EQ(call("PUT", "/1.0/instances/web", "{}", {{"If-Match", "\"old\""}}).status, 412);

  EXPECT_EQ(change("PUT", "/1.0/instances/web/state", R"({"action":"freeze"})"), "");
  EXPECT_EQ(get("/1.0/instances/web").metadata().at("status").as_string(), "Frozen");
  EXPECT_EQ(change("PUT", "/1.0/instances/web/state", R"({"action":"unfreeze"})"), "");
  EXPECT_EQ(change("PUT", "/1.0/instances/web/state", R"({"action":"stop","force":true})"), "");
  EXPECT_EQ(get("/1.0/instances?filter=status+eq+stopped").metadata().as_array().size(), 1u) << "a new object, a new text";
  EXPECT_EQ(change("POST", "/1.0/instances/web", R"({"name":"web2"})"), "");
  EXPECT_EQ(get("/1.0/instances/web").status, 404);
  EXPECT_EQ(json::serialize(get("/1.0/storage-pools/default/volumes").metadata()),
            R"(["/1.0/storage-pools/default/volumes/container/web2"])");
  EXPECT_EQ(change("DELETE", "/1.0/instances/web2"), "");
  EXPECT_EQ(json::serialize(get("/1.0/instances").metadata()), "[]");
}

TEST_F(Site, WhatIsNotThereYetIsRefusedByName) {
  make_world();
  for (auto [body, word] :
       {std::pair{R"({"name":"a","source":{"type":"image","alias":"tiny","server":"https://x"}})", "source.protocol"},
        {R"({"name":"a","stateful":true,"source":{"type":"image","alias":"tiny"}})", "stateful"},
        {R"({"name":"a","instance_type":"t2.micro","source":{"type":"image","alias":"tiny"}})", "instance_type"}}) {
    auto answer = call("POST", "/1.0/instances", body);
    EXPECT_EQ(answer.status, 501) << body;
    EXPECT_NE(answer.error().find(word), std::string::npos) << answer.error();
  }
  for (auto body : {R"({"name":"a"})", R"({"name":"a","source":{"type":"image"}})",
                    R"({"name":"a","source":{"type":"image","alias":"tiny"},"colour":1})",
                    R"({"name":"a","type":"toaster","source":{"type":"image","alias":"tiny"}})"})
    EXPECT_EQ(call("POST", "/1.0/instances", body).status, 400) << body;
  EXPECT_EQ(call("PUT", "/1.0/instances", R"({"state":{"action":"stop"}})").status, 501);
  EXPECT_EQ(launch("web"), "");
  EXPECT_EQ(call("PUT", "/1.0/instances/web/state", R"({"action":"explode"})").status, 400);
  EXPECT_EQ(call("POST", "/1.0/instances/web", R"({"name":"x","migration":true})").status, 501);
  for (const std::string field : {"migration", "live", "instance_only", "refresh"}) {
    auto wrong = call("POST", "/1.0/instances/web", R"({"name":"x",")" + field + R"(":[]})");
    EXPECT_EQ(wrong.status, 400) << field;
    EXPECT_NE(wrong.error().find("'" + field + "'"), std::string::npos) << wrong.error();
  }
}

TEST_F(Site, LogsAreReadByNameOnly) {
  make_world();
  ASSERT_EQ(launch("web"), "");
  std::string logs;
  loop.call([&] { logs = engine->instances.log_directory(*engine->instances.find("default", "web")); });
  std::filesystem::create_directories(logs);
  std::ofstream(logs + "/console.log") << "<img onerror=x>";
  std::ofstream(logs + "/init.log") << "began";
  std::filesystem::create_symlink("/etc/passwd", logs + "/evil");
  EXPECT_EQ(json::serialize(get("/1.0/instances/web/logs").metadata()),
            R"(["/1.0/instances/web/logs/console.log","/1.0/instances/web/logs/init.log"])");
  auto console = get("/1.0/instances/web/console");
  EXPECT_EQ(console.raw.body, "<img onerror=x>");
  EXPECT_EQ(console.header("Content-Type"), "application/octet-stream");
  EXPECT_EQ(console.header("X-Content-Type-Options"), "nosniff");
  EXPECT_EQ(get("/1.0/instances/web/logs/lxc.log").raw.body, "began");
  for (auto name : {"evil", "nope", "%2e%2e", "..%5cpasswd", "console.log%00"})
    EXPECT_GE(get(std::string("/1.0/instances/web/logs/") + name).status, 400) << name;
}

TEST_F(Site, ACommandSpeaksOverWebSockets) {
  make_world();
  ASSERT_EQ(launch("web"), "");
  auto answer = call("POST", "/1.0/instances/web/exec", R"({"command":["cat"],"wait-for-websocket":true})");
  ASSERT_EQ(answer.status, 202) << answer.error();
  const std::string url(answer.body.at("operation").as_string());
  const auto fds = answer.metadata().at("metadata").at("fds").as_object();
  EXPECT_FALSE(get(url).metadata().at("metadata").as_object().contains("fds")) << "secrets are for who asked";
  auto secret = [&](const char* name) { return url + "/websocket?secret=" + std::string(fds.at(name).as_string()); };
  std::string output;
  loop.run([&]() -> Task<Done> {
    http::Client client(local);
    auto wrong = co_await client.websocket(url + "/websocket?secret=0123");
    EXPECT_FALSE(wrong);
    if (!wrong) EXPECT_EQ(wrong.error().kind(), ErrorKind::not_found);
    auto control = co_await client.websocket(secret("control"));
    auto in = co_await client.websocket(secret("0"));
    auto out = co_await client.websocket(secret("1"));
    auto err = co_await client.websocket(secret("2"));
    EXPECT_TRUE(control && in && out && err);
    if (!control || !in || !out || !err) co_return Done{};
    auto twice = co_await client.websocket(secret("1"));
    EXPECT_FALSE(twice) << "a secret works once";
    EXPECT_TRUE(co_await (*in)->write_binary("through the guest"));
    EXPECT_TRUE(co_await (*in)->write_text(""));
    while (true) {
      auto message = co_await (*out)->read();
      if (!message || message->kind == WebSocket::Kind::close || message->data.empty()) break;
      output += message->data;
    }
    co_await (*in)->close();
    co_return Done{};
  });
  EXPECT_EQ(output, "through the guest");
  auto done = get(url + "/wait");
  EXPECT_EQ(done.metadata().at("metadata").at("return").as_int64(), 0);
}

TEST_F(Site, EventsTellWhatHappens) {
  std::vector<std::string> actions;
  loop.run([&]() -> Task<Done> {
    http::Client client(local);
    auto events = co_await client.websocket("/1.0/events?type=lifecycle&project=default");
    EXPECT_TRUE(events);
    if (!events) co_return Done{};
    http::ClientRequest request;
    request.method = "POST";
    request.target = "/1.0/profiles";
    request.body = R"({"name":"web"})";
    EXPECT_TRUE(co_await client.request(request));
    auto message = co_await (*events)->read();
    EXPECT_TRUE(message);
    if (!message) co_return Done{};
    auto event = parse_json_object(message->data).value();
    actions.emplace_back(event.at("metadata").at("action").as_string());
    EXPECT_EQ(event.at("type").as_string(), "lifecycle");
    EXPECT_EQ(event.at("metadata").at("requestor").at("username").as_string(), "root");
    co_await (*events)->close();
    co_return Done{};
  });
  EXPECT_EQ(actions, std::vector<std::string>{"profile-created"});
  EXPECT_EQ(get("/1.0/events").status, 400);
  EXPECT_EQ(get("/1.0/events?type=gossip").status, 400);
}

TEST_F(Site, AnImageComesAndGoes) {
  EXPECT_EQ(
      upload("tiny image",
             {{"X-Incus-filename", "tiny.tar.xz"}, {"X-Incus-properties", "os=tiny&release=a%20b"}, {"X-Incus-public", "true"}}),
      "");
  const auto fingerprint = sha256_hex("tiny image");
  auto image = get("/1.0/images/" + fingerprint.substr(0, 12));
  EXPECT_EQ(image.metadata().at("fingerprint").as_string(), fingerprint);
  EXPECT_EQ(image.metadata().at("filename").as_string(), "tiny.tar.xz");
  EXPECT_EQ(image.metadata().at("properties").at("release").as_string(), "a b");
  EXPECT_TRUE(image.metadata().at("public").as_bool());
  auto exported = get("/1.0/images/" + fingerprint + "/export");
  EXPECT_EQ(exported.raw.body, "tiny image");
  EXPECT_EQ(exported.header("Content-Disposition"), "inline;filename=tiny.tar.xz");
  EXPECT_EQ(change("POST", "/1.0/images/aliases", fmt::format(R"({{"name":"t","target":"{}"}})", fingerprint)), "");
  EXPECT_EQ(get("/1.0/images/aliases/t").metadata().at("target").as_string(), fingerprint);
  EXPECT_EQ(change("POST", "/1.0/images/aliases/t", R"({"name":"u"})"), "");
  EXPECT_EQ(change("POST", "/1.0/images/aliases/u", R"({"name":"debian/12"})"), "");
  EXPECT_EQ(get("/1.0/images/aliases/debian%2F12").metadata().at("target").as_string(), fingerprint);
  EXPECT_EQ(get("/1.0/images/debian%2F11").status, 404) << "a name that is neither alias nor fingerprint";
  EXPECT_EQ(get("/1.0/profiles/a%2Fb").status, 400) << "only where names have slashes";
  EXPECT_EQ(change("DELETE", "/1.0/images/aliases/debian%2F12"), "");
  EXPECT_EQ(change("PATCH", "/1.0/images/" + fingerprint, R"({"properties":{"os":"other"}})"), "");
  EXPECT_EQ(get("/1.0/images/" + fingerprint).metadata().at("properties").at("os").as_string(), "other");
  EXPECT_EQ(change("DELETE", "/1.0/images/" + fingerprint), "");
  EXPECT_EQ(json::serialize(get("/1.0/images").metadata()), "[]");
}

TEST_F(Site, ASplitImageGoesInAndOutAsTwoParts) {
  const std::string form =
      "--B\r\nContent-Disposition: form-data; name=\"metadata\"; filename=\"m.tar\"\r\n\r\nvm meta\r\n"
      "--B\r\nContent-Disposition: form-data; name=\"rootfs.img\"; filename=\"r\"\r\n\r\ndisk\r\n--B--\r\n";
  auto answer = call("POST", "/1.0/images", form, {{"Content-Type", "multipart/form-data; boundary=B"}});
  ASSERT_EQ(answer.status, 202) << answer.error();
  auto done = get(std::string(answer.body.at("operation").as_string()) + "/wait");
  EXPECT_EQ(done.metadata().at("err").as_string(), "");
  const auto fingerprint = sha256_hex("vm metadisk");
  EXPECT_EQ(get("/1.0/images/" + fingerprint).metadata().at("type").as_string(), "virtual-machine");
  auto exported = get("/1.0/images/" + fingerprint + "/export");
  EXPECT_TRUE(exported.header("Content-Type").starts_with("multipart/form-data; boundary="));
  EXPECT_NE(exported.raw.body.find("\r\n\r\nvm meta\r\n--"), std::string::npos);
  EXPECT_NE(exported.raw.body.find("name=\"rootfs.img\""), std::string::npos);
}

TEST_F(Site, AnUploadThatFailsLeavesNothing) {
  EXPECT_NE(upload("bad image", {}), "");
  for (const auto& form :
       std::vector<std::string>{"", "--B--", "--B\r\nContent-Disposition: form-data; name=\"metadata\"\r\n\r\nx\r\n--B--",
                                "--B\r\nContent-Disposition: form-data; name=\"metadata\"\r\n\r\nx\r\n",
                                "--B\r\nContent-Disposition: form-data; name=\"evil\"\r\n\r\nx\r\n--B--",
                                "--B\r\nContent-Disposition: form-data; name=\"metadata\"\r\n\r\nx\r\n"
                                "--B\r\nContent-Disposition: form-data; name=\"metadata\"\r\n\r\nx\r\n--B--"})
    EXPECT_EQ(call("POST", "/1.0/images", form, {{"Content-Type", "multipart/form-data; boundary=B"}}).status, 400) << form;
  EXPECT_EQ(
      call("POST", "/1.0/images", "x", {{"Content-Type", "application/octet-stream"}, {"X-Incus-properties", "a=%zz"}}).status,
      400);
  EXPECT_EQ(call("POST", "/1.0/images", R"({"source":{"type":"url","url":"https://x"}})").status, 501);
  EXPECT_EQ(engine->images_on_disk.uploads_left(), 0);
}

TEST_F(Site, OperationsAreListedByStatusAndWaitedFor) {
  make_world();
  ASSERT_EQ(launch("web"), "");
  auto grouped = get("/1.0/operations?recursion=1").metadata().as_object();
  ASSERT_TRUE(grouped.contains("success"));
  EXPECT_EQ(grouped.at("success").as_array().at(0).at("status_code").as_int64(), 200);
  EXPECT_EQ(get("/1.0/operations/nope").status, 404);
  EXPECT_EQ(get("/1.0/operations/nope/wait").status, 404);
  EXPECT_EQ(call("DELETE", "/1.0/operations/nope").status, 404);
  auto exec = call("POST", "/1.0/instances/web/exec", R"({"command":["sleep","60"],"wait-for-websocket":true})");
  const std::string url(exec.body.at("operation").as_string());
  auto waited = get(url + "/wait?timeout=0");
  EXPECT_EQ(waited.status, 200);
  EXPECT_EQ(waited.metadata().at("status_code").as_int64(), 103) << "the time ran out, the operation goes on";
  EXPECT_EQ(get(url + "/wait?timeout=soon").status, 400);
}

TEST_F(Site, PoolsNetworksAndProjectsAreServed) {
  make_world();
  ASSERT_EQ(launch("web"), "");
  auto pool = get("/1.0/storage-pools/default");
  EXPECT_EQ(pool.metadata().at("status").as_string(), "Created");
  EXPECT_GT(get("/1.0/storage-pools/default/resources").metadata().at("space").at("used").to_number<std::int64_t>(), 0);
  EXPECT_EQ(call("POST", "/1.0/storage-pools/default/volumes/custom", R"({"name":"v"})").status, 501);
  EXPECT_EQ(get("/1.0/networks/br0").metadata().at("managed").as_bool(), true);
  EXPECT_EQ(get("/1.0/networks/br0/state").status, 200);
  EXPECT_GE(get("/1.0/networks/br0/leases").metadata().as_array().size(), 2u);
  EXPECT_EQ(call("PUT", "/1.0/networks/br0", "{}", {{"If-Match", "x"}}).status, 412);
  EXPECT_EQ(get("/1.0/networks/nope").status, 404);
  EXPECT_EQ(call("POST", "/1.0/projects", R"({"name":"lab"})").status, 201);
  EXPECT_EQ(change("POST", "/1.0/projects/lab", R"({"name":"lab2"})"), "");
  EXPECT_EQ(get("/1.0/projects/lab2/state").metadata().at("resources").at("instances").at("Usage").as_int64(), 0);
  EXPECT_EQ(call("DELETE", "/1.0/projects/lab2").status, 200);
  EXPECT_NE(get("/1.0/metadata/configuration").raw.body.find("limits.memory"), std::string::npos);
}

TEST(Extensions, AreListedOnce) {
  std::set<std::string_view> seen;
  for (const auto& name : api_extensions()) {
    const std::string_view text(name.as_string());
    EXPECT_TRUE(seen.insert(text).second) << text << " is listed twice";
  }
}

}  // namespace
}  // namespace virga::api
