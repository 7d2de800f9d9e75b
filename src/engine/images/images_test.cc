#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <map>

#include "base/random.h"
#include "drivers/storage/fake/fake.h"
#include "engine/images/fakes_test.h"
#include "engine/images/service.h"
#include "engine/journal/journal.h"
#include "engine/operations/operations.h"
#include "engine/service_test.h"

namespace virga::engine {
namespace {

struct ImagesTest : ServiceTest {
  FakeFiles files;
  FakeReader reader{files};
  storage::FakeDriver pool, other_pool;
  Journal journal{store};
  Operations operations{io.get_executor(), events, clock, {.retention = Milliseconds(1)}};
  std::unique_ptr<Images> images = make();

  std::unique_ptr<Images> make() {
    return std::make_unique<Images>(Images::Parts{store,
                                                  journal,
                                                  operations,
                                                  events,
                                                  reader,
                                                  files,
                                                  clock,
                                                  [](const std::string& p) -> Result<std::string> {
                                                    if (p == "none") return fail(ErrorKind::not_found, "no project 'none'");
                                                    return p == "shares" ? "default" : p;
                                                  },
                                                  [this] { return std::vector<storage::Driver*>{&pool, &other_pool}; },
                                                  {}},
                                    io.get_executor());
  }

  /// Imports; the operation's error, or the fingerprint.
  Task<Result<std::string>> import(ImportImage request) {
    auto op = images->import(root, std::move(request));
    if (!op) co_return fail(std::move(op).error());
    auto done = co_await operations.wait((*op)->id(), std::nullopt);
    if (!done) co_return fail(std::move(done).error());
    if ((*done)->error()) co_return fail(*(*done)->error());
    co_return std::string((*done)->metadata().at("fingerprint").as_string());
  }
  Task<Result<std::string>> import(std::string content, std::vector<std::string> aliases = {}, std::string project = "default") {
    ImportImage request;
    request.project = std::move(project);
    request.metadata_file = files.upload(std::move(content));
    for (auto& a : aliases) request.aliases.emplace_back(a, "");
    co_return co_await import(std::move(request));
  }
  Task<Result<>> remove(std::string project, std::string fingerprint) {
    auto op = images->remove(root, project, fingerprint);
    if (!op) co_return fail(std::move(op).error());
    auto done = co_await operations.wait((*op)->id(), std::nullopt);
    if ((*done)->error()) co_return fail(*(*done)->error());
    co_return Result<>();
  }
  bool any_upload() const {
    return std::any_of(files.files.begin(), files.files.end(), [](const auto& f) { return f.first.starts_with("up-"); });
  }
};

TEST_F(ImagesTest, ImportsAndFinds) {
  run([&]() -> Task<> {
    EXPECT_TRUE(co_await images->load());
    ImportImage request;
    request.metadata_file = files.upload("container");
    request.rootfs_file = files.upload("root");
    request.filename = "tiny.tar.xz";
    request.properties = {{"release", "2"}};
    request.aliases = {{"tiny", "a tiny one"}};
    auto fingerprint = co_await import(std::move(request));
    EXPECT_TRUE(fingerprint);
    EXPECT_EQ(*fingerprint, sha256_hex("containerroot"));
    auto found = images->find("default", fingerprint->substr(0, 12));
    EXPECT_TRUE(found);
    const auto& i = **found;
    EXPECT_EQ(i.architecture, "x86_64");
    EXPECT_EQ(i.properties.at("os"), "Tiny");
    EXPECT_EQ(i.properties.at("release"), "2");
    EXPECT_TRUE(i.split);
    EXPECT_EQ(i.size, 13u);
    EXPECT_GT(i.revision, 0);
    EXPECT_EQ(images->aliases_of(i).size(), 1u);
    EXPECT_EQ(images->files_of(i).second, i.fingerprint + ".rootfs");
    EXPECT_FALSE(any_upload());
    EXPECT_EQ(actions, (std::vector<std::string>{"image-created /1.0/images/" + i.fingerprint,
                                                 "image-alias-created /1.0/images/aliases/tiny"}));
    EXPECT_TRUE(images->find("shares", *fingerprint)) << "a project without images of its own sees the default's";
    EXPECT_EQ(kind_of(images->find("lab", *fingerprint)), ErrorKind::not_found);
    EXPECT_EQ(kind_of(images->find("default", "")), ErrorKind::not_found);
    EXPECT_EQ(kind_of(images->find("default", "%")), ErrorKind::not_found);
    EXPECT_EQ(kind_of(images->find("default", "../x")), ErrorKind::not_found);
  });
}

TEST_F(ImagesTest, RefusedImportsLeaveNothing) {
  run([&]() -> Task<> {
    EXPECT_TRUE(co_await images->load());
    EXPECT_EQ(kind_of(co_await import("bad one")), ErrorKind::invalid);
    EXPECT_EQ(kind_of(co_await import("an odd one")), ErrorKind::invalid) << "unknown architecture";
    EXPECT_EQ(kind_of(co_await import("container", {"a b"})), ErrorKind::invalid);
    EXPECT_EQ(kind_of(co_await import("container", {}, "none")), ErrorKind::not_found);
    ImportImage mismatch;
    mismatch.metadata_file = files.upload("container");
    mismatch.expected_fingerprint = std::string(64, 'a');
    EXPECT_EQ(kind_of(co_await import(std::move(mismatch))), ErrorKind::invalid);
    ImportImage path;
    path.metadata_file = files.upload("container");
    path.expected_fingerprint = "../../x";
    EXPECT_EQ(kind_of(co_await import(std::move(path))), ErrorKind::invalid);
    files.fail_keep = true;
    EXPECT_EQ(kind_of(co_await import("container")), ErrorKind::unavailable);
    files.fail_keep = false;
    EXPECT_TRUE(images->list({}).empty());
    auto documents = co_await store.list("/");
    EXPECT_TRUE(documents->empty()) << documents->front().key;
    EXPECT_TRUE(co_await import("container", {"tiny"}));
    EXPECT_EQ(kind_of(co_await import("container")), ErrorKind::exists);
    EXPECT_EQ(kind_of(co_await import("container 2", {"tiny"})), ErrorKind::exists);
    EXPECT_EQ(files.files.size(), 1u);
    co_await images->stop();
  });
  EXPECT_EQ(files.files.size(), 1u) << "uploads of refused requests are gone too";
}

TEST_F(ImagesTest, OneAliasForBothKinds) {
  run([&]() -> Task<> {
    EXPECT_TRUE(co_await images->load());
    const auto c = *co_await import("container", {"tiny"});
    const auto v = *co_await import("vm", {"tiny"});
    auto resolved = [&](std::string_view alias, std::string_view fingerprint, InstanceType type) -> std::string {
      auto r = images->resolve("default", alias, fingerprint, type);
      return r ? (*r)->fingerprint : std::string(to_string(r.error().kind()));
    };
    EXPECT_EQ(resolved("tiny", "", InstanceType::container), c);
    EXPECT_EQ(resolved("tiny", "", InstanceType::virtual_machine), v);
    EXPECT_EQ(resolved("", c, InstanceType::container), c);
    EXPECT_EQ(resolved("", c, InstanceType::virtual_machine), v) << "its twin";
    EXPECT_EQ(resolved(c.substr(0, 12), "", InstanceType::container), c);
    EXPECT_EQ(resolved("none", "", InstanceType::container), "not found");
    EXPECT_EQ(resolved("", "", InstanceType::container), "invalid");
    EXPECT_EQ((*images->find_alias("default", "tiny"))->target, c);
    EXPECT_EQ((*images->find_alias("default", "tiny", InstanceType::virtual_machine))->target, v);
    EXPECT_EQ((*images->find_alias("default", "tiny/vm"))->target, v);
    EXPECT_EQ((*images->find_alias("default", "tiny/container"))->target, c);
    EXPECT_EQ(kind_of(images->find_alias("default", "tiny/vm", InstanceType::container)), ErrorKind::not_found);
    EXPECT_EQ(kind_of(images->find_alias("default", "tiny/other")), ErrorKind::not_found);
    EXPECT_EQ(resolved("tiny/vm", "", InstanceType::virtual_machine), v);
    EXPECT_EQ(resolved("tiny/vm", "", InstanceType::container), "invalid");
    EXPECT_EQ(images->aliases("default").size(), 2u);

    EXPECT_TRUE(co_await images->rename_alias(root, "default", "tiny", "small", {}));
    EXPECT_EQ(resolved("small", "", InstanceType::virtual_machine), v);
    EXPECT_TRUE(co_await images->remove_alias(root, "default", "small", InstanceType::virtual_machine));
    EXPECT_EQ(resolved("small", "", InstanceType::virtual_machine), "invalid");
    EXPECT_EQ(resolved("", c, InstanceType::virtual_machine), "invalid");
    EXPECT_TRUE(co_await images->create_alias(root, "default", "small", v, "d"));
    EXPECT_EQ(kind_of(co_await images->create_alias(root, "default", "small", v, "d")), ErrorKind::exists);
    EXPECT_EQ(kind_of(co_await images->create_alias(root, "default", "other", std::string(64, 'e'), "")), ErrorKind::not_found);
    EXPECT_TRUE(co_await images->update_alias(root, "default", "small", {}, "new", InstanceType::virtual_machine, {}));
    EXPECT_EQ((*images->find_alias("default", "small", InstanceType::virtual_machine))->description, "new");
    EXPECT_TRUE(co_await images->remove_alias(root, "default", "small", {}));
    EXPECT_TRUE(images->aliases({}).empty());
    EXPECT_EQ(kind_of(co_await images->remove_alias(root, "default", "small", {})), ErrorKind::not_found);
  });
}

TEST_F(ImagesTest, Updates) {
  run([&]() -> Task<> {
    EXPECT_TRUE(co_await images->load());
    const auto f = *co_await import("container");
    const auto revision = (*images->find("default", f))->revision;
    UpdateImage patch{.is_public = true,
                      .auto_update = {},
                      .properties = Config{{"os", ""}, {"new", "x"}},
                      .profiles = {},
                      .expires_at = {},
                      .replace = false};
    EXPECT_TRUE(co_await images->update(root, "default", f, patch, revision));
    auto now = *images->find("default", f);
    EXPECT_TRUE(now->is_public);
    EXPECT_EQ(now->properties, (Config{{"new", "x"}, {"release", "1"}}));
    EXPECT_EQ(kind_of(co_await images->update(root, "default", f, patch, revision)), ErrorKind::conflict);
    UpdateImage put{
        .is_public = {}, .auto_update = {}, .properties = Config{{"only", "y"}}, .profiles = {}, .expires_at = {}, .replace = true};
    EXPECT_TRUE(co_await images->update(root, "default", f, put, {}));
    now = *images->find("default", f);
    EXPECT_FALSE(now->is_public);
    EXPECT_EQ(now->properties, (Config{{"only", "y"}}));
    put.properties = Config{{"a", "\x1b"}};
    EXPECT_EQ(kind_of(co_await images->update(root, "default", f, put, {})), ErrorKind::invalid);
  });
}

TEST_F(ImagesTest, UnpacksOnceForMany) {
  run([&]() -> Task<> {
    EXPECT_TRUE(co_await images->load());
    const auto f = *co_await import("container");
    reader.slow = true;
    int good = 0;
    auto one = [](Images& service, storage::Driver& into, std::string fingerprint, int& count) -> Task<> {
      if (co_await service.ensure_unpacked(into, fingerprint)) ++count;
    };
    TaskGroup many(io.get_executor());
    const auto doomed = many.spawn("cancelled", one(*images, pool, f, good));
    for (int i = 0; i < 20; ++i) many.spawn("create", one(*images, pool, f, good));
    EXPECT_TRUE(co_await sleep_for(Milliseconds(1)));
    many.cancel(doomed);
    co_await many.join();
    EXPECT_EQ(good, 20);
    EXPECT_EQ(reader.unpacks, 1);
    EXPECT_TRUE(pool.path(f));
    EXPECT_TRUE(co_await images->ensure_unpacked(pool, f));
    EXPECT_EQ(reader.unpacks, 1);
    EXPECT_TRUE(co_await images->ensure_unpacked(other_pool, f));
    EXPECT_EQ(reader.unpacks, 2);
    EXPECT_EQ(kind_of(co_await images->ensure_unpacked(pool, std::string(64, 'd'))), ErrorKind::not_found);
    EXPECT_TRUE(co_await remove("default", f));
    EXPECT_FALSE(pool.path(f));
    EXPECT_FALSE(other_pool.path(f));
    EXPECT_TRUE(files.files.empty());
    EXPECT_EQ(actions.back(), "image-deleted /1.0/images/" + f);
  });
}

TEST_F(ImagesTest, UnpackingThatFailsOrIsGivenUpCanBeTriedAgain) {
  run([&]() -> Task<> {
    EXPECT_TRUE(co_await images->load());
    const auto f = *co_await import("vm");
    reader.fail_unpack = true;
    auto failed = co_await images->ensure_unpacked(pool, f);
    EXPECT_EQ(kind_of(failed), ErrorKind::unavailable);
    char name[] = "/tmp/virga-pool-XXXXXX";
    EXPECT_NE(::mkdtemp(name), nullptr);
    storage::FakeDriver real(name);
    EXPECT_EQ(kind_of(co_await images->ensure_unpacked(real, f)), ErrorKind::unavailable);
    EXPECT_TRUE(std::filesystem::is_empty(name)) << "nothing half done stays";
    std::filesystem::remove_all(name);
    reader.fail_unpack = false;
    reader.slow = true;
    auto one = [](Images& service, storage::Driver& into, std::string fingerprint) -> Task<> {
      (void)co_await service.ensure_unpacked(into, fingerprint);
    };
    TaskGroup many(io.get_executor());
    const auto doomed = many.spawn("cancelled", one(*images, pool, f));
    EXPECT_TRUE(co_await sleep_for(Milliseconds(1)));
    many.cancel(doomed);
    EXPECT_TRUE(co_await images->ensure_unpacked(pool, f)) << "joins while the first gives up";
    co_await many.join();
    EXPECT_TRUE(pool.path(f));
  });
}

TEST_F(ImagesTest, ProjectsShareFiles) {
  run([&]() -> Task<> {
    EXPECT_TRUE(co_await images->load());
    const auto f = *co_await import("container", {"tiny"}, "lab");
    EXPECT_TRUE(co_await import("container", {"tiny"}, "default"));
    EXPECT_EQ(images->list("lab").size(), 1u);
    EXPECT_EQ(images->list({}).size(), 2u);
    EXPECT_TRUE(co_await images->ensure_unpacked(pool, f));
    EXPECT_TRUE(co_await remove("lab", f));
    EXPECT_TRUE(pool.path(f));
    EXPECT_EQ(files.files.size(), 1u);
    EXPECT_TRUE(images->aliases("lab").empty());
    EXPECT_EQ(images->aliases("default").size(), 1u);
    EXPECT_TRUE(co_await remove("default", f));
    EXPECT_FALSE(pool.path(f));
    EXPECT_TRUE(files.files.empty());
    EXPECT_EQ(kind_of(co_await remove("default", f)), ErrorKind::not_found);
  });
}

TEST_F(ImagesTest, AnImportThatFailsTakesNoFilesFromAnother) {
  run([&]() -> Task<> {
    EXPECT_TRUE(co_await images->load());
    files.first_fails = true;
    ImportImage first, second;
    first.project = "lab";
    second.project = "default";
    first.metadata_file = files.upload("container");
    second.metadata_file = files.upload("container");
    auto failing = images->import(root, first);
    EXPECT_TRUE(failing);
    const auto f = co_await import(second);
    EXPECT_TRUE(f);
    EXPECT_TRUE(images->list("lab").empty());
    EXPECT_TRUE(files.files.contains(*f)) << "the image is listed without its files";
    EXPECT_TRUE(co_await remove("default", *f));
    EXPECT_TRUE(files.files.empty());
  });
}

TEST_F(ImagesTest, RestartFinishesOrUndoesWhatWasHalfDone) {
  run([&]() -> Task<> {
    EXPECT_TRUE(co_await images->load());
    const auto f = *co_await import("container", {"tiny"});
    const auto gone = *co_await import("container gone");
    // An import that was killed behind its first step, a removal in its middle, and an upload.
    const auto half = std::string(64, 'b');
    files.files[half] = "half";
    files.files["up-99"] = "stale";
    Transaction rows;
    rows.put("/journal/op1",
             json::serialize(json::object{{"kind", "image-import"},
                                          {"arguments", json::object{{"project", "default"}, {"fingerprint", half}}}}));
    rows.put("/journal/op2",
             json::serialize(json::object{{"kind", "image-delete"},
                                          {"arguments", json::object{{"project", "default"}, {"fingerprint", gone}}}}));
    EXPECT_TRUE(co_await store.commit(std::move(rows)));
    co_await images->stop();
    images.reset();

    images = make();
    EXPECT_TRUE(co_await images->load());
    auto errors = co_await journal.recover();
    for (const auto& e : errors) ADD_FAILURE() << e.text();
    EXPECT_TRUE(co_await images->resume());
    EXPECT_EQ(files.files.size(), 1u);
    EXPECT_TRUE(files.files.contains(f));
    EXPECT_EQ(images->list({}).size(), 1u);
    EXPECT_EQ((*images->find_alias("default", "tiny"))->target, f);
    EXPECT_TRUE(co_await import("container gone"));
  });
}

TEST_F(ImagesTest, NotesUseNowAndThen) {
  run([&]() -> Task<> {
    EXPECT_TRUE(co_await images->load());
    const auto f = *co_await import("container");
    images->used("default", f);
    co_await images->stop();
    EXPECT_EQ((*images->find("default", f))->last_used_at, clock.now());
  });
}

}  // namespace
}  // namespace virga::engine
