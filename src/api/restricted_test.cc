// A certificate that is restricted to project "a": what is in project "b" looks like what does not exist, whichever way it is asked
// for (S30); and it cannot get out of its restriction (S32). Bearer tokens of certificates.
#include "api/site_test.h"
#include "wire/jwt/jwt.h"

namespace virga::api {
namespace {

using http::WebSocket;
using http::testing::Done;
using testing::Answer;
using namespace std::chrono_literals;

struct Restricted : testing::Site {
  Restricted() {
    make_world();
    for (const auto* name : {"a", "b"})
      EXPECT_EQ(change("POST", "/1.0/projects",
                       fmt::format(R"({{"name":"{}","config":{{"features.images":"true","features.profiles":"true"}}}})", name)),
                "");
    fill("b", "secret", "the image of b");
    fill("a", "mine", "the image of a");
    client = trust("tenant", R"("restricted":true,"projects":["a"])");
  }

  /// An image with an alias, a profile and an instance, all of one name.
  void fill(const std::string& project, const std::string& name, const std::string& image) {
    const auto in = "?project=" + project;
    EXPECT_EQ(call("POST", "/1.0/images" + in, image, {{"Content-Type", "application/octet-stream"}}).status, 202);
    const auto fingerprint = sha256_hex(image);
    std::string missing = "x";
    for (int i = 0; i < 500 && !missing.empty(); ++i) missing = get("/1.0/images/" + fingerprint + in).status == 200 ? "" : "x";
    EXPECT_EQ(change("POST", "/1.0/images/aliases" + in, fmt::format(R"({{"name":"{}","target":"{}"}})", name, fingerprint)), "");
    const auto* devices = R"({"root":{"type":"disk","path":"/","pool":"default"}})";
    EXPECT_EQ(change("POST", "/1.0/profiles" + in, fmt::format(R"({{"name":"{}","devices":{}}})", name, devices)), "");
    EXPECT_EQ(change("POST", "/1.0/instances" + in,
                     fmt::format(R"({{"name":"{0}","profiles":["{0}"],"source":{{"type":"image","alias":"{0}"}}}})", name)),
              "");
  }

  http::Endpoint trust(const std::string& name, const std::string& more) {
    auto identity = http::make_self_signed(name, {}).value();
    json::object body{{"name", name}, {"certificate", identity.certificate}};
    auto text = json::serialize(body);
    if (!more.empty()) text = text.substr(0, text.size() - 1) + "," + more + "}";
    EXPECT_EQ(change("POST", "/1.0/certificates", text), "");
    auto endpoint = tls;
    endpoint.identity = identity;
    return endpoint;
  }
  static std::string fingerprint_of(const http::Endpoint& e) {
    return http::describe_certificate(e.identity->certificate).value().fingerprint;
  }

  Answer as(const http::Endpoint& who, std::string method, std::string target, std::string body = "",
            std::vector<std::pair<std::string, std::string>> headers = {}) {
    http::ClientRequest request;
    request.method = std::move(method);
    request.target = std::move(target);
    request.body = std::move(body);
    request.headers = std::move(headers);
    return send(who, std::move(request));
  }

  http::Endpoint client;
};

std::string replaced(std::string text, const std::string& from, const std::string& to) {
  for (auto at = text.find(from); at != std::string::npos; at = text.find(from, at + to.size())) text.replace(at, from.size(), to);
  return text;
}

TEST_F(Restricted, AnotherProjectLooksLikeOneThatDoesNotExist) {
  const std::vector<std::pair<const char*, const char*>> requests = {
      {"GET", "/1.0"},
      {"GET", "/1.0/instances"},
      {"GET", "/1.0/instances?recursion=2"},
      {"GET", "/1.0/instances/secret"},
      {"GET", "/1.0/instances/secret/state"},
      {"GET", "/1.0/instances/secret/logs"},
      {"POST", "/1.0/instances"},
      {"PUT", "/1.0/instances/secret"},
      {"PATCH", "/1.0/instances/secret"},
      {"POST", "/1.0/instances/secret"},
      {"DELETE", "/1.0/instances/secret"},
      {"PUT", "/1.0/instances/secret/state"},
      {"POST", "/1.0/instances/secret/exec"},
      {"GET", "/1.0/images"},
      {"GET", "/1.0/images?recursion=1"},
      {"GET", "/1.0/images/aliases"},
      {"GET", "/1.0/images/aliases/secret"},
      {"POST", "/1.0/images/aliases"},
      {"DELETE", "/1.0/images/aliases/secret"},
      {"GET", "/1.0/profiles"},
      {"GET", "/1.0/profiles/secret"},
      {"PUT", "/1.0/profiles/secret"},
      {"DELETE", "/1.0/profiles/secret"},
      {"POST", "/1.0/profiles"},
      {"GET", "/1.0/networks"},
      {"GET", "/1.0/storage-pools/default/volumes"},
      {"GET", "/1.0/operations"},
      {"GET", "/1.0/events"},
      {"GET", "/1.0/metrics"},
      {"GET", "/1.0/warnings"},
      {"GET", "/1.0/storage-pools/default/volumes/container/secret"}};
  for (const auto& [method, target] : requests) {
    const std::string url = target;
    const auto with = [&](const char* project) {
      return url + (url.find('?') == std::string::npos ? "?" : "&") + "project=" + project;
    };
    const auto body = std::string(method) == "GET" ? "" : "{}";
    const auto there = as(client, method, with("b"), body), nowhere = as(client, method, with("z"), body);
    EXPECT_EQ(there.status, 404) << method << " " << target << ": " << there.raw.body;
    EXPECT_EQ(replaced(there.raw.body, "'b'", "'z'"), nowhere.raw.body) << method << " " << target;
  }
}

TEST_F(Restricted, MetricsAndWarningsAreThoseOfTheOwnProjects) {
  for (const auto* name : {"a", "b"}) {
    const auto instance = std::string(name) == "a" ? "mine" : "secret";
    EXPECT_EQ(change("PUT", fmt::format("/1.0/instances/{}/state?project={}", instance, name), R"({"action":"start"})"), "");
  }
  loop.call([&] {
    engine->warnings.raise(WarningType::instance_autostart_failure, {"a", "/1.0/instances/mine?project=a"}, "about a");
    engine->warnings.raise(WarningType::instance_autostart_failure, {"b", "/1.0/instances/secret?project=b"}, "about b");
    engine->warnings.raise(WarningType::firewall_repaired, {}, "about the server");
  });
  std::vector<std::string> all;
  for (int i = 0; i < 500 && all.size() < 3; ++i) {
    all.clear();
    for (const auto& url : get("/1.0/warnings").metadata().as_array()) all.emplace_back(url.as_string());
  }
  ASSERT_EQ(all.size(), 3u);
  const auto mine = as(client, "GET", "/1.0/warnings?recursion=1");
  ASSERT_EQ(mine.metadata().as_array().size(), 1u) << mine.raw.body;
  EXPECT_EQ(mine.metadata().as_array().at(0).at("last_message").as_string(), "about a");
  int found = 0;
  for (const auto& url : all) {
    found += as(client, "GET", url).status == 200 ? 1 : 0;
    EXPECT_EQ(as(client, "DELETE", url).status, 403);
    EXPECT_EQ(as(client, "PUT", url, R"({"status":"acknowledged"})").status, 403);
  }
  EXPECT_EQ(found, 1);
  const auto metrics = as(client, "GET", "/1.0/metrics");
  EXPECT_NE(metrics.raw.body.find("name=\"mine\""), std::string::npos) << metrics.raw.body;
  EXPECT_EQ(metrics.raw.body.find("secret"), std::string::npos);
  EXPECT_EQ(metrics.raw.body.find("incus_operations_total"), std::string::npos) << "what concerns the whole server";
  EXPECT_NE(get("/1.0/metrics").raw.body.find("name=\"secret\""), std::string::npos);
}

TEST_F(Restricted, ObjectsOfOthersLookLikeOnesThatDoNotExist) {
  const auto image = sha256_hex("the image of b"), none = sha256_hex("no image");
  const std::vector<std::array<std::string, 3>> pairs = {
      {"/1.0/instances/{}?project=a", "secret", "nobody"},
      {"/1.0/instances/{}/state?project=a", "secret", "nobody"},
      {"/1.0/profiles/{}?project=a", "secret", "nobody"},
      {"/1.0/images/{}?project=a", image, none},
      {"/1.0/images/{}/export?project=a", image, none},
      {"/1.0/images/aliases/{}?project=a", "secret", "nobody"},
      {"/1.0/storage-pools/default/volumes/container/{}?project=a", "secret", "nobody"},
      {"/1.0/projects/{}", "b", "z"},
      {"/1.0/projects/{}/state", "b", "z"},
      {"/1.0/certificates/{}", "0000", "1111"}};
  for (const auto& [pattern, theirs, missing] : pairs) {
    const auto there = as(client, "GET", replaced(pattern, "{}", theirs)),
               nowhere = as(client, "GET", replaced(pattern, "{}", missing));
    EXPECT_EQ(there.status, 404) << pattern;
    EXPECT_EQ(replaced(there.raw.body, theirs, missing), nowhere.raw.body) << pattern;
  }
}

TEST_F(Restricted, ListsOfEverythingHoldTheOwnProjectOnly) {
  for (const auto* target :
       {"/1.0/instances?all-projects=true", "/1.0/instances?all-projects=true&recursion=2",
        "/1.0/images?all-projects=true&recursion=1", "/1.0/profiles?all-projects=true&recursion=1", "/1.0/projects?recursion=1",
        "/1.0/certificates?recursion=1", "/1.0/storage-pools?recursion=1", "/1.0/networks?recursion=1",
        "/1.0/storage-pools/default/volumes?all-projects=true&recursion=1", "/1.0/operations?all-projects=true&recursion=1",
        "/1.0/instances?all-projects=true&filter=name%20eq%20secret", "/1.0?project=a"}) {
    const auto answer = as(client, "GET", target);
    EXPECT_EQ(answer.status, 200) << target;
    EXPECT_EQ(answer.raw.body.find("secret"), std::string::npos) << target << ": " << answer.raw.body;
    EXPECT_EQ(answer.raw.body.find("project=b"), std::string::npos) << target << ": " << answer.raw.body;
  }
  EXPECT_NE(as(client, "GET", "/1.0/instances?all-projects=true&recursion=1").raw.body.find("mine"), std::string::npos);
  EXPECT_EQ(as(client, "GET", "/1.0/certificates").metadata().as_array().size(), 1u) << "itself";
}

TEST_F(Restricted, AllProjectsChoosesNoneForASingleObject) {
  fill("default", "hidden", "the image of nobody");
  const auto image = sha256_hex("the image of nobody");
  // Whoever asked for all projects at a single object used to act in the default project.
  const std::vector<std::tuple<const char*, std::string, std::string>> requests = {
      {"GET", "/1.0/instances/hidden", ""},
      {"GET", "/1.0/instances/hidden/state", ""},
      {"GET", "/1.0/instances/hidden/logs", ""},
      {"GET", "/1.0/instances/hidden/console", ""},
      {"GET", "/1.0/instances/hidden/files?path=/etc", ""},
      {"GET", "/1.0/instances/hidden/metadata", ""},
      {"GET", "/1.0/instances/hidden/metadata/templates", ""},
      {"PATCH", "/1.0/instances/hidden", R"({"description":"mine now"})"},
      {"PUT", "/1.0/instances/hidden/state", R"({"action":"start"})"},
      {"POST", "/1.0/instances/hidden/exec", R"({"command":["id"]})"},
      {"POST", "/1.0/instances/hidden/console", "{}"},
      {"POST", "/1.0/instances/hidden", R"({"name":"hidden2"})"},
      {"POST", "/1.0/instances/hidden", R"({"name":"hidden","project":"a"})"},
      {"DELETE", "/1.0/instances/hidden", ""},
      {"POST", "/1.0/instances", R"({"name":"there","source":{"type":"image","alias":"hidden"},"profiles":["hidden"]})"},
      {"GET", "/1.0/profiles/hidden", ""},
      {"GET", "/1.0/images/" + image, ""},
      {"GET", "/1.0/images/" + image + "/export", ""},
      {"PATCH", "/1.0/images/" + image, R"({"public":true})"},
      {"DELETE", "/1.0/images/" + image, ""},
      {"GET", "/1.0/images/aliases/hidden", ""},
      {"PATCH", "/1.0/images/aliases/hidden", R"({"description":"mine now"})"},
      {"POST", "/1.0/images/aliases", R"({"name":"theirs","target":")" + image + R"("})"},
      {"DELETE", "/1.0/images/aliases/hidden", ""},
      {"POST", "/1.0/profiles", R"({"name":"theirs"})"},
      {"GET", "/1.0/storage-pools/default/volumes/container/hidden", ""}};
  for (const auto& [method, target, body] : requests) {
    const std::vector<std::pair<std::string, std::string>> json{{"Content-Type", "application/json"}};
    for (const auto* all : {"all-projects=true", "all-projects=1"}) {
      const auto url = target + (target.find('?') == std::string::npos ? "?" : "&") + all;
      const auto answer = as(client, method, url, body, body.empty() ? std::vector<std::pair<std::string, std::string>>() : json);
      EXPECT_TRUE(answer.status == 400 || answer.status == 403 || answer.status == 404)
          << method << " " << url << ": " << answer.status << " " << answer.raw.body;
    }
  }
  EXPECT_EQ(get("/1.0/instances/hidden").status, 200);
  EXPECT_EQ(get("/1.0/instances/there").status, 404);
  EXPECT_EQ(get("/1.0/images/aliases/hidden").status, 200);
}

TEST_F(Restricted, ANetworkThatTheProjectMayNotUseIsNotThere) {
  EXPECT_EQ(change("POST", "/1.0/networks", R"({"name":"inner","config":{"ipv4.address":"10.77.0.1/24","ipv6.address":"none"}})"),
            "");
  EXPECT_EQ(as(client, "GET", "/1.0/networks/inner?project=a").status, 200) << "unrestricted projects see all";
  EXPECT_EQ(change("DELETE", "/1.0/instances/mine?project=a"), "") << "it stands in the pool";
  EXPECT_EQ(
      change("PATCH", "/1.0/projects/a",
             R"({"config":{"restricted":"true","restricted.networks.access":"outer","restricted.storage-pools.access":"other"}})"),
      "");
  for (const auto* in : {"", "?project=a"}) {
    for (const auto* of : {"", "/state", "/leases"}) {
      const auto url = fmt::format("/1.0/networks/inner{}{}", of, in);
      EXPECT_EQ(as(client, "GET", url).status, 404) << url;
    }
    EXPECT_EQ(as(client, "GET", fmt::format("/1.0/networks{}", in)).metadata().as_array().size(), 0u) << in;
    EXPECT_EQ(as(client, "GET", fmt::format("/1.0/storage-pools{}", in)).metadata().as_array().size(), 0u) << in;
    for (const auto* of : {"", "/resources", "/volumes", "/volumes/container"}) {
      const auto url = fmt::format("/1.0/storage-pools/default{}{}", of, in);
      EXPECT_EQ(as(client, "GET", url).status, 404) << url;
    }
  }
}

TEST_F(Restricted, TheOwnProjectCanBeUsed) {
  EXPECT_EQ(as(client, "GET", "/1.0/instances/mine?project=a").status, 200);
  EXPECT_EQ(as(client, "PATCH", "/1.0/profiles/mine?project=a", R"({"description":"x"})").status, 200);
  EXPECT_EQ(as(client, "PUT", "/1.0/instances/mine/state?project=a", R"({"action":"start"})").status, 202);
  EXPECT_EQ(as(client, "GET", "/1.0").body.at("metadata").as_object().at("auth"), "trusted") << "without naming a project";
}

TEST_F(Restricted, NothingOfTheServerCanBeChanged) {
  const auto own = "/1.0/certificates/" + fingerprint_of(client);
  const std::vector<std::array<std::string, 3>> requests = {
      {"PUT", own, R"({"name":"x","type":"client","restricted":false,"projects":["a","b"]})"},
      {"PATCH", own, R"({"restricted":false})"},
      {"PATCH", own, R"({"projects":["b"]})"},
      {"DELETE", own, ""},
      {"POST", "/1.0/certificates", R"({"name":"x","token":true})"},
      {"POST", "/1.0/certificates",
       json::serialize(json::object{{"certificate", http::make_self_signed("x", {}).value().certificate}})},
      {"POST", "/1.0/projects", R"({"name":"c"})"},
      {"PUT", "/1.0/projects/a", R"({"config":{}})"},
      {"PATCH", "/1.0/projects/b", R"({"description":"x"})"},
      {"DELETE", "/1.0/projects/b", ""},
      {"PUT", "/1.0", R"({"config":{}})"},
      {"POST", "/1.0/storage-pools", R"({"name":"p","driver":"dir"})"},
      {"DELETE", "/1.0/storage-pools/default", ""},
      {"POST", "/1.0/networks", R"({"name":"n0"})"},
      {"PATCH", "/1.0/networks/br0", R"({"description":"x"})"}};
  for (const auto& [method, target, body] : requests) {
    const auto answer = as(client, method, target, body);
    EXPECT_EQ(answer.status, 403) << method << " " << target << ": " << answer.raw.body;
  }
  const auto after = get(own).metadata().as_object();
  EXPECT_EQ(after.at("restricted"), true);
  EXPECT_EQ(after.at("projects"), json::array{"a"});
}

TEST_F(Restricted, WhatAProjectBorrowsCanBeSeenButNotChanged) {
  EXPECT_EQ(change("POST", "/1.0/projects", R"({"name":"guest","config":{"features.images":"false","features.profiles":"false"}})"),
            "");
  const auto guest = trust("guest", R"("restricted":true,"projects":["guest"])");
  EXPECT_EQ(as(guest, "GET", "/1.0/profiles/default?project=guest").status, 200);
  EXPECT_EQ(as(guest, "GET", "/1.0/images/aliases/tiny?project=guest").status, 200);
  for (const auto& [method, target, body] : std::vector<std::array<std::string, 3>>{
           {"PATCH", "/1.0/profiles/default?project=guest", R"({"description":"x"})"},
           {"DELETE", "/1.0/images/aliases/tiny?project=guest", ""},
           {"DELETE", "/1.0/images/" + sha256_hex("tiny image") + "?project=guest", ""},
           {"PATCH", "/1.0/images/" + sha256_hex("tiny image") + "?project=guest", R"({"public":true})"},
           {"POST", "/1.0/images?project=guest", "an image"}})
    EXPECT_EQ(as(guest, method, target, body).status, 403) << method << " " << target;
}

TEST_F(Restricted, FollowsAProjectThatIsRenamedAndForgetsOneThatIsRemoved) {
  EXPECT_EQ(change("POST", "/1.0/projects", R"({"name":"c"})"), "");
  const auto c = trust("c", R"("restricted":true,"projects":["c"])");
  EXPECT_EQ(change("POST", "/1.0/projects/c", R"({"name":"d"})"), "");
  EXPECT_EQ(as(c, "GET", "/1.0/projects/d").status, 200);
  EXPECT_EQ(as(c, "GET", "/1.0/projects/c").status, 404);
  EXPECT_EQ(change("DELETE", "/1.0/projects/d"), "");
  EXPECT_EQ(change("POST", "/1.0/projects", R"({"name":"d"})"), "") << "another one of that name";
  EXPECT_EQ(as(c, "GET", "/1.0/projects/d").status, 404);
}

TEST_F(Restricted, ATokenCarriesItsRestriction) {
  auto made = call("POST", "/1.0/certificates", R"({"name":"t","token":true,"restricted":true,"projects":["a"]})");
  ASSERT_EQ(made.status, 202) << made.raw.body;
  const auto secret = std::string(made.metadata().as_object().at("metadata").as_object().at("secret").as_string());
  CertificateToken token{.client_name = "t", .fingerprint = "", .addresses = {}, .secret = secret, .expires_at = {}};
  auto endpoint = tls;
  endpoint.identity = http::make_self_signed("t", {}).value();
  const auto body = json::serialize(json::object{
      {"type", "client"}, {"trust_token", encode_token(token)}, {"restricted", false}, {"projects", json::array{"b"}}});
  EXPECT_EQ(as(endpoint, "POST", "/1.0/certificates", body).status, 201);
  EXPECT_EQ(as(endpoint, "GET", "/1.0/projects/b").status, 404) << "the token decides, not its bearer";
  EXPECT_EQ(as(endpoint, "GET", "/1.0/projects/a").status, 200);
  auto again = tls;
  again.identity = http::make_self_signed("u", {}).value();
  EXPECT_EQ(as(again, "POST", "/1.0/certificates", body).status, 403) << "once";
  EXPECT_EQ(call("POST", "/1.0/certificates", R"({"name":"t","token":true,"restricted":true,"projects":["nowhere"]})").status, 400);
}

TEST_F(Restricted, ChangingTheRestrictionCountsAtOnce) {
  EXPECT_EQ(change("PATCH", "/1.0/certificates/" + fingerprint_of(client), R"({"projects":["b"]})"), "");
  EXPECT_EQ(as(client, "GET", "/1.0/projects/a").status, 404);
  EXPECT_EQ(as(client, "GET", "/1.0/projects/b").status, 200);
  EXPECT_EQ(change("DELETE", "/1.0/certificates/" + fingerprint_of(client)), "");
  EXPECT_EQ(as(client, "GET", "/1.0/projects/b").status, 403);
}

TEST_F(Restricted, ReplacesItselfAndChangesNothingElse) {
  const auto own = "/1.0/certificates/" + fingerprint_of(client);
  auto next = tls;
  next.identity = http::make_self_signed("next", {}).value();
  const auto body = [&](std::string name, json::array projects, const std::string& pem) {
    return json::serialize(json::object{
        {"name", name}, {"type", "client"}, {"restricted", true}, {"projects", std::move(projects)}, {"certificate", pem}});
  };
  const auto& pem = next.identity->certificate;
  EXPECT_EQ(as(client, "PUT", own, body("tenant", {"a", "b"}, pem)).status, 403);
  EXPECT_EQ(as(client, "PUT", own, body("other", {"a"}, pem)).status, 403);
  EXPECT_EQ(as(client, "PUT", own, body("tenant", {"nowhere"}, pem)).status, 403) << "does not tell which projects there are";
  EXPECT_EQ(as(client, "PATCH", own, json::serialize(json::object{{"certificate", "nonsense"}})).status, 400);
  const auto another = trust("another", R"("restricted":true,"projects":["b"])");
  EXPECT_EQ(as(client, "PATCH", own, json::serialize(json::object{{"certificate", another.identity->certificate}})).status, 409);
  EXPECT_EQ(as(client, "PATCH", "/1.0/certificates/" + fingerprint_of(another), "{}").status, 404);
  EXPECT_EQ(as(client, "GET", "/1.0/projects/a").status, 200) << "nothing has changed so far";

  EXPECT_EQ(as(client, "PUT", own, body("tenant", {"a"}, pem)).status, 200);
  EXPECT_EQ(as(client, "GET", "/1.0/projects/a").status, 403) << "the old one is nobody's";
  EXPECT_EQ(as(next, "GET", "/1.0/projects/a").status, 200);
  EXPECT_EQ(as(next, "GET", "/1.0/projects/b").status, 404);
  EXPECT_EQ(get(own).status, 404);
  EXPECT_EQ(change("PATCH", "/1.0/certificates/" + fingerprint_of(next), R"({"name":"renamed"})"), "");
  const auto shown = as(next, "GET", "/1.0/certificates/" + fingerprint_of(next)).metadata().as_object();
  EXPECT_EQ(shown.at("name"), "renamed");
  EXPECT_EQ(shown.at("certificate"), json::value(pem));
}

TEST_F(Restricted, WhatIsOpenEndsWithTheRight) {
  const auto now = std::chrono::system_clock::now();
  EXPECT_EQ(change("PUT", "/1.0/instances/mine/state?project=a", R"({"action":"start"})"), "");
  for (const bool removed : {false, true}) {
    const auto one = trust(removed ? "one" : "two", R"("restricted":true,"projects":["a","b"])");
    const auto fingerprint = fingerprint_of(one);
    jwt::Claims claims{.subject = fingerprint, .issued_at = now, .not_before = now - 1min, .expires_at = now + 1h};
    const std::pair<std::string, std::string> bearer{"Authorization", "Bearer " + jwt::sign(claims, one.identity->key).value()};
    const auto exec = [&] {
      const auto answer = as(one, "POST", "/1.0/instances/mine/exec?project=a", R"({"command":["cat"],"wait-for-websocket":true})");
      EXPECT_EQ(answer.status, 202) << answer.raw.body;
      const auto& fds = answer.metadata().at("metadata").at("fds").as_object();
      return std::string(answer.body.at("operation").as_string()) +
             "/websocket?secret=" + std::string(fds.at("control").as_string());
    };
    const auto joined = exec(), pending = exec();
    int ended = 0;
    loop.run([&]() -> Task<Done> {
      http::Client with_certificate(one), with_token(tls), later(one);
      std::vector<std::unique_ptr<WebSocket>> open;
      auto events = co_await with_certificate.websocket("/1.0/events?project=a");
      auto session = co_await with_certificate.websocket(joined);
      auto by_token = co_await with_token.websocket("/1.0/events?project=a", {bearer});
      for (auto* socket : {&events, &session, &by_token}) {
        EXPECT_TRUE(*socket) << (*socket ? "" : socket->error().text());
        if (!*socket) co_return Done{};
        open.push_back(std::move(**socket));
      }
      auto certificate = engine->certificates.get(fingerprint).value();
      if (removed) {
        EXPECT_TRUE(co_await engine->certificates.remove(fingerprint, {}));
      } else {
        engine::Certificates::Update less{
            .name = "two", .description = "", .restricted = true, .projects = {"b"}, .certificate = {}};
        EXPECT_TRUE(co_await engine->certificates.update(fingerprint, less, {}, {}));
      }
      for (auto& socket : open) {
        while (true) {  // what was sent before may still come
          auto message = co_await socket->read();
          if (message && message->kind != WebSocket::Kind::close) continue;
          ++ended;
          break;
        }
      }
      EXPECT_FALSE(co_await later.websocket(pending)) << "a session that nobody had joined yet";
      co_return Done{};
    });
    EXPECT_EQ(ended, 3);
  }
}

TEST_F(Restricted, AnEventStreamDoesNotFollowTheNameOfAProject) {
  EXPECT_EQ(change("POST", "/1.0/projects", R"({"name":"c"})"), "");
  const auto c = trust("c", R"("restricted":true,"projects":["c"])");
  std::vector<std::string> seen;
  loop.run([&]() -> Task<Done> {
    http::Client client(c);
    auto events = co_await client.websocket("/1.0/events?all-projects=true&type=lifecycle");
    EXPECT_TRUE(events);
    if (!events) co_return Done{};
    engine->events.lifecycle("before", "c", "/1.0/instances/x", {});
    EXPECT_TRUE(co_await engine->projects.rename("c", "d", {}));
    engine->events.lifecycle("another's", "c", "/1.0/instances/x", {});
    engine->events.lifecycle("after", "d", "/1.0/instances/x", {});
    while (seen.empty() || seen.back() != "after") {
      auto message = co_await (*events)->read();
      if (!message || message->kind == WebSocket::Kind::close) break;
      seen.emplace_back(parse_json_object(message->data)->at("metadata").at("action").as_string());
    }
    co_await (*events)->close();
    co_return Done{};
  });
  std::erase_if(seen, [](const std::string& action) { return action.starts_with("project-"); });
  EXPECT_EQ(seen, (std::vector<std::string>{"before", "after"}));
}

TEST_F(Restricted, ABearerTokenIsAsGoodAsTheCertificateThatSignedIt) {
  const auto now = std::chrono::system_clock::now();
  jwt::Claims claims{.subject = fingerprint_of(client), .issued_at = now, .not_before = now - 1min, .expires_at = now + 1h};
  const auto token = jwt::sign(claims, client.identity->key).value();
  auto nobody = tls;
  const auto with = [&](const std::string& text, const std::string& target) {
    return as(nobody, "GET", target, "", {{"Authorization", "Bearer " + text}}).status;
  };
  EXPECT_EQ(as(nobody, "GET", "/1.0/projects/a").status, 403);
  EXPECT_EQ(with(token, "/1.0/projects/a"), 200);
  EXPECT_EQ(with(token, "/1.0/projects/b"), 404) << "with its restriction";
  nobody.identity = http::make_self_signed("stranger", {}).value();
  EXPECT_EQ(with(token, "/1.0/projects/a"), 200) << "whatever certificate the connection shows";

  claims.expires_at = now - 1min;
  EXPECT_EQ(with(jwt::sign(claims, client.identity->key).value(), "/1.0/projects/a"), 403) << "expired";
  claims.expires_at = now + 1h;
  claims.not_before = now + 30min;
  EXPECT_EQ(with(jwt::sign(claims, client.identity->key).value(), "/1.0/projects/a"), 403) << "not yet";
  claims.not_before = now - 1min;
  EXPECT_EQ(with(jwt::sign(claims, nobody.identity->key).value(), "/1.0/projects/a"), 403) << "another key";
  const auto admin = trust("admin", "");
  claims.subject = fingerprint_of(admin);
  EXPECT_EQ(with(jwt::sign(claims, client.identity->key).value(), "/1.0/projects/b"), 403) << "another's name";
  for (const auto* text : {"", "x", "a.b.c", "...", "bnVsbA.bnVsbA.bnVsbA"}) EXPECT_EQ(with(text, "/1.0/projects/a"), 403) << text;
  EXPECT_EQ(change("DELETE", "/1.0/certificates/" + fingerprint_of(client)), "");
  EXPECT_EQ(with(token, "/1.0/projects/a"), 403) << "its certificate is trusted no more";
}

}  // namespace
}  // namespace virga::api
