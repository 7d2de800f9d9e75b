// For tests: the whole API over real sockets, on the engine's services with a memory store and fake drivers.
#pragma once

#include <fmt/format.h>

#include <filesystem>
#include <optional>

#include "api/api.h"
#include "base/random.h"
#include "drivers/compute/fake/fake.h"
#include "drivers/network/fake/fake.h"
#include "drivers/remote/fake/fake.h"
#include "drivers/storage/fake/fake.h"
#include "engine/certificates/service.h"
#include "engine/events/events.h"
#include "engine/images/service.h"
#include "engine/images/transfers.h"
#include "engine/instances/service.h"
#include "engine/journal/journal.h"
#include "engine/networks/service.h"
#include "engine/operations/operations.h"
#include "engine/pools/service.h"
#include "engine/profiles/service.h"
#include "engine/projects/service.h"
#include "engine/sampler/sampler.h"
#include "engine/server/service.h"
#include "engine/warnings/service.h"
#include "store/memory/store.h"
#include "wire/http/files.h"
#include "wire/http/fixture_test.h"

namespace virga::api::testing {

/// Image files in a directory, and a reader that takes every file for a container's image unless it begins with "vm".
class PlainImages final : public image::Reader, public image::Files {
 public:
  explicit PlainImages(std::string directory) : directory_(std::move(directory)) {}
  Task<Result<image::Inspection>> inspect(std::string metadata, std::string) override {
    image::Inspection out;
    out.metadata.architecture = "x86_64";
    auto text = http::read_small_file(metadata);
    if (!text) co_return fail(std::move(text).error());
    if (text->starts_with("vm")) out.type = image::Type::virtual_machine;
    if (text->starts_with("bad")) co_return fail(ErrorKind::invalid, "not an image");
    co_return out;
  }
  Task<Result<image::Inspection>> unpack(image::UnpackRequest request) override { return inspect(request.metadata_file, ""); }
  Task<Result<>> open() override { co_return Result<>{}; }
  std::string new_upload_path() override { return fmt::format("{}/upload-{}", directory_, next_++); }
  Task<Result<image::Digest>> digest(std::string metadata, std::string rootfs) override {
    VIRGA_CO_TRY(auto text, http::read_small_file(metadata));
    if (!rootfs.empty()) {
      VIRGA_CO_TRY(auto more, http::read_small_file(rootfs));
      text += more;
    }
    co_return image::Digest{sha256_hex(text), text.size()};
  }
  Task<Result<>> keep(std::string metadata, std::string rootfs, std::string fingerprint) override {
    std::filesystem::rename(metadata, metadata_path(fingerprint));
    if (!rootfs.empty()) std::filesystem::rename(rootfs, rootfs_path(fingerprint));
    co_return Result<>{};
  }
  Task<Result<>> remove(std::string) override { co_return Result<>{}; }
  Task<Result<>> discard_upload(std::string path) override {
    std::filesystem::remove(path);
    co_return Result<>{};
  }
  Task<Result<>> sweep(std::set<std::string>) override { co_return Result<>{}; }
  std::string metadata_path(const std::string& fingerprint) const override { return directory_ + "/" + fingerprint; }
  std::string rootfs_path(const std::string& fingerprint) const override { return directory_ + "/" + fingerprint + ".rootfs"; }
  /// Uploads that nobody took or discarded.
  int uploads_left() const {
    int n = 0;
    for (const auto& entry : std::filesystem::directory_iterator(directory_))
      n += entry.path().filename().string().starts_with("upload-") ? 1 : 0;
    return n;
  }

 private:
  std::string directory_;
  int next_ = 0;
};

struct Engine {
  Engine(Executor executor, std::string directory)
      : events(executor),
        journal(store),
        operations(executor, events),
        server(store, events),
        warnings(executor, store, events),
        certificates(executor, store, events, operations),
        projects(store, events),
        profiles(store, events),
        images_on_disk(directory),
        pools({store,
               journal,
               operations,
               events,
               {{"dir", [](std::string s) { return std::make_unique<storage::FakeDriver>(std::move(s)); }}},
               directory},
              executor),
        networks({store, journal, operations, events, network, directory}, executor),
        images(
            {store, journal, operations, events, images_on_disk, images_on_disk, clock,
             [this](const std::string& p) { return projects.images_of(p).value_or(p); }, [this] { return pools.open_drivers(); }},
            executor),
        transfers(images, operations, remotes, executor),
        instances({store, journal, operations, events, projects, profiles, pools, networks, images, containers, vms, clock,
                   directory, "boot"},
                  executor),
        sampler(executor, clock, [this] { return running_guests(); }) {}

  std::vector<engine::Sampler::Guest> running_guests() {
    std::vector<engine::Sampler::Guest> out;
    for (const auto& i : instances.list(std::nullopt))
      if (i->status == InstanceStatus::running) out.push_back({i->uuid, i->type == InstanceType::container ? &containers : &vms});
    return out;
  }

  Task<Result<>> start() {
    VIRGA_CO_CHECK(co_await server.start());
    VIRGA_CO_CHECK(co_await warnings.start());
    projects.set_companions({[this](const Project& p, Transaction& t) { profiles.project_made(p, t); },
                             [this](const Project& p, Transaction& t) { profiles.project_gone(p, t); },
                             [this](const std::string& name, const std::string& new_name, Transaction& t) {
                               certificates.project_moved(name, new_name, t);
                             }});
    profiles.set_usage(
        [this](std::string_view p, std::string_view n) { return instances.users_of_profile(std::string(p), std::string(n)); });
    profiles.set_policy([this](const Profile& next) { return instances.check_profile(next); });
    profiles.on_change([this](const std::string& p, const std::string& n) { instances.profile_changed(p, n); });
    projects.set_usage([this](std::string_view p) { return instances.users_of_project(std::string(p)); });
    projects.policy().set_instances([this](const std::string& project) { return instances.counted(project); });
    projects.policy().add_contents([this](const std::string& project, Amounts& sum) {
      for (const auto& image : images.list(project))
        if (image->project == project) sum["disk"] += static_cast<std::int64_t>(image->size);
      if (project == "default") sum["networks"] += static_cast<std::int64_t>(networks.list().size());
    });
    networks.set_room([this] { return projects.policy().check("default", {{"networks", 1}}); });
    images.set_room([this](const std::string& project, Bytes size) {
      return projects.policy().check(project, {{"disk", static_cast<std::int64_t>(size)}});
    });
    certificates.set_server_info(
        [this] { return engine::Certificates::ServerInfo{server.identity().fingerprint, {"127.0.0.1:1"}}; });
    VIRGA_CO_CHECK(co_await certificates.start());
    VIRGA_CO_CHECK(co_await projects.start());
    VIRGA_CO_CHECK(co_await profiles.start());
    VIRGA_CO_CHECK(co_await pools.load());
    co_await pools.start();
    VIRGA_CO_CHECK(co_await networks.load());
    VIRGA_CO_CHECK(co_await images.load());
    VIRGA_CO_CHECK(co_await instances.load());
    co_await networks.start();
    VIRGA_CO_CHECK(co_await images.resume());
    co_return co_await instances.resume();
  }

  Task<> stop() {
    co_await operations.stop();
    co_await sampler.stop();
    co_await warnings.stop();
    co_await instances.shut_down();
    co_await images.stop();
    co_await networks.shut_down();
    co_await pools.shut_down();
    events.stop();
  }

  SystemClock clock;
  MemoryStore store;
  engine::Events events;
  engine::Journal journal;
  engine::Operations operations;
  engine::Server server;
  engine::Warnings warnings;
  engine::Certificates certificates;
  engine::Projects projects;
  engine::Profiles profiles;
  PlainImages images_on_disk;
  compute::FakeDriver containers{compute::Kind::container};
  compute::FakeDriver vms{compute::Kind::virtual_machine};
  network::FakeDriver network;
  engine::Pools pools;
  engine::Networks networks;
  engine::Images images;
  remote::FakeDriver remotes;
  engine::ImageTransfers transfers;
  engine::Instances instances;
  engine::Sampler sampler;
};

/// One answer, decoded.
struct Answer {
  int status = 0;
  json::object body;
  http::ClientResponse raw;
  const json::value& metadata() const { return body.at("metadata"); }
  std::string error() const { return std::string(body.at("error").as_string()); }
  std::string header(std::string_view name) const { return std::string(raw.header(name)); }
};

struct Site : ::testing::Test {
  Site() {
    loop.call([&] { engine.emplace(loop.executor(), directory.path()); });
    auto started = loop.run([&]() -> Task<Result<>> { co_return co_await engine->start(); });
    EXPECT_TRUE(started) << started.error().text();
    loop.call([&] {
      api.emplace(Services{engine->operations,
                           engine->events,
                           engine->projects,
                           engine->profiles,
                           engine->pools,
                           engine->networks,
                           engine->images,
                           engine->instances,
                           engine->certificates,
                           engine->server,
                           engine->sampler,
                           engine->warnings,
                           engine->transfers,
                           {.version = "test"}},
                  loop.executor());
      server.emplace(loop.executor(), api->handler(), Api::server_options());
      engine->certificates.on_removed([this](const std::string& fingerprint) { server->close_certificate(fingerprint); });
      auto unix_ok = server->listen_unix(directory.path() + "/api");
      EXPECT_TRUE(unix_ok);
      auto address = server->listen_tls("127.0.0.1:0", {engine->server.identity().certificate, engine->server.identity().key});
      EXPECT_TRUE(address) << address.error().text();
      tls.host = "127.0.0.1";
      tls.port = static_cast<std::uint16_t>(std::stoi(address->substr(address->rfind(':') + 1)));
      tls.server_fingerprint = engine->server.identity().fingerprint;
      local.unix_path = directory.path() + "/api";
    });
  }
  ~Site() override {
    loop.run([&]() -> Task<http::testing::Done> {
      co_await server->stop();
      co_await api->stop();
      co_await engine->stop();
      co_return http::testing::Done{};
    });
    loop.call([&] {
      server.reset();
      api.reset();
      engine.reset();
    });
  }

  Answer send(const http::Endpoint& endpoint, http::ClientRequest request) {
    Answer out;
    auto response = loop.run([&]() -> Task<Result<http::ClientResponse>> {
      http::Client client(endpoint);
      co_return co_await client.request(std::move(request));
    });
    EXPECT_TRUE(response) << response.error().text();
    if (!response) return out;
    out.raw = std::move(*response);
    out.status = out.raw.status;
    if (auto body = parse_json_object(out.raw.body)) out.body = std::move(*body);
    return out;
  }
  Answer call(std::string method, std::string target, std::string body = "",
              std::vector<std::pair<std::string, std::string>> headers = {}) {
    http::ClientRequest request;
    request.method = std::move(method);
    request.target = std::move(target);
    request.body = std::move(body);
    request.headers = std::move(headers);
    return send(local, std::move(request));
  }
  Answer get(std::string target) { return call("GET", std::move(target)); }
  /// Sends a change, and where it is an operation waits for its end; the operation's error, or empty.
  std::string change(std::string method, std::string target, std::string body = "") {
    auto answer = call(std::move(method), std::move(target), std::move(body));
    if (answer.status >= 400) return fmt::format("{}: {}", answer.status, answer.error());
    if (answer.status != 202) return {};
    auto done = get(std::string(answer.body.at("operation").as_string()) + "/wait");
    return std::string(done.metadata().at("err").as_string());
  }
  /// A pool, a network, the default profile and an image "tiny".
  void make_world() {
    EXPECT_EQ(change("POST", "/1.0/storage-pools", R"({"name":"default","driver":"dir"})"), "");
    EXPECT_EQ(change("POST", "/1.0/networks", R"({"name":"br0","config":{"ipv4.address":"10.7.7.1/24","ipv6.address":"none"}})"),
              "");
    EXPECT_EQ(change("PUT", "/1.0/profiles/default",
                     R"({"devices":{"root":{"type":"disk","path":"/","pool":"default"},"eth0":{"type":"nic","network":"br0"}}})"),
              "");
    upload("tiny image", {});
    EXPECT_EQ(change("POST", "/1.0/images/aliases", fmt::format(R"({{"name":"tiny","target":"{}"}})", sha256_hex("tiny image"))),
              "");
  }
  std::string upload(std::string bytes, std::vector<std::pair<std::string, std::string>> headers) {
    headers.emplace_back("Content-Type", "application/octet-stream");
    auto answer = call("POST", "/1.0/images", std::move(bytes), std::move(headers));
    if (answer.status != 202) return fmt::format("{}: {}", answer.status, answer.error());
    return std::string(get(std::string(answer.body.at("operation").as_string()) + "/wait").metadata().at("err").as_string());
  }
  std::string launch(std::string name, std::string more = "") {
    return change("POST", "/1.0/instances",
                  fmt::format(R"({{"name":"{}","start":true,"source":{{"type":"image","alias":"tiny"}}{}}})", name, more));
  }

  http::testing::TemporaryDirectory directory;
  http::testing::Loop loop;
  std::optional<Engine> engine;
  std::optional<Api> api;
  std::optional<http::Server> server;
  http::Endpoint local, tls;
};

}  // namespace virga::api::testing
