// Images of servers: fetched for instances, followed as time goes by, and never without room for them.
#include <algorithm>

#include "base/random.h"
#include "drivers/remote/fake/fake.h"
#include "drivers/storage/fake/fake.h"
#include "engine/images/fakes_test.h"
#include "engine/images/service.h"
#include "engine/images/transfers.h"
#include "engine/journal/journal.h"
#include "engine/operations/operations.h"
#include "engine/service_test.h"

namespace virga::engine {
namespace {

using namespace std::chrono_literals;

/// Saves into the files in memory.
class Remote final : public remote::FakeDriver {
 public:
  explicit Remote(FakeFiles& files) : files_(files) {}
  Task<Result<std::vector<remote::Saved>>> save(remote::Request request, Bytes limit,
                                                std::function<std::string(std::string_view)> path_for) override {
    VIRGA_CO_TRY(auto answer, co_await fetch(request));
    if (answer.status != 200) co_return fail(ErrorKind::not_found, "no such file");
    if (answer.body.size() > limit) co_return fail(ErrorKind::invalid, "too long");
    files_.files[path_for("")] = answer.body;
    co_return std::vector<remote::Saved>{
        {.part = "", .file_name = "", .sha256 = sha256_hex(answer.body), .size = answer.body.size()}};
  }

 private:
  FakeFiles& files_;
};

struct ServersTest : ServiceTest {
  const std::string far = "https://far.example.org:8443";
  FakeFiles files;
  FakeReader reader{files};
  Remote remote{files};
  BlockingPool blocking{"test", 1};
  storage::FakeDriver pool;
  Journal journal{store};
  Operations operations{io.get_executor(), events, clock, {.retention = Milliseconds(1)}};
  Config settings;
  Images images{Images::Parts{store,
                              journal,
                              operations,
                              events,
                              reader,
                              files,
                              clock,
                              [](const std::string& p) -> Result<std::string> { return p; },
                              [this] { return std::vector<storage::Driver*>{&pool}; },
                              {},
                              nullptr,
                              &remote,
                              &blocking,
                              [this](std::string_view key) {
                                auto it = settings.find(std::string(key));
                                return it == settings.end() ? std::string() : it->second;
                              }},
                io.get_executor()};
  ImageTransfers transfers{images, operations, remote, io.get_executor()};
  std::chrono::steady_clock::time_point start{1h};

  /// The server has this image under that alias now; its fingerprint.
  std::string serve(const std::string& alias, const std::string& content, const std::string& type = "container") {
    const auto fingerprint = sha256_hex(content);
    const auto answer = [](json::object metadata) {
      return remote::Answer{.status = 200, .url = {}, .headers = {}, .body = json::serialize(json::object{{"metadata", metadata}})};
    };
    remote.answers[far + "/1.0/images/aliases/" + alias] = answer({{"name", alias}, {"target", fingerprint}});
    remote.answers[far + "/1.0/images/" + fingerprint] = answer({{"fingerprint", fingerprint},
                                                                 {"type", type},
                                                                 {"size", static_cast<std::int64_t>(content.size())},
                                                                 {"properties", {{"serial", "1"}}}});
    remote.answers[far + "/1.0/images/" + fingerprint + "/export"] = {.status = 200, .url = {}, .headers = {}, .body = content};
    return fingerprint;
  }
  FetchImage wanted(const std::string& alias, bool cached = true) const {
    FetchImage out;
    out.source.server = far;
    out.source.protocol = "incus";
    out.source.alias = alias;
    out.image.cached = cached;
    out.image.auto_update = true;
    return out;
  }
  Task<Result<>> done(Result<OperationPtr> operation) {
    if (!operation) co_return fail(std::move(operation).error());
    VIRGA_CO_TRY(auto ended, co_await operations.wait((*operation)->id(), std::nullopt));
    co_return ended->error() ? fail(*ended->error()) : Result<>();
  }
  std::vector<std::string> here() const {
    std::vector<std::string> out;
    for (const auto& image : images.list("default")) out.push_back(image->fingerprint);
    return out;
  }
  bool any_upload() const {
    return std::any_of(files.files.begin(), files.files.end(), [](const auto& f) { return f.first.starts_with("up-"); });
  }
};

TEST_F(ServersTest, AnImageOfAServerOfTheSameKind) {
  run([&]() -> Task<> {
    EXPECT_TRUE(co_await images.load());
    const auto fingerprint = serve("tiny", "content");
    auto fetched = co_await done(images.fetch(root, wanted("tiny")));
    EXPECT_TRUE(fetched) << fetched.error().text();
    EXPECT_EQ(here(), std::vector<std::string>{fingerprint});
    const auto image = images.find("default", fingerprint);
    EXPECT_EQ((*image)->properties.at("serial"), "1");
    EXPECT_EQ((*image)->update_source->protocol, "incus");

    auto vm = wanted("tiny");
    vm.source.type = InstanceType::virtual_machine;
    EXPECT_EQ(kind_of(co_await done(images.fetch(root, vm))), ErrorKind::not_found) << "it is for containers";
    EXPECT_EQ(kind_of(co_await done(images.fetch(root, wanted("nosuch")))), ErrorKind::not_found);
    // What the server says and what it sends must be one.
    const auto other = serve("lies", "another content");
    remote.answers[far + "/1.0/images/" + other + "/export"].body = "something else!";
    EXPECT_EQ(kind_of(co_await done(images.fetch(root, wanted("lies")))), ErrorKind::invalid);
    remote.answers[far + "/1.0/images/aliases/lies"].body = R"({"metadata":{"target":"../../etc"}})";
    EXPECT_EQ(kind_of(co_await done(images.fetch(root, wanted("lies")))), ErrorKind::invalid);
    remote.answers[far + "/1.0/images/aliases/lies"].body = R"({"metadata":{"target":")" + std::string(64, 'a') + R"("}})";
    remote.answers[far + "/1.0/images/" + std::string(64, 'a')] = remote.answers[far + "/1.0/images/" + fingerprint];
    EXPECT_EQ(kind_of(co_await done(images.fetch(root, wanted("lies")))), ErrorKind::invalid) << "another than was asked for";
    auto bad = wanted("tiny");
    bad.source.server = "http://far.example.org";
    EXPECT_EQ(kind_of(co_await done(images.fetch(root, bad))), ErrorKind::invalid);
    EXPECT_EQ(here(), std::vector<std::string>{fingerprint});
    EXPECT_FALSE(any_upload());
  });
}

TEST_F(ServersTest, CachedImagesGoWhenNobodyHasUsedThemForLong) {
  run([&]() -> Task<> {
    EXPECT_TRUE(co_await images.load());
    settings["images.auto_update_interval"] = "0";
    const auto cached = serve("cached", "one"), kept = serve("kept", "two"), used = serve("used", "three");
    EXPECT_TRUE(co_await done(images.fetch(root, wanted("cached"))));
    EXPECT_TRUE(co_await done(images.fetch(root, wanted("kept", false))));
    EXPECT_TRUE(co_await done(images.fetch(root, wanted("used"))));
    clock.advance(9 * 24h);
    EXPECT_LE(co_await images.tend(start), 1h) << "settings may have changed by then";
    EXPECT_EQ(here().size(), 3u);
    images.used("default", used);
    co_await sleep_for(5ms);  // it is noted in the background
    clock.advance(24h - 10s);
    EXPECT_EQ(co_await images.tend(start), 10s) << "when the first is due";
    EXPECT_EQ(here().size(), 3u);
    clock.advance(10s);
    co_await images.tend(start);
    auto left = here(), expected = std::vector{kept, used};
    std::sort(left.begin(), left.end());
    std::sort(expected.begin(), expected.end());
    EXPECT_EQ(left, expected);
    settings["images.remote_cache_expiry"] = "0";
    clock.advance(1000 * 24h);
    co_await images.tend(start);
    EXPECT_EQ(here().size(), 2u) << "never";
    settings["images.remote_cache_expiry"] = "1000";
    co_await images.tend(start);
    EXPECT_EQ(here(), std::vector<std::string>{kept}) << "the setting counts at once";
  });
}

TEST_F(ServersTest, ImagesFollowTheirServerAtTheInterval) {
  run([&]() -> Task<> {
    EXPECT_TRUE(co_await images.load());
    settings["images.remote_cache_expiry"] = "0";
    const auto first = serve("tiny", "version 1"), still = serve("still", "stays");
    EXPECT_TRUE(co_await done(images.fetch(root, wanted("tiny"))));
    auto fixed = wanted("still", false);
    fixed.image.auto_update = false;
    EXPECT_TRUE(co_await done(images.fetch(root, fixed)));
    EXPECT_TRUE(co_await images.create_alias(root, "default", "mine", first, ""));
    const auto second = serve("tiny", "version 2");
    serve("still", "another");
    const auto target = [&] { return images.find_alias("default", "mine").value()->target; };
    EXPECT_EQ(co_await images.tend(start), 10min) << "a daemon that has just started has other things to do";
    EXPECT_EQ(target(), first);
    co_await images.tend(start + 10min);
    EXPECT_EQ(target(), second);
    EXPECT_FALSE(images.find("default", first)) << "the newer one has taken its place";
    EXPECT_TRUE(images.find("default", still)) << "it does not follow";

    const auto third = serve("tiny", "version 3");
    co_await images.tend(start + 10min + 5h);
    EXPECT_EQ(target(), second);
    // A server that is away, or sends what it did not promise, changes nothing.
    auto good = remote.answers;
    remote.answers.clear();
    co_await images.tend(start + 10min + 6h);
    EXPECT_EQ(target(), second);
    remote.answers = good;
    remote.answers[far + "/1.0/images/" + third + "/export"].body = "versionX3";
    co_await images.tend(start + 10min + 12h);
    EXPECT_EQ(target(), second);
    EXPECT_FALSE(any_upload());
    remote.answers = good;
    co_await images.tend(start + 10min + 18h);
    EXPECT_EQ(target(), third);

    serve("tiny", "version 4");
    settings["images.auto_update_interval"] = "0";
    co_await images.tend(start + 1000h);
    EXPECT_EQ(target(), third) << "never";
    settings["images.auto_update_interval"] = "1";
    co_await images.tend(start + 1000h);
    EXPECT_NE(target(), third);
  });
}

TEST_F(ServersTest, EveryWayIntoTheStoreNeedsRoom) {
  run([&]() -> Task<> {
    EXPECT_TRUE(co_await images.load());
    Bytes asked = 0;
    images.set_room([&](const std::string& project, Bytes size) -> Result<std::shared_ptr<void>> {
      EXPECT_EQ(project, "default");
      asked += size;
      return fail(ErrorKind::denied, "the project is full");
    });
    const auto fingerprint = serve("tiny", "ten bytes!");
    const auto refused = [&](const char* way, Result<> result) {
      EXPECT_EQ(kind_of(result), ErrorKind::denied) << way;
      EXPECT_EQ(asked, 10u) << way;
      EXPECT_TRUE(here().empty()) << way;
      EXPECT_TRUE(files.files.empty()) << way;
      asked = 0;
    };
    ImportImage upload;
    upload.metadata_file = files.upload("ten bytes!");
    refused("an upload", co_await done(images.import(root, upload)));
    refused("an image that an instance needs", co_await done(images.fetch(root, wanted("tiny"))));
    refused("a copy from a server", co_await done(images.fetch(root, wanted("tiny", false))));
    PullImage pull;
    pull.server = far;
    pull.fingerprint = fingerprint;
    refused("a pull", co_await done(transfers.pull(root, pull)));
    ImportImage announced;
    announced.expected_fingerprint = fingerprint;
    auto token = transfers.expect(root, announced);
    EXPECT_TRUE(token);
    if (!token) co_return;
    const std::string secret((*token)->to_json_for_creator().at("metadata").at("secret").as_string());
    auto expected = transfers.take_expected(secret, fingerprint);
    EXPECT_TRUE(expected);
    if (!expected) co_return;
    ImportImage brought;
    brought.metadata_file = files.upload("ten bytes!");
    refused("a push", co_await done(transfers.take_in(std::move(*expected), std::move(brought))));
  });
}

}  // namespace
}  // namespace virga::engine
