#include "model/streams.h"

#include <gtest/gtest.h>

#include <functional>

#include "base/json.h"

namespace virga::streams {
namespace {

std::string digest(char c) {
  return std::string(64, c);
}

json::object item(std::string ftype, std::string path, char hash, std::int64_t size = 100) {
  return {{"ftype", std::move(ftype)}, {"path", std::move(path)}, {"sha256", digest(hash)}, {"size", size}};
}

json::object items(char first) {
  auto metadata = item("incus.tar.xz", "images/a/incus.tar.xz", '1');
  metadata["combined_squashfs_sha256"] = digest(first);
  metadata["combined_disk-kvm-img_sha256"] = digest(static_cast<char>(first + 1));
  return {{"incus.tar.xz", metadata},
          {"root.squashfs", item("squashfs", "images/a/root.squashfs", '2')},
          {"disk.qcow2", item("disk-kvm.img", "images/a/disk.qcow2", '3')}};
}

json::object list() {
  json::object versions{{"20260101_05:24", {{"items", items('a')}}}, {"20260201_05:24", {{"items", items('c')}}}};
  json::object product{{"aliases", "debian/12/default, debian/12"},
                       {"arch", "amd64"},
                       {"os", "Debian"},
                       {"release", "bookworm"},
                       {"release_title", "12"},
                       {"variant", "default"},
                       {"requirements", {{"secureboot", "false"}}},
                       {"versions", versions}};
  return {{"format", "products:1.0"}, {"products", {{"debian:bookworm:amd64:default", product}}}};
}

TEST(Simplestreams, TheIndexNamesLists) {
  auto paths = decode_index(
      R"({"index":{"images":{"datatype":"image-downloads","path":"streams/v1/images.json"},"x":{"datatype":"other","path":"y"}}})");
  ASSERT_TRUE(paths) << paths.error().text();
  EXPECT_EQ(*paths, std::vector<std::string>{"streams/v1/images.json"});
  for (const char* bad : {"", "[]", "{}", R"({"index":[]})", R"({"index":{"a":1}})",
                          R"({"index":{"a":{"datatype":"image-downloads","path":"../x"}}})",
                          R"({"index":{"a":{"datatype":"image-downloads","path":"/x"}}})",
                          R"({"index":{"a":{"datatype":"image-downloads","path":"http://x/y?z"}}})"})
    EXPECT_FALSE(decode_index(bad)) << bad;
}

TEST(Simplestreams, BothKindsOfEachVersionAndTheNewestIsChosen) {
  auto images = decode_products(json::serialize(list()));
  ASSERT_TRUE(images) << images.error().text();
  EXPECT_EQ(images->size(), 4u);
  const auto* c = choose(*images, {"debian/12", "", InstanceType::container, "x86_64"});
  ASSERT_NE(c, nullptr);
  EXPECT_EQ(c->fingerprint, digest('c'));
  EXPECT_EQ(c->version, "20260201_05:24");
  EXPECT_EQ(c->root->path, "images/a/root.squashfs");
  EXPECT_EQ(c->properties.at("description"), "Debian bookworm amd64 (20260201_05:24)");
  EXPECT_EQ(c->properties.at("requirements.secureboot"), "false");
  const auto* v = choose(*images, {"debian/12/amd64", "", InstanceType::virtual_machine, "aarch64"});
  ASSERT_NE(v, nullptr) << "the architecture is named";
  EXPECT_EQ(v->fingerprint, digest('d'));
  EXPECT_EQ(choose(*images, {"debian/12", "", {}, "x86_64"})->type, InstanceType::container);
  EXPECT_EQ(choose(*images, {"", digest('b').substr(0, 12), {}, ""})->version, "20260101_05:24");
  EXPECT_EQ(choose(*images, {"debian/12", "", {}, "aarch64"}), nullptr);
  EXPECT_EQ(choose(*images, {"debian/13", "", {}, "x86_64"}), nullptr);
  EXPECT_EQ(choose(*images, {"debian/12/mips", "", {}, "x86_64"}), nullptr);
}

TEST(Simplestreams, WhatIsMalformedIsPassedOver) {
  const std::function<void(json::object&)> changes[] = {
      [](json::object& i) { i.at("incus.tar.xz").as_object()["sha256"] = "../../x"; },
      [](json::object& i) { i.at("incus.tar.xz").as_object()["path"] = "../../etc/passwd"; },
      [](json::object& i) { i.at("incus.tar.xz").as_object()["path"] = "/etc/passwd"; },
      [](json::object& i) { i.at("incus.tar.xz").as_object()["path"] = "a b"; },
      [](json::object& i) { i.at("incus.tar.xz").as_object()["path"] = "a?b"; },
      [](json::object& i) { i.at("incus.tar.xz").as_object()["path"] = "@169.254.169.254/../x"; },
      [](json::object& i) { i.at("incus.tar.xz").as_object()["size"] = -1; },
      [](json::object& i) { i.at("incus.tar.xz").as_object()["size"] = std::int64_t(1) << 62; },
      [](json::object& i) { i.at("incus.tar.xz").as_object()["size"] = "100"; },
      [](json::object& i) { i.at("incus.tar.xz").as_object()["combined_squashfs_sha256"] = "../../x"; },
      [](json::object& i) { i.at("incus.tar.xz").as_object()["combined_squashfs_sha256"] = std::string(63, 'a'); },
      [](json::object& i) { i.at("incus.tar.xz").as_object()["combined_squashfs_sha256"] = nullptr; },
      [](json::object& i) { i.at("root.squashfs").as_object()["sha256"] = 1; },
      [](json::object& i) { i["root.squashfs"] = json::array{}; },
      [](json::object& i) { i.erase("incus.tar.xz"); },
  };
  for (std::size_t n = 0; n < std::size(changes); ++n) {
    auto document = list();
    auto& versions = document.at("products").as_object().begin()->value().as_object().at("versions").as_object();
    for (auto& [name, version] : versions) changes[n](version.as_object().at("items").as_object());
    auto images = decode_products(json::serialize(document));
    ASSERT_TRUE(images) << n;
    EXPECT_EQ(choose(*images, {"debian/12", "", InstanceType::container, "x86_64"}), nullptr) << n;
  }
  for (const char* bad : {"", "{}", "[]", R"({"products":[]})", "{\"products\":{\"a\":1,\"a\":2}}", "\xff"})
    EXPECT_FALSE(decode_products(bad)) << bad;
  for (const char* empty : {R"({"products":{}})", R"({"products":{"a":1}})", R"({"products":{"a":{"arch":"amd64","versions":[]}}})",
                            R"({"products":{"a":{"arch":5,"versions":{}}}})",
                            R"({"products":{"a":{"arch":"amd64","versions":{"1":{"items":{"x":{"ftype":5}}}}}}})"}) {
    auto images = decode_products(empty);
    ASSERT_TRUE(images) << empty;
    EXPECT_TRUE(images->empty());
  }
}

}  // namespace
}  // namespace virga::streams
