// The service over memory store and fake drivers: what clients see, and what is left when steps fail or the daemon dies.
#include <gtest/gtest.h>

#include <filesystem>

#include "base/random.h"
#include "drivers/compute/fake/fake.h"
#include "drivers/network/fake/fake.h"
#include "drivers/storage/fake/fake.h"
#include "engine/images/service.h"
#include "engine/instances/service.h"
#include "engine/journal/journal.h"
#include "engine/networks/service.h"
#include "engine/operations/operations.h"
#include "engine/pools/service.h"
#include "engine/profiles/service.h"
#include "engine/projects/service.h"
#include "engine/service_test.h"
#include "engine/url.h"

namespace virga::engine {
namespace {

const std::string fingerprint(64, 'a'), vm_fingerprint(64, 'b');

/// An image of each kind: of a virtual machine where the upload is called so.
struct OneImage final : image::Reader, image::Files {
  Task<Result<image::Inspection>> inspect(std::string path, std::string) override {
    image::Inspection i;
    i.metadata.architecture = "x86_64";
    if (path == "vm" || path == vm_fingerprint) i.type = image::Type::virtual_machine;
    co_return i;
  }
  Task<Result<image::Inspection>> unpack(image::UnpackRequest request) override {
    co_return co_await inspect(std::move(request.metadata_file), "");
  }
  Task<Result<>> open() override { co_return Result<>{}; }
  std::string new_upload_path() override { return "upload"; }
  Task<Result<image::Digest>> digest(std::string path, std::string) override {
    co_return image::Digest{path == "vm" ? vm_fingerprint : fingerprint, 1};
  }
  Task<Result<>> keep(std::string, std::string, std::string) override { co_return Result<>{}; }
  Task<Result<>> remove(std::string) override { co_return Result<>{}; }
  Task<Result<>> discard_upload(std::string) override { co_return Result<>{}; }
  Task<Result<>> sweep(std::set<std::string>) override { co_return Result<>{}; }
  std::string metadata_path(const std::string& f) const override { return f; }
  std::string rootfs_path(const std::string& f) const override { return f; }
};

/// What dies with the daemon; the store and the fake world outlive it.
struct Daemon {
  Daemon(ServiceTest& t, std::shared_ptr<compute::FakeWorld> world, std::string dir)
      : journal(t.store),
        operations(t.io.get_executor(), t.events, t.clock),
        projects(t.store, t.events),
        profiles(t.store, t.events),
        containers(compute::Kind::container, world),
        vms(compute::Kind::virtual_machine, world),
        pools(Pools::Parts{t.store,
                           journal,
                           operations,
                           t.events,
                           {{"dir", [](std::string s) { return std::make_unique<storage::FakeDriver>(std::move(s)); }}},
                           dir},
              t.io.get_executor()),
        networks(Networks::Parts{t.store, journal, operations, t.events, network, dir}, t.io.get_executor()),
        images(Images::Parts{t.store, journal, operations, t.events, image, image, t.clock, [](const std::string& p) { return p; },
                             [this] { return pools.open_drivers(); }},
               t.io.get_executor()),
        instances(Instances::Parts{t.store, journal, operations, t.events, projects, profiles, pools, networks, images, containers,
                                   vms, t.clock, dir, "boot"},
                  t.io.get_executor()) {}

  Task<> start() {
    EXPECT_TRUE(co_await projects.start());
    EXPECT_TRUE(co_await profiles.start());
    EXPECT_TRUE(co_await pools.load());
    co_await pools.start();
    EXPECT_TRUE(co_await networks.load());
    EXPECT_TRUE(co_await images.load());
    EXPECT_TRUE(co_await instances.load());
    auto problems = co_await journal.recover();
    EXPECT_TRUE(problems.empty());
    co_await networks.start();
    EXPECT_TRUE(co_await instances.resume());
    profiles.set_usage(
        [this](std::string_view p, std::string_view n) { return instances.users_of_profile(std::string(p), std::string(n)); });
    profiles.set_policy([this](const Profile& next) { return instances.check_profile(next); });
    profiles.on_change([this](const std::string& p, const std::string& n) { instances.profile_changed(p, n); });
  }

  OneImage image;
  Journal journal;
  Operations operations;
  Projects projects;
  Profiles profiles;
  compute::FakeDriver containers, vms;
  network::FakeDriver network;
  Pools pools;
  Networks networks;
  Images images;
  Instances instances;
};

struct InstancesTest : ServiceTest {
  std::string dir = (std::filesystem::temp_directory_path() / ("virga-instances-" + random_hex(6))).string();
  std::shared_ptr<compute::FakeWorld> world = std::make_shared<compute::FakeWorld>();
  std::unique_ptr<Daemon> daemon;

  /// Services keep timers for what they try again: the loop never runs dry, so it runs until the body has ended.
  template <class F>
  void run(F body) {
    bool finished = false;
    auto wrapped = [&]() -> Task<> {
      co_await body();
      finished = true;
    };
    group.spawn("test", wrapped());
    while (!finished && group.failures() == 0) io.run_one();
    EXPECT_TRUE(finished);
  }

  void SetUp() override {
    std::filesystem::create_directories(dir);
    daemon = std::make_unique<Daemon>(*this, world, dir);
    run([&]() -> Task<> {
      co_await daemon->start();
      CreatePool pool;
      pool.name = "default";
      EXPECT_TRUE(co_await daemon->pools.create(root, pool));
      CreateNetwork network;
      network.name = "virgabr0";
      EXPECT_TRUE(co_await daemon->networks.create(root, network));
      Profiles::Update update;
      update.devices = {{"root", {{"type", "disk"}, {"path", "/"}, {"pool", "default"}}},
                        {"eth0", {{"type", "nic"}, {"network", "virgabr0"}}}};
      EXPECT_TRUE(co_await daemon->profiles.update("default", "default", update, {}, root));
      ImportImage import;
      import.metadata_file = "upload";
      import.aliases = {{"tiny", ""}};
      co_await finished(daemon->images.import(root, import));
    });
  }
  void TearDown() override { std::filesystem::remove_all(dir); }

  /// Waits for an operation and returns its error.
  Task<std::optional<Error>> finished(Result<OperationPtr> operation) {
    if (!operation) co_return operation.error();
    auto done = co_await daemon->operations.wait((*operation)->id(), std::nullopt);
    co_return (*done)->error();
  }
  CreateInstance request(std::string name) {
    CreateInstance r;
    r.name = std::move(name);
    r.image_alias = "tiny";
    return r;
  }
  Task<std::optional<Error>> create(std::string name) {
    co_return co_await finished(co_await daemon->instances.create(root, request(std::move(name))));
  }
  Task<std::optional<Error>> change(std::string name, StateAction action) {
    StateChange c;
    c.action = action;
    c.force = true;
    co_return co_await finished(daemon->instances.change_state(root, "default", name, c));
  }
  InstanceStatus status(const std::string& name) { return daemon->instances.find("default", name)->status; }
};

TEST_F(InstancesTest, LivesThroughAllItsStates) {
  run([&]() -> Task<> {
    EXPECT_EQ(co_await create("web"), std::nullopt);
    auto web = daemon->instances.find("default", "web");
    EXPECT_TRUE(web && web->status == InstanceStatus::stopped && !web->config.at("volatile.eth0.hwaddr").empty());
    EXPECT_EQ(co_await change("web", StateAction::start), std::nullopt);
    EXPECT_EQ(status("web"), InstanceStatus::running);
    EXPECT_EQ(daemon->network.nics.size(), 1u);
    EXPECT_EQ(co_await change("web", StateAction::freeze), std::nullopt);
    EXPECT_EQ(status("web"), InstanceStatus::frozen);
    EXPECT_EQ(co_await change("web", StateAction::unfreeze), std::nullopt);
    EXPECT_EQ(co_await change("web", StateAction::restart), std::nullopt);
    EXPECT_EQ(status("web"), InstanceStatus::running);
    EXPECT_FALSE(daemon->instances.remove(root, "default", "web")) << "it runs";
    EXPECT_EQ(co_await change("web", StateAction::stop), std::nullopt);
    EXPECT_EQ(daemon->network.nics.size(), 0u);
    EXPECT_EQ(co_await finished(daemon->instances.move(root, "default", "web", {.project = {}, .name = "db", .changes = {}})),
              std::nullopt);
    EXPECT_EQ(daemon->instances.find("default", "web"), nullptr);
    EXPECT_EQ(co_await change("db", StateAction::start), std::nullopt);
    EXPECT_EQ(co_await change("db", StateAction::stop), std::nullopt);
    EXPECT_EQ(co_await finished(daemon->instances.remove(root, "default", "db")), std::nullopt);
    EXPECT_TRUE(world->guests.empty());
    auto left = co_await store.list("/instances/");
    EXPECT_TRUE(left && left->empty());
    left = co_await store.list("/network-addresses/");
    EXPECT_TRUE(left && left->empty());
  });
}

TEST_F(InstancesTest, AVirtualMachineGetsItsTemplatesWhenItsAgentAnswers) {
  using Written = std::map<std::string, std::string>;
  const auto silent = Error(ErrorKind::unavailable, "no agent answers");
  const auto due = [&] { return daemon->instances.find("default", "vm")->config.contains("volatile.templates.due"); };
  const auto until_written = [&]() -> Task<> {
    for (int n = 0; n < 5000 && due(); ++n) co_await sleep_for(Milliseconds(1));
  };
  run([&]() -> Task<> {
    ImportImage import;
    import.metadata_file = "vm";
    import.aliases = {{"machine", ""}};
    EXPECT_EQ(co_await finished(daemon->images.import(root, import)), std::nullopt);
    auto r = request("vm");
    r.type = InstanceType::virtual_machine;
    r.image_alias = "machine";
    EXPECT_EQ(co_await finished(co_await daemon->instances.create(root, r)), std::nullopt);
    auto document = parse_json_object(R"({"templates":{
      "/etc/once":{"when":["create"],"template":"a.tpl"},"/etc/always":{"when":["start"],"template":"a.tpl"}}})");
    EXPECT_TRUE(co_await daemon->instances.set_metadata(root, "default", "vm", *document));
    EXPECT_TRUE(co_await daemon->instances.write_template(root, "default", "vm", "a.tpl", "{% nonsense %}"));
    auto refused = co_await change("vm", StateAction::start);
    EXPECT_TRUE(refused && refused->chain().find("template") != std::string::npos) << "it is known before anything starts";
    EXPECT_EQ(status("vm"), InstanceStatus::stopped);
    EXPECT_TRUE(co_await daemon->instances.write_template(root, "default", "vm", "a.tpl", "{{ instance.name }} {{ trigger }}"));
    EXPECT_EQ(co_await change("vm", StateAction::start), std::nullopt);
    co_await until_written();
    EXPECT_EQ(world->written, (Written{{"/etc/once", "vm create"}, {"/etc/always", "vm start"}}));
    EXPECT_FALSE(daemon->instances.find("default", "vm")->config.contains("volatile.apply_template"));

    world->written.clear();
    EXPECT_EQ(co_await change("vm", StateAction::restart), std::nullopt);
    co_await until_written();
    EXPECT_EQ(world->written, (Written{{"/etc/always", "vm start"}}));

    // One that stops before its agent has answered gets them at the next start.
    world->written.clear();
    EXPECT_EQ(co_await change("vm", StateAction::stop), std::nullopt);
    world->fail_next.insert_or_assign("write_running", silent);
    EXPECT_EQ(co_await change("vm", StateAction::start), std::nullopt);
    EXPECT_TRUE(due());
    co_await sleep_for(Milliseconds(5));
    EXPECT_TRUE(due() && world->written.empty()) << "no agent yet";
    EXPECT_EQ(co_await change("vm", StateAction::stop), std::nullopt);
    EXPECT_EQ(co_await change("vm", StateAction::start), std::nullopt);
    co_await until_written();
    EXPECT_EQ(world->written, (Written{{"/etc/always", "vm start"}}));

    world->written.clear();
    EXPECT_EQ(co_await change("vm", StateAction::stop), std::nullopt);
    world->fail_next.insert_or_assign("write_running", silent);
    EXPECT_EQ(co_await change("vm", StateAction::start), std::nullopt);
    co_await sleep_for(Milliseconds(5));
    EXPECT_TRUE(due());
  });
  // The daemon is killed meanwhile; the next one goes on.
  daemon.reset();
  daemon = std::make_unique<Daemon>(*this, world, dir);
  run([&]() -> Task<> {
    co_await daemon->start();
    co_await until_written();
    EXPECT_EQ(world->written, (Written{{"/etc/always", "vm start"}}));
    EXPECT_EQ(status("vm"), InstanceStatus::running);
  });
}

TEST_F(InstancesTest, AnImageMayNameTheProfilesOfItsInstances) {
  run([&]() -> Task<> {
    Profile small;
    small.project = "default";
    small.name = "small";
    small.config = {{"user.from", "image"}};
    small.devices = {{"root", {{"type", "disk"}, {"path", "/"}, {"pool", "default"}}}};
    EXPECT_TRUE(co_await daemon->profiles.create(small, root));
    UpdateImage update;
    update.profiles = {{"small"}};
    update.replace = false;
    EXPECT_TRUE(co_await daemon->images.update(root, "default", fingerprint, update, {}));
    EXPECT_EQ(co_await create("a"), std::nullopt);
    const auto a = daemon->instances.find("default", "a");
    EXPECT_EQ(a->profiles, std::vector<std::string>{"small"});
    EXPECT_EQ(a->expanded_config.at("user.from"), "image");
    EXPECT_FALSE(a->expanded_devices.contains("eth0"));
    auto r = request("b");
    r.profiles = {{"default"}};
    EXPECT_EQ(co_await finished(co_await daemon->instances.create(root, r)), std::nullopt);
    EXPECT_EQ(daemon->instances.find("default", "b")->profiles, std::vector<std::string>{"default"}) << "who names some gets those";
    update.profiles = {{"gone"}};
    EXPECT_TRUE(co_await daemon->images.update(root, "default", fingerprint, update, {}));
    auto refused = co_await create("c");
    EXPECT_TRUE(refused && refused->text().find("gone") != std::string::npos);
    EXPECT_EQ(daemon->instances.find("default", "c"), nullptr);
  });
}

TEST_F(InstancesTest, AFailedStartLeavesNothingAndCanBeTriedAgain) {
  run([&]() -> Task<> {
    EXPECT_EQ(co_await create("web"), std::nullopt);
    for (auto call : {"create", "start"}) {
      world->fail_next.insert_or_assign(call, Error(ErrorKind::unavailable, "no luck"));
      auto error = co_await change("web", StateAction::start);
      EXPECT_TRUE(error && error->chain().find("no luck") != std::string::npos) << call;
      EXPECT_EQ(status("web"), InstanceStatus::stopped);
      EXPECT_TRUE(world->guests.empty());
      EXPECT_TRUE(daemon->network.nics.empty());
    }
    EXPECT_EQ(co_await change("web", StateAction::start), std::nullopt);
  });
}

TEST_F(InstancesTest, WrongRequestsAreAnsweredAtOnceWithTheField) {
  run([&]() -> Task<> {
    auto bad = [&](CreateInstance r, std::string_view field) -> Task<> {
      auto answer = co_await daemon->instances.create(root, std::move(r));
      EXPECT_FALSE(answer.has_value());
      if (!answer) EXPECT_EQ(answer.error().field(), field) << answer.error().text();
    };
    co_await bad(request("bad_name"), "name");
    auto r = request("x");
    r.config = {{"limits.memori", "1GiB"}};
    co_await bad(r, "config.limits.memori");
    r = request("x");
    r.config = {{"volatile.uuid", "mine"}};
    co_await bad(r, "config.volatile.uuid");
    r = request("x");
    r.devices = {{"root", {{"type", "disk"}, {"path", "/"}, {"pool", "none"}}}};
    co_await bad(r, "devices.root.pool");
    r = request("x");
    r.profiles = std::vector<std::string>{"none"};
    co_await bad(r, "profiles");
    EXPECT_EQ(daemon->instances.list(std::nullopt).size(), 0u);
  });
}

TEST_F(InstancesTest, AConflictNamesTheOperationInTheWay) {
  run([&]() -> Task<> {
    EXPECT_EQ(co_await create("web"), std::nullopt);
    auto claim = daemon->operations.claim(instance_url("default", "web"), "Backing up");
    auto refused = daemon->instances.change_state(root, "default", "web", StateChange{});
    EXPECT_FALSE(refused);
    if (!refused) {
      EXPECT_EQ(refused.error().kind(), ErrorKind::busy);
      EXPECT_NE(refused.error().chain().find("Backing up"), std::string::npos);
    }
  });
}

TEST_F(InstancesTest, GuestsOutliveTheDaemonAndThoseThatEndedAreCleared) {
  run([&]() -> Task<> {
    EXPECT_EQ(co_await create("a"), std::nullopt);
    EXPECT_EQ(co_await create("b"), std::nullopt);
    EXPECT_EQ(co_await change("a", StateAction::start), std::nullopt);
    EXPECT_EQ(co_await change("b", StateAction::start), std::nullopt);
  });
  const auto a = daemon->instances.find("default", "a"), b = daemon->instances.find("default", "b");
  daemon.reset();
  world->guests.erase(b->uuid);
  daemon = std::make_unique<Daemon>(*this, world, dir);
  run([&]() -> Task<> { co_await daemon->start(); });
  EXPECT_EQ(status("a"), InstanceStatus::running);
  EXPECT_EQ(status("b"), InstanceStatus::stopped);
  EXPECT_EQ(daemon->instances.find("default", "b")->config.at("volatile.last_state.power"), "STOPPED");
}

TEST_F(InstancesTest, AGuestThatCouldNotBeTakenUpIsLeftAloneUntilItIsEnded) {
  run([&]() -> Task<> {
    auto r = request("db");
    r.start = true;
    EXPECT_FALSE(co_await finished(co_await daemon->instances.create(root, r)));
    co_await daemon->instances.shut_down();
    daemon = nullptr;
    world->fail_next.insert_or_assign("adopt", Error(ErrorKind::timeout, "its shim does not answer"));
    daemon = std::make_unique<Daemon>(*this, world, dir);
    co_await daemon->start();
    EXPECT_EQ(daemon->instances.find("default", "db")->status, InstanceStatus::error);

    auto started = co_await finished(daemon->instances.change_state(root, "default", "db", {.action = StateAction::start}));
    EXPECT_TRUE(started);
    if (started) EXPECT_EQ(started->kind(), ErrorKind::busy) << started->text();
    auto removed = daemon->instances.remove(root, "default", "db");
    EXPECT_FALSE(removed);
    EXPECT_EQ(world->guests.size(), 1u) << "the guest runs on";

    StateChange end{.action = StateAction::stop, .force = true};
    EXPECT_FALSE(co_await finished(daemon->instances.change_state(root, "default", "db", end)));
    EXPECT_EQ(world->guests.size(), 0u);
    EXPECT_EQ(daemon->instances.find("default", "db")->status, InstanceStatus::stopped);
    EXPECT_FALSE(co_await finished(daemon->instances.remove(root, "default", "db"))) << "what was ended need not be taken up";
  });
}

TEST_F(InstancesTest, GuestsThatDoNotAnswerDoNotKeepTheDaemonFromStarting) {
  run([&]() -> Task<> {
    auto r = request("db");
    r.start = true;
    EXPECT_FALSE(co_await finished(co_await daemon->instances.create(root, r)));
    co_await daemon->instances.shut_down();
    daemon = nullptr;
    world->delay = std::chrono::seconds(60);
    daemon = std::make_unique<Daemon>(*this, world, dir);
    const auto began = std::chrono::steady_clock::now();
    co_await daemon->start();
    EXPECT_LT(std::chrono::steady_clock::now() - began, std::chrono::seconds(10));
    EXPECT_EQ(daemon->instances.find("default", "db")->status, InstanceStatus::error);
    world->delay = {};
    for (int i = 0; i < 100 && daemon->instances.find("default", "db")->status == InstanceStatus::error; ++i)
      co_await sleep_for(Milliseconds(50));
    EXPECT_EQ(daemon->instances.find("default", "db")->status, InstanceStatus::running) << "taken up later";
  });
}

TEST_F(InstancesTest, UpdatesAreCheckedAsAWholeAndKeepWhatIsOurs) {
  run([&]() -> Task<> {
    EXPECT_EQ(co_await create("web"), std::nullopt);
    UpdateInstance u;
    u.config = Config{{"user.note", "x"}, {"limits.memory", "64MiB"}};
    EXPECT_EQ(co_await finished(daemon->instances.update(root, "default", "web", u, {})), std::nullopt);
    auto web = daemon->instances.find("default", "web");
    EXPECT_EQ(web->config.at("user.note"), "x");
    EXPECT_FALSE(web->config.at("volatile.eth0.hwaddr").empty());
    EXPECT_EQ(daemon->instances.update(root, "default", "web", u, web->revision - 1).error().kind(), ErrorKind::conflict);
    u.config = Config{{"volatile.uuid", "other"}};
    EXPECT_EQ(daemon->instances.update(root, "default", "web", u, {}).error().field(), "config.volatile.uuid");
    u = {};
    u.devices = Devices{{"root", {{"type", "none"}}}};
    EXPECT_FALSE(daemon->instances.update(root, "default", "web", u, {})) << "no root";
    Profiles::Update broken;
    auto refused = co_await daemon->profiles.update("default", "default", broken, {}, root);
    EXPECT_FALSE(refused.has_value()) << "an instance would lose its root";
  });
}

TEST_F(InstancesTest, ManyAtOnceGetNamesAddressesAndIdsOfTheirOwn) {
  run([&]() -> Task<> {
    std::vector<OperationPtr> operations;
    for (int n = 0; n < 100; ++n) {
      auto started = co_await daemon->instances.create(root, request("i" + std::to_string(n)));
      EXPECT_TRUE(started.has_value());
      if (started) operations.push_back(*started);
    }
    for (auto& o : operations) EXPECT_EQ(co_await finished(o), std::nullopt);
    std::set<std::string> macs;
    std::set<std::uint32_t> ids;
    for (const auto& i : daemon->instances.list(std::nullopt)) {
      macs.insert(i->config.at("volatile.eth0.hwaddr"));
      ids.insert(i->id_base);
    }
    EXPECT_EQ(macs.size(), 100u);
    EXPECT_EQ(ids.size(), 100u);
  });
}

TEST_F(InstancesTest, AGuestThatEndsIsStoppedAndAnEphemeralOneGoes) {
  run([&]() -> Task<> {
    EXPECT_EQ(co_await create("web"), std::nullopt);
    EXPECT_EQ(co_await change("web", StateAction::start), std::nullopt);
    auto r = request("brief");
    r.ephemeral = true;
    r.start = true;
    EXPECT_EQ(co_await finished(co_await daemon->instances.create(root, r)), std::nullopt);
    const auto web = daemon->instances.find("default", "web"), brief = daemon->instances.find("default", "brief");
    daemon->containers.end_guest(web->uuid, 0);
    daemon->containers.end_guest(brief->uuid, 0);
    for (int n = 0; n < 1000 && (daemon->instances.find("default", "brief") || status("web") != InstanceStatus::stopped); ++n)
      co_await sleep_for(Milliseconds(1));
    EXPECT_EQ(status("web"), InstanceStatus::stopped);
    EXPECT_EQ(daemon->instances.find("default", "brief"), nullptr);
  });
}

struct SnapshotsTest : InstancesTest {
  Task<std::optional<Error>> snapshot(std::string name, std::string snapshot = {}) {
    CreateSnapshot r;
    r.name = std::move(snapshot);
    co_return co_await finished(daemon->instances.create_snapshot(root, "default", name, r));
  }
  Task<std::optional<Error>> set(std::string name, Config config) {
    UpdateInstance update;
    update.config = std::move(config);
    update.replace = false;
    co_return co_await finished(daemon->instances.update(root, "default", name, update, {}));
  }
  std::vector<std::string> names(const std::string& name) {
    std::vector<std::string> out;
    for (const auto& s : daemon->instances.snapshots(*daemon->instances.find("default", name))) out.push_back(s->name);
    return out;
  }
  using Names = std::vector<std::string>;
};

TEST_F(SnapshotsTest, KeepTheConfigurationAndGiveItBack) {
  run([&]() -> Task<> {
    EXPECT_EQ(co_await create("web"), std::nullopt);
    EXPECT_EQ(co_await set("web", {{"user.which", "first"}, {"limits.memory", "64MiB"}}), std::nullopt);
    const auto uuid = daemon->instances.find("default", "web")->uuid;
    EXPECT_EQ(co_await snapshot("web"), std::nullopt);
    clock.advance(std::chrono::hours(1));
    EXPECT_EQ(co_await snapshot("web", "named"), std::nullopt);
    EXPECT_EQ((co_await snapshot("web", "named"))->kind(), ErrorKind::exists);
    EXPECT_EQ((co_await snapshot("web", "a/b"))->kind(), ErrorKind::invalid);
    EXPECT_EQ((co_await snapshot("absent"))->kind(), ErrorKind::not_found);
    EXPECT_EQ(names("web"), (Names{"snap0", "named"}));
    EXPECT_EQ(co_await change("web", StateAction::start), std::nullopt);
    EXPECT_EQ(co_await set("web", {{"user.which", "second"}}), std::nullopt);
    const auto mac = daemon->instances.find("default", "web")->config.at("volatile.eth0.hwaddr");

    EXPECT_EQ(co_await finished(daemon->instances.restore(root, "default", "web", "snap0")), std::nullopt);
    const auto web = daemon->instances.find("default", "web");
    EXPECT_EQ(web->config.at("user.which"), "first");
    EXPECT_EQ(web->expanded_config.at("limits.memory"), "64MiB");
    EXPECT_EQ(web->config.at("volatile.eth0.hwaddr"), mac);
    EXPECT_EQ(web->uuid, uuid);
    EXPECT_EQ(web->status, InstanceStatus::running) << "it is started again";
    EXPECT_EQ(names("web"), (Names{"snap0", "named"}));
    EXPECT_EQ(kind_of(daemon->instances.restore(root, "default", "web", "absent")), ErrorKind::not_found);

    EXPECT_EQ(co_await change("web", StateAction::stop), std::nullopt);
    EXPECT_EQ(co_await finished(daemon->instances.move(root, "default", "web", {.project = {}, .name = "db", .changes = {}})),
              std::nullopt);
    EXPECT_EQ(names("db"), (Names{"snap0", "named"}));
    EXPECT_EQ(co_await finished(daemon->instances.rename_snapshot(root, "default", "db", "snap0", "old")), std::nullopt);
    EXPECT_EQ(kind_of(daemon->instances.rename_snapshot(root, "default", "db", "old", "named")), ErrorKind::exists);
    EXPECT_EQ(co_await finished(daemon->instances.remove_snapshot(root, "default", "db", "named")), std::nullopt);
    EXPECT_EQ(names("db"), Names{"old"});
    EXPECT_EQ(co_await finished(daemon->instances.remove(root, "default", "db")), std::nullopt);
    auto left = co_await store.list("/snapshots/");
    EXPECT_TRUE(left && left->empty());
  });
}

TEST_F(SnapshotsTest, AGuestThatRunsIsHeldForAMoment) {
  run([&]() -> Task<> {
    EXPECT_EQ(co_await create("web"), std::nullopt);
    EXPECT_EQ(co_await change("web", StateAction::start), std::nullopt);
    const auto uuid = daemon->instances.find("default", "web")->uuid;
    world->calls.clear();
    EXPECT_EQ(co_await snapshot("web"), std::nullopt);
    EXPECT_EQ(world->calls, (Names{"pause " + uuid, "resume " + uuid}));
    EXPECT_EQ(status("web"), InstanceStatus::running);
    // One that its user has paused stays so.
    EXPECT_EQ(co_await change("web", StateAction::freeze), std::nullopt);
    world->calls.clear();
    EXPECT_EQ(co_await snapshot("web"), std::nullopt);
    EXPECT_EQ(world->calls, Names{});
    EXPECT_EQ(status("web"), InstanceStatus::frozen);
    EXPECT_EQ(co_await change("web", StateAction::unfreeze), std::nullopt);

    auto& disk = dynamic_cast<storage::FakeDriver&>(*daemon->pools.driver("default").value());
    disk.fail_next("create_snapshot", Error(ErrorKind::unavailable, "no space"));
    auto error = co_await snapshot("web");
    EXPECT_TRUE(error && error->chain().find("no space") != std::string::npos);
    EXPECT_EQ(daemon->instances.find("default", "web")->status, InstanceStatus::running);
    EXPECT_EQ(world->guests.at(uuid).status.state, compute::State::running) << "nobody waits";
    EXPECT_EQ(names("web"), (Names{"snap0", "snap1"}));
  });
}

TEST_F(SnapshotsTest, SchedulesAreKeptAndWhatExpiresGoes) {
  run([&]() -> Task<> {
    EXPECT_EQ(co_await create("web"), std::nullopt);
    EXPECT_EQ(co_await create("idle"), std::nullopt);
    auto& instances = daemon->instances;
    std::vector<std::string> told;
    instances.on_scheduled_snapshot([&](const Instance& i, const std::string& error) { told.push_back(i.name + ":" + error); });
    EXPECT_EQ(co_await instances.tend_snapshots(), std::nullopt) << "nothing is to come";
    EXPECT_EQ((co_await set("web", {{"snapshots.schedule", "often"}}))->field(), "config.snapshots.schedule");
    const Config config{{"snapshots.schedule", "*/10 * * * *"}, {"snapshots.expiry", "25M"}, {"snapshots.pattern", "auto-%d"}};
    EXPECT_EQ(co_await set("web", config), std::nullopt);
    EXPECT_EQ(co_await set("idle", config), std::nullopt);
    EXPECT_EQ(co_await change("web", StateAction::start), std::nullopt);
    auto next = co_await instances.tend_snapshots();
    EXPECT_TRUE(next);
    if (!next) co_return;
    EXPECT_LE(*next - clock.now(), std::chrono::minutes(10));
    auto to = [&](WallTime moment) { clock.advance(moment - clock.now()); };
    to(*next - std::chrono::seconds(1));
    EXPECT_EQ(co_await instances.tend_snapshots(), next);
    EXPECT_EQ(names("web"), Names{});
    for (int n = 0; n < 3; ++n) {
      to(*next);
      next = co_await instances.tend_snapshots();
    }
    EXPECT_EQ(names("web"), (Names{"auto-0", "auto-1", "auto-2"}));
    EXPECT_EQ(names("idle"), Names{}) << "it does not run";
    EXPECT_EQ(told, (Names{"web:", "web:", "web:"}));
    // 25 minutes after the first one: between two of the schedule.
    to(*next);
    next = co_await instances.tend_snapshots();
    EXPECT_EQ(names("web"), (Names{"auto-1", "auto-2"}));
    // The daemon was not there for a day: one snapshot, not 144.
    EXPECT_EQ(co_await set("idle", {{"snapshots.schedule.stopped", "true"}}), std::nullopt);
    clock.advance(std::chrono::hours(24));
    next = co_await instances.tend_snapshots();
    EXPECT_EQ(names("web").size(), 1u);
    EXPECT_EQ(names("idle").size(), 1u);
    // A clock that is put back harms nothing.
    clock.advance(-std::chrono::hours(48));
    next = co_await instances.tend_snapshots();
    EXPECT_EQ(names("web").size(), 1u);

    auto& disk = dynamic_cast<storage::FakeDriver&>(*daemon->pools.driver("default").value());
    disk.fail_next("create_snapshot", Error(ErrorKind::unavailable, "no space"));
    EXPECT_EQ(co_await set("idle", {{"snapshots.schedule", "@never"}}), std::nullopt);
    EXPECT_TRUE(next);
    if (!next) co_return;
    told.clear();
    to(*next);
    co_await instances.tend_snapshots();
    EXPECT_EQ(told.size(), 1u);
    EXPECT_TRUE(!told.empty() && told[0].find("no space") != std::string::npos);
  });
}

TEST_F(SnapshotsTest, ExpiryIsTheInstancesOwnOrTheRequests) {
  run([&]() -> Task<> {
    EXPECT_EQ(co_await create("web"), std::nullopt);
    EXPECT_EQ(co_await set("web", {{"snapshots.expiry", "1d"}, {"snapshots.expiry.manual", "2H"}}), std::nullopt);
    auto expires = [&](CreateSnapshot r) -> Task<WallTime> {
      EXPECT_EQ(co_await finished(daemon->instances.create_snapshot(root, "default", "web", r)), std::nullopt);
      co_return daemon->instances.snapshot(*daemon->instances.find("default", "web"), r.name).value()->expires_at;
    };
    const auto now = clock.now();
    EXPECT_EQ(co_await expires({.name = "a", .expires_at = {}}), now + std::chrono::hours(2));
    EXPECT_EQ(co_await expires({.name = "b", .expires_at = WallTime{}}), WallTime{});
    EXPECT_EQ(co_await expires({.name = "c", .expires_at = now + std::chrono::minutes(5)}), now + std::chrono::minutes(5));
    EXPECT_EQ(kind_of(daemon->instances.create_snapshot(root, "default", "web", {.name = "d", .expires_at = now})),
              ErrorKind::invalid);
    EXPECT_EQ(kind_of(daemon->instances.create_snapshot(root, "default", "web", {.name = "d", .expires_at = {}, .stateful = true})),
              ErrorKind::unsupported);
    // More time, in time.
    EXPECT_EQ(co_await finished(daemon->instances.update_snapshot(root, "default", "web", "c", now + std::chrono::hours(9), {})),
              std::nullopt);
    EXPECT_EQ(kind_of(daemon->instances.update_snapshot(root, "default", "web", "c", now, 1)), ErrorKind::conflict);
    clock.advance(std::chrono::hours(3));
    EXPECT_EQ(co_await daemon->instances.tend_snapshots(), now + std::chrono::hours(9));
    EXPECT_EQ(names("web"), (Names{"b", "c"}));
    EXPECT_EQ(co_await set("web", {{"snapshots.pattern", "{{ creation_date|date:'2006-01-02' }}"}}), std::nullopt);
    EXPECT_EQ(co_await snapshot("web"), std::nullopt);
    EXPECT_EQ(co_await snapshot("web"), std::nullopt);
    const auto last = names("web");
    EXPECT_EQ(last.size(), 4u);
    EXPECT_TRUE(std::any_of(last.begin(), last.end(), [](const auto& n) { return n.size() == 10 && n.starts_with("2027-01-15"); }));
    EXPECT_TRUE(std::any_of(last.begin(), last.end(), [](const auto& n) { return n.ends_with("-15-0"); }));
  });
}

}  // namespace
}  // namespace virga::engine
