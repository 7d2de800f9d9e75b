#include "engine/profiles/service.h"

#include "engine/service_test.h"
#include "engine/url.h"

namespace virga::engine {
namespace {

struct ProfilesTest : ServiceTest {
  Profiles profiles{store, events};
  std::vector<std::string> usage, changed;
  ProfilesTest() {
    profiles.set_usage(
        [this](std::string_view, std::string_view name) { return name == "big" ? usage : std::vector<std::string>(); });
    profiles.on_change([this](const std::string& project, const std::string& name) { changed.push_back(project + "/" + name); });
  }
  static Profile big() {
    Profile p;
    p.project = "default";
    p.name = "big";
    p.config = {{"limits.memory", "4GiB"}};
    p.devices = {{"root", {{"type", "disk"}, {"path", "/"}, {"pool", "default"}}}};
    return p;
  }
};

TEST_F(ProfilesTest, DefaultIsThereFromTheFirstStartAndStays) {
  run([&]() -> Task<> {
    EXPECT_TRUE(co_await profiles.start());
    EXPECT_NE(profiles.find("default", "default"), nullptr);
    EXPECT_EQ(kind_of(co_await profiles.remove("default", "default", root)), ErrorKind::denied);
    EXPECT_EQ(kind_of(co_await profiles.rename("default", "default", "x", root)), ErrorKind::denied);
    EXPECT_TRUE(co_await profiles.update("default", "default", {.description = "d", .config = {}, .devices = big().devices},
                                         std::nullopt, root));
    Profiles again(store, events);
    EXPECT_TRUE(co_await again.start());
    EXPECT_EQ(again.find("default", "default")->devices, big().devices);
  });
}

TEST_F(ProfilesTest, CreateUpdateListRemove) {
  run([&]() -> Task<> {
    EXPECT_TRUE(co_await profiles.start());
    auto made = co_await profiles.create(big(), root);
    EXPECT_TRUE(made) << made.error().text();
    EXPECT_EQ(kind_of(co_await profiles.create(big(), root)), ErrorKind::exists);
    auto lab = big();
    lab.project = "lab";
    EXPECT_TRUE(co_await profiles.create(lab, root));
    EXPECT_EQ(profiles.list().size(), 3u);
    EXPECT_EQ(profiles.list("lab").size(), 1u);
    EXPECT_EQ(profiles.get_all("default", {"big", "default"})->front()->name, "big");
    EXPECT_EQ(kind_of(profiles.get_all("default", {"default", "none"})), ErrorKind::not_found);
    const Revision first = (*made)->revision;
    auto next = co_await profiles.update("default", "big", {.description = "d", .config = {}, .devices = {}}, first, root);
    EXPECT_TRUE(next);
    EXPECT_EQ(kind_of(co_await profiles.update("default", "big", {}, first, root)), ErrorKind::conflict);
    EXPECT_EQ(kind_of(co_await profiles.update(
                  "default", "big", {.description = "", .config = {{"limits.memroy", "1GiB"}}, .devices = {}}, {}, root)),
              ErrorKind::invalid);
    EXPECT_EQ(kind_of(co_await profiles.update("default", "none", {}, {}, root)), ErrorKind::not_found);
    EXPECT_EQ(changed, (std::vector<std::string>{"default/default", "default/big", "lab/big", "default/big"}));
    EXPECT_TRUE(co_await profiles.remove("default", "big", root));
    EXPECT_EQ(profiles.find("default", "big"), nullptr);
    EXPECT_EQ(actions.back(), "profile-deleted /1.0/profiles/big");
  });
}

TEST_F(ProfilesTest, InUseItStaysAndARenameTakesItsUsersAlong) {
  run([&]() -> Task<> {
    EXPECT_TRUE(co_await profiles.start());
    EXPECT_TRUE(co_await profiles.create(big(), root));
    usage = {instance_url("default", "db1")};
    EXPECT_EQ(kind_of(co_await profiles.remove("default", "big", root)), ErrorKind::busy);
    EXPECT_EQ(kind_of(co_await profiles.rename("default", "big", "huge", root)), ErrorKind::busy);
    EXPECT_EQ(profiles.used_by("default", "big"), usage);
    profiles.on_rename([](const Profile& old, const std::string& name, Transaction& t) -> Result<> {
      t.put("/instances/default/db1", old.name + " is " + name);
      return {};
    });
    EXPECT_EQ(kind_of(co_await profiles.rename("default", "big", "default", root)), ErrorKind::exists);
    EXPECT_TRUE(co_await profiles.rename("default", "big", "huge", root));
    auto user = co_await store.get("/instances/default/db1");
    EXPECT_EQ((*user)->value, "big is huge");
    EXPECT_EQ(profiles.find("default", "huge")->devices, big().devices);
    EXPECT_EQ(profiles.find("default", "big"), nullptr);
  });
}

TEST_F(ProfilesTest, ThePolicyMayRefuseAnUpdate) {
  run([&]() -> Task<> {
    EXPECT_TRUE(co_await profiles.start());
    EXPECT_TRUE(co_await profiles.create(big(), root));
    profiles.set_policy([](const Profile& next) -> Result<std::shared_ptr<void>> {
      if (next.devices.empty()) return fail(ErrorKind::invalid, "instance 'db1' would have no root disk");
      return nullptr;
    });
    EXPECT_EQ(kind_of(co_await profiles.update("default", "big", {}, {}, root)), ErrorKind::invalid);
    EXPECT_EQ(profiles.find("default", "big")->devices, big().devices);
  });
}

TEST_F(ProfilesTest, AProjectsDefaultProfileComesAndGoesWithIt) {
  run([&]() -> Task<> {
    EXPECT_TRUE(co_await profiles.start());
    Project lab;
    lab.name = "lab";
    lab.config = {{"features.profiles", "true"}};
    Transaction made;
    profiles.project_made(lab, made);
    EXPECT_TRUE(co_await store.commit(std::move(made)));
    EXPECT_NE(profiles.find("lab", "default"), nullptr);
    Transaction gone;
    profiles.project_gone(lab, gone);
    EXPECT_TRUE(co_await store.commit(std::move(gone)));
    EXPECT_EQ(profiles.find("lab", "default"), nullptr);
    lab.config = {{"features.profiles", "false"}};
    Transaction none;
    profiles.project_made(lab, none);
    EXPECT_TRUE(none.puts.empty());
  });
}

}  // namespace
}  // namespace virga::engine
