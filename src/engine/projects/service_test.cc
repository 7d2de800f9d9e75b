#include "engine/projects/service.h"

#include "engine/service_test.h"
#include "engine/url.h"

namespace virga::engine {
namespace {

struct ProjectsTest : ServiceTest {
  Projects projects{store, events};
  std::vector<std::string> usage;
  ProjectsTest() {
    projects.set_usage([this](std::string_view name) { return name == "lab" ? usage : std::vector<std::string>(); });
  }
  Project lab() {
    Project p;
    p.name = "lab";
    p.config = {{"features.profiles", "false"}, {"user.owner", "kim"}};
    return p;
  }
};

TEST_F(ProjectsTest, DefaultIsThereFromTheFirstStartAndStays) {
  run([&]() -> Task<> {
    EXPECT_TRUE(co_await projects.start());
    EXPECT_NE(projects.find("default"), nullptr);
    EXPECT_EQ(kind_of(co_await projects.remove("default", std::nullopt, root)), ErrorKind::denied);
    EXPECT_EQ(kind_of(co_await projects.rename("default", "other", root)), ErrorKind::denied);
    EXPECT_EQ(kind_of(co_await projects.update("default", "d", {{"features.images", "false"}}, std::nullopt, root)),
              ErrorKind::denied);
    EXPECT_TRUE(co_await projects.update("default", "mine", {{"user.a", "b"}}, std::nullopt, root));
    Projects again(store, events);
    EXPECT_TRUE(co_await again.start());
    EXPECT_EQ(again.find("default")->description, "mine");
    EXPECT_EQ(again.list().size(), 1u);
  });
}

TEST_F(ProjectsTest, FeaturesSayWhoseThingsAProjectUses) {
  run([&]() -> Task<> {
    EXPECT_TRUE(co_await projects.start());
    auto made = co_await projects.create(lab(), root);
    EXPECT_TRUE(made);
    EXPECT_EQ((*made)->config.at("features.images"), "true");
    EXPECT_EQ(*projects.images_of("lab"), "lab");
    EXPECT_EQ(*projects.profiles_of("lab"), "default");
    EXPECT_EQ(*projects.networks_of("lab"), "default");
    EXPECT_EQ(*projects.volumes_of("lab"), "lab");
    EXPECT_EQ(*projects.images_of("default"), "default");
    EXPECT_EQ(*projects.networks_of("default"), "default");
    EXPECT_EQ(kind_of(projects.images_of("none")), ErrorKind::not_found);
    EXPECT_EQ(kind_of(co_await projects.create(lab(), root)), ErrorKind::exists);
    EXPECT_EQ(actions.back(), "project-created /1.0/projects/lab");
  });
}

TEST_F(ProjectsTest, RefusesKeysByName) {
  run([&]() -> Task<> {
    EXPECT_TRUE(co_await projects.start());
    auto attempt = [&](std::string key, std::string value) -> Task<std::string> {
      auto p = lab();
      p.config[key] = value;
      auto r = co_await projects.create(p, root);
      EXPECT_FALSE(r) << key;
      co_return r ? ""
                  : std::string(to_string(r.error().kind())) + " " + std::string(r.error().field()) + " " + r.error().message();
    };
    EXPECT_NE((co_await attempt("limits.cpu", "two")).find("config.limits.cpu"), std::string::npos);
    EXPECT_NE((co_await attempt("restricted.cluster.groups", "a")).find("not supported yet"), std::string::npos);
    EXPECT_NE((co_await attempt("features.networks", "true")).find("features.networks"), std::string::npos);
    EXPECT_NE((co_await attempt("features.imagse", "true")).find("did you mean 'features.images'"), std::string::npos);
    EXPECT_NE((co_await attempt("featurs.images", "true")).find("did you mean 'features.images'"), std::string::npos);
    EXPECT_NE((co_await attempt("features.images", "maybe")).find("config.features.images"), std::string::npos);
    for (std::string name : {"", "a/b", "..", "a b", "a_b", "-rf", "$(id)", "a\nb"}) {
      Project p;
      p.name = name;
      EXPECT_EQ(kind_of(co_await projects.create(p, root)), ErrorKind::invalid) << name;
    }
    EXPECT_EQ(projects.list().size(), 1u);
  });
}

TEST_F(ProjectsTest, WhatIsInUseIsNeitherDeletedRenamedNorStrippedOfFeatures) {
  run([&]() -> Task<> {
    EXPECT_TRUE(co_await projects.start());
    EXPECT_TRUE(co_await projects.create(lab(), root));
    usage = {instance_url("lab", "a"), instance_url("lab", "b"), instance_url("lab", "c"), instance_url("lab", "d")};
    auto busy = co_await projects.remove("lab", std::nullopt, root);
    EXPECT_EQ(kind_of(busy), ErrorKind::busy);
    EXPECT_EQ(busy.error().message(), "cannot delete project 'lab': it holds instance 'a', instance 'b', instance 'c' and 1 more");
    EXPECT_EQ(kind_of(co_await projects.rename("lab", "new", root)), ErrorKind::busy);
    EXPECT_EQ(kind_of(co_await projects.update("lab", "", {{"features.images", "false"}}, std::nullopt, root)), ErrorKind::busy);
    EXPECT_TRUE(co_await projects.update("lab", "words", lab().config, std::nullopt, root)) << "the same features";
    EXPECT_EQ(projects.used_by("lab").size(), 4u) << "it has no profiles of its own";
    usage.clear();
    EXPECT_TRUE(co_await projects.rename("lab", "new", root));
    EXPECT_EQ(projects.find("lab"), nullptr);
    EXPECT_EQ(projects.find("new")->description, "words");
    EXPECT_TRUE(co_await projects.remove("new", std::nullopt, root));
    EXPECT_EQ(kind_of(co_await projects.remove("new", std::nullopt, root)), ErrorKind::not_found);
    EXPECT_EQ(actions.back(), "project-deleted /1.0/projects/new");
  });
}

TEST_F(ProjectsTest, AnOldRevisionConflicts) {
  run([&]() -> Task<> {
    EXPECT_TRUE(co_await projects.start());
    auto first = *co_await projects.create(lab(), root);
    auto second = co_await projects.update("lab", "two", lab().config, first->revision, root);
    EXPECT_TRUE(second);
    EXPECT_EQ(kind_of(co_await projects.update("lab", "three", lab().config, first->revision, root)), ErrorKind::conflict);
    EXPECT_EQ(kind_of(co_await projects.remove("lab", first->revision, root)), ErrorKind::conflict);
    EXPECT_EQ(first->description, "") << "a snapshot never changes";
    EXPECT_TRUE(co_await projects.remove("lab", (*second)->revision, root));
  });
}

}  // namespace
}  // namespace virga::engine
