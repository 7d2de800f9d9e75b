// What every request goes through: identity, route, access, project, body, envelope.
#include "api/api.h"

#include "api/site_test.h"
#include "wire/http/tls.h"

namespace virga::api {
namespace {

using testing::Answer;
using testing::Site;

TEST_F(Site, AnswersHaveTheShapesOfTheReference) {
  auto root = get("/");
  EXPECT_EQ(root.status, 200);
  EXPECT_EQ(json::serialize(root.metadata()), R"(["/1.0"])");
  EXPECT_EQ(root.body.at("type").as_string(), "sync");
  EXPECT_EQ(root.body.at("status").as_string(), "Success");
  EXPECT_EQ(root.body.at("status_code").as_int64(), 200);
  EXPECT_EQ(root.header("Content-Type"), "application/json");
  EXPECT_EQ(root.header("X-Content-Type-Options"), "nosniff");
  EXPECT_NE(root.header("Content-Security-Policy").find("frame-ancestors 'none'"), std::string::npos);

  auto missing = get("/1.0/nothing");
  EXPECT_EQ(missing.status, 404);
  EXPECT_EQ(missing.body.at("type").as_string(), "error");
  EXPECT_EQ(missing.body.at("error_code").as_int64(), 404);
  EXPECT_EQ(missing.error(), "not found");
  EXPECT_TRUE(missing.metadata().is_null());

  auto created = call("POST", "/1.0/profiles", R"({"name":"web"})");
  EXPECT_EQ(created.status, 201);
  EXPECT_EQ(created.header("Location"), "/1.0/profiles/web");
  EXPECT_EQ(json::serialize(call("PATCH", "/1.0/profiles/web", R"({"description":"x"})").metadata()), "{}");
}

TEST_F(Site, RefusalsCarryTheirStatus) {
  EXPECT_EQ(get("/1.0/").status, 404);
  auto wrong_method = call("DELETE", "/1.0");
  EXPECT_EQ(wrong_method.status, 405);
  EXPECT_EQ(wrong_method.header("Allow"), "GET, PUT, PATCH");
  EXPECT_EQ(get("/1.0/network-acls").status, 501);
  EXPECT_EQ(get("/1.0/instances/x/snapshots/y").status, 404);
  EXPECT_EQ(call("POST", "/1.0/profiles", "{").status, 400);
  EXPECT_EQ(call("POST", "/1.0/profiles", "[]").status, 400);
  EXPECT_EQ(call("POST", "/1.0/profiles", R"({"name":"a","name":"b"})").status, 400);
  EXPECT_EQ(call("POST", "/1.0/profiles", "\xEF\xBB\xBF{\"name\":\"a\"}").status, 400);
  EXPECT_EQ(call("POST", "/1.0/profiles", "{\"name\":\"\xff\"}").status, 400);
  EXPECT_EQ(call("POST", "/1.0/profiles", R"({"name":7})").status, 400);
  auto unknown = call("POST", "/1.0/profiles", R"({"name":"a","colour":"red"})");
  EXPECT_EQ(unknown.status, 400);
  EXPECT_NE(unknown.error().find("colour"), std::string::npos);
  EXPECT_EQ(call("POST", "/1.0/profiles", R"({"name":"default"})").status, 409);
  EXPECT_EQ(call("DELETE", "/1.0/profiles/default").status, 403);
  EXPECT_EQ(get("/1.0/profiles/nope").status, 404);
  EXPECT_EQ(get("/1.0/profiles?project=nope").status, 404);
  EXPECT_EQ(get("/1.0/profiles?project=default&all-projects=true").status, 400);
  EXPECT_EQ(get("/1.0/profiles?filter=name").status, 400);
  EXPECT_EQ(call("POST", "/1.0/profiles", std::string(2u << 20, ' ')).status, 413);
  EXPECT_EQ(call("POST", "/1.0/profiles", "name=a", {{"Content-Type", "application/x-www-form-urlencoded"}}).status, 415);
}

TEST_F(Site, ChangesAreHeldAgainstTheETag) {
  EXPECT_EQ(call("POST", "/1.0/profiles", R"({"name":"web","config":{"limits.cpu":"1"}})").status, 201);
  const auto seen = get("/1.0/profiles/web").header("ETag");
  ASSERT_EQ(seen.size(), 66u);
  EXPECT_EQ(call("PUT", "/1.0/profiles/web", R"({"config":{"limits.cpu":"2"}})", {{"If-Match", seen}}).status, 200);
  const auto now = get("/1.0/profiles/web").header("ETag");
  EXPECT_NE(now, seen);
  EXPECT_EQ(call("PUT", "/1.0/profiles/web", R"({"config":{"limits.cpu":"3"}})", {{"If-Match", seen}}).status, 412);
  EXPECT_EQ(call("PATCH", "/1.0/profiles/web", R"({"config":{"limits.memory":"1GiB"}})", {{"If-Match", now.substr(1, 64)}}).status,
            200);
  auto profile = get("/1.0/profiles/web");
  EXPECT_EQ(json::serialize(profile.metadata().at("config")), R"({"limits.cpu":"2","limits.memory":"1GiB"})");
  EXPECT_EQ(call("PATCH", "/1.0/profiles/web", R"({"config":{"limits.cpu":""}})").status, 200);
  EXPECT_EQ(json::serialize(get("/1.0/profiles/web").metadata().at("config")), R"({"limits.memory":"1GiB"})");
}

TEST_F(Site, ListsRecurseAndFilter) {
  EXPECT_EQ(call("POST", "/1.0/profiles", R"({"name":"web"})").status, 201);
  EXPECT_EQ(json::serialize(get("/1.0/profiles").metadata()), R"(["/1.0/profiles/default","/1.0/profiles/web"])");
  EXPECT_EQ(get("/1.0/profiles?recursion=1").metadata().as_array().size(), 2u);
  EXPECT_EQ(json::serialize(get("/1.0/profiles?filter=name+eq+web").metadata()), R"(["/1.0/profiles/web"])");
  EXPECT_EQ(call("POST", "/1.0/projects", R"({"name":"lab"})").status, 201);
  EXPECT_EQ(call("POST", "/1.0/profiles?project=lab", R"({"name":"lab1"})").header("Location"), "/1.0/profiles/lab1?project=lab");
  EXPECT_EQ(get("/1.0/profiles?all-projects=true").metadata().as_array().size(), 4u);
  EXPECT_EQ(get("/1.0/profiles?project=lab").metadata().as_array().size(), 2u);
}

TEST_F(Site, PagesOfOtherSitesAreRefused) {
  using Headers = std::vector<std::pair<std::string, std::string>>;
  const std::string body = R"({"name":"web"})";
  for (const auto& headers : {Headers{{"Origin", "https://evil.example"}}, Headers{{"Origin", "null"}}, Headers{{"Origin", ""}},
                              Headers{{"Sec-Fetch-Site", "cross-site"}}, Headers{{"Sec-Fetch-Site", "same-site"}}}) {
    EXPECT_EQ(call("POST", "/1.0/profiles", body, headers).status, 403);
    EXPECT_EQ(call("DELETE", "/1.0/profiles/default", "", headers).status, 403);
  }
  EXPECT_EQ(get("/1.0/profiles").metadata().as_array().size(), 1u);
  EXPECT_EQ(call("POST", "/1.0/profiles", body, {{"Origin", "https://unix.socket"}, {"Sec-Fetch-Site", "same-origin"}}).status,
            201);
  // A WebSocket is a GET that can do much.
  const std::string key = "dGhlIHNhbXBsZSBub25jZQ==";
  EXPECT_EQ(call("GET", "/1.0/events", "",
                 {{"Origin", "https://evil.example"},
                  {"Upgrade", "websocket"},
                  {"Connection", "Upgrade"},
                  {"Sec-WebSocket-Version", "13"},
                  {"Sec-WebSocket-Key", key}})
                .status,
            403);
}

TEST_F(Site, StrangersSeeTheDoorOnly) {
  make_world();
  auto stranger = tls;
  stranger.identity = http::make_self_signed("stranger", {}).value();
  auto ask = [&](const http::Endpoint& who, std::string method, std::string target, std::string body = "") {
    http::ClientRequest request;
    request.method = std::move(method);
    request.target = std::move(target);
    request.body = std::move(body);
    return send(who, std::move(request));
  };
  for (const auto& who : {tls, stranger}) {
    EXPECT_EQ(ask(who, "GET", "/").status, 200);
    auto server = ask(who, "GET", "/1.0");
    EXPECT_EQ(server.status, 200);
    EXPECT_EQ(server.metadata().at("auth").as_string(), "untrusted");
    EXPECT_FALSE(server.metadata().as_object().contains("environment"));
    for (auto target : {"/1.0/instances", "/1.0/certificates", "/1.0/operations", "/1.0/events", "/1.0/resources",
                        "/1.0/metadata/configuration", "/1.0/projects"})
      EXPECT_EQ(ask(who, "GET", target).status, 403) << target;
    // Images may be public; these are not.
    for (auto target : {"/1.0/images", "/1.0/images?recursion=1", "/1.0/images?all-projects=true", "/1.0/images/aliases"})
      EXPECT_EQ(ask(who, "GET", target).metadata(), json::array()) << target;
    for (const auto& target :
         {"/1.0/images/" + sha256_hex("tiny image"), "/1.0/images/" + sha256_hex("tiny image") + "/export?secret=x",
          std::string("/1.0/images/aliases/tiny"), std::string("/1.0/images/0123")})
      EXPECT_EQ(ask(who, "GET", target).status, 404) << target;
    EXPECT_EQ(ask(who, "POST", "/1.0/images", R"({"source":{"type":"image"}})").status, 403);
    // The decision does not depend on the body (S42).
    for (std::string body : {"", "{}", "{", R"({"name":"x"})"})
      EXPECT_EQ(ask(who, "POST", "/1.0/profiles", body).status, 403) << body;
    EXPECT_EQ(ask(who, "PUT", "/1.0", R"({"config":{}})").status, 403);
    EXPECT_EQ(ask(who, "POST", "/1.0/certificates", R"({"trust_token":"guess"})").status, 403);
    EXPECT_EQ(ask(who, "GET", "/1.0/operations/x/websocket?secret=y").status, 404);
  }
}

TEST_F(Site, ATokenLetsOneClientInOnce) {
  auto token_answer = call("POST", "/1.0/certificates", R"({"token":true,"name":"laptop","type":"client"})");
  ASSERT_EQ(token_answer.status, 202);
  const auto& metadata = token_answer.metadata().at("metadata").as_object();
  CertificateToken token{.client_name = "laptop",
                         .fingerprint = tls.server_fingerprint,
                         .addresses = {},
                         .secret = std::string(metadata.at("secret").as_string()),
                         .expires_at = {}};
  EXPECT_EQ(get("/1.0/operations?recursion=1").raw.body.find(token.secret), std::string::npos) << "secrets are not in listings";
  const auto join = fmt::format(R"({{"trust_token":"{}"}})", encode_token(token));
  auto laptop = tls, thief = tls;
  laptop.identity = http::make_self_signed("laptop", {}).value();
  thief.identity = http::make_self_signed("thief", {}).value();
  http::ClientRequest request;
  request.method = "POST";
  request.target = "/1.0/certificates";
  request.body = join;
  EXPECT_EQ(send(tls, request).status, 403) << "without a certificate";
  EXPECT_EQ(send(laptop, request).status, 201);
  EXPECT_EQ(send(thief, request).status, 403);
  http::ClientRequest list;
  list.target = "/1.0/instances";
  EXPECT_EQ(send(laptop, list).status, 200);
  EXPECT_EQ(send(thief, list).status, 403);
  // Removed: what it listens to ends, and the next request is a stranger's.
  const auto fingerprint = http::describe_certificate(laptop.identity->certificate).value().fingerprint;
  loop.run([&]() -> Task<http::testing::Done> {
    http::Client remote(laptop), root(local);
    auto events = co_await remote.websocket("/1.0/events?type=operation");
    EXPECT_TRUE(events);
    if (!events) co_return http::testing::Done{};
    http::ClientRequest remove;
    remove.method = "DELETE";
    remove.target = "/1.0/certificates/" + fingerprint;
    auto removed = co_await root.request(remove);
    EXPECT_TRUE(removed && removed->status == 200);
    EXPECT_FALSE(co_await (*events)->read());
    co_return http::testing::Done{};
  });
  EXPECT_EQ(send(laptop, list).status, 403);
}

TEST_F(Site, ABodyOverTlsSaysThatItIsJson) {
  auto friendly = tls;
  friendly.identity = http::make_self_signed("friend", {}).value();
  const auto pem = json::serialize(json::value(friendly.identity->certificate));
  ASSERT_EQ(call("POST", "/1.0/certificates", fmt::format(R"({{"name":"friend","type":"client","certificate":{}}})", pem)).status,
            201);
  http::ClientRequest request;
  request.method = "POST";
  request.target = "/1.0/profiles";
  request.body = R"({"name":"web"})";
  request.headers = {{"Content-Type", "text/plain"}};
  EXPECT_EQ(send(friendly, request).status, 415);
  request.headers = {{"Content-Type", ""}};
  EXPECT_EQ(send(friendly, request).status, 415);
  request.headers = {{"Content-Type", "application/json; charset=utf-8"}};
  EXPECT_EQ(send(friendly, request).status, 201);
}

}  // namespace
}  // namespace virga::api
