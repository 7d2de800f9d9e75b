#include "drivers/storage/dir/layers.h"

#include <gmock/gmock.h>

namespace virga::storage::dir {
namespace {

std::string layer(int n) {
  return "layer-00000000000" + std::to_string(n) + ".qcow2";
}

TEST(Layers, AreWrittenAndRead) {
  const Layers layers{.active = {layer(2), layer(1), "root.qcow2"},
                      .snapshots = {{"a", {layer(1), "root.qcow2"}}, {"b", {"root.qcow2"}}}};
  const auto back = parse_layers(encode(layers));
  ASSERT_TRUE(back) << back.error().text();
  EXPECT_EQ(back->active, layers.active);
  EXPECT_EQ(back->snapshots, layers.snapshots);
}

TEST(Layers, NamesThatAreNotOursAreRefused) {
  for (const char* text : {"", "[]", "{}", R"({"active":[]})", R"({"active":["/etc/passwd"]})", R"({"active":["../root.qcow2"]})",
                           R"({"active":["layer-.qcow2"]})", R"({"active":["root.qcow2",7]})",
                           R"({"active":["root.qcow2"],"snapshots":{"../x":["root.qcow2"]}})",
                           R"({"active":["root.qcow2"],"snapshots":{"x":"root.qcow2"}})"})
    EXPECT_FALSE(parse_layers(text)) << text;
}

TEST(Layers, OnlyWhatNobodyNeedsByItselfIsMerged) {
  Layers layers{.active = {layer(2), layer(1), "root.qcow2"},
                .snapshots = {{"a", {layer(1), "root.qcow2"}}, {"b", {"root.qcow2"}}}};
  EXPECT_FALSE(find_merge(layers, {})) << "each is somebody's topmost";
  layers.snapshots.erase("a");
  auto merge = find_merge(layers, {});
  ASSERT_TRUE(merge);
  EXPECT_EQ(*merge, (LayerMerge{.lower = layer(1), .upper = layer(2), .below = {"root.qcow2"}}));
  EXPECT_FALSE(find_merge(layers, {layer(1)})) << "another volume has it, too";
  layers = after_merge(layers, *merge);
  EXPECT_EQ(layers.active, (Chain{layer(1), "root.qcow2"}));
  EXPECT_FALSE(find_merge(layers, {})) << "the lowest is a snapshot's";
  layers.snapshots.clear();
  merge = find_merge(layers, {});
  ASSERT_TRUE(merge);
  EXPECT_EQ(after_merge(layers, *merge).active, Chain{"root.qcow2"});
}

TEST(Layers, ALayerWithTwoAboveItStays) {
  const Layers layers{.active = {layer(3), layer(1)}, .snapshots = {{"a", {layer(2), layer(1)}}}};
  EXPECT_FALSE(find_merge(layers, {}));
}

TEST(Layers, AMergeBelowASnapshotGivesItsLayerAnotherName) {
  const Layers layers{.active = {layer(3), layer(2), layer(1)}, .snapshots = {{"a", {layer(2), layer(1)}}}};
  const auto merge = find_merge(layers, {});
  ASSERT_TRUE(merge);
  EXPECT_EQ(merge->upper, layer(2));
  const auto after = after_merge(layers, *merge);
  EXPECT_EQ(after.active, (Chain{layer(3), layer(1)}));
  EXPECT_EQ(after.snapshots.at("a"), Chain{layer(1)});
}

}  // namespace
}  // namespace virga::storage::dir
