#include "model/image.h"

#include <gtest/gtest.h>

namespace virga {
namespace {

TEST(Image, RoundTrip) {
  Image i;
  i.project = "lab";
  i.fingerprint = std::string(64, 'a');
  i.type = InstanceType::virtual_machine;
  i.architecture = "x86_64";
  i.filename = "tiny.tar.xz";
  i.size = 1234;
  i.split = true;
  i.is_public = true;
  i.properties = {{"os", "Tiny"}};
  i.profiles = {"default"};
  i.created_at = *parse_time("2026-01-02T03:04:05Z");
  auto back = decode_image(encode(i));
  ASSERT_TRUE(back) << back.error().text();
  EXPECT_EQ(encode(*back), encode(i));
  EXPECT_EQ(back->expires_at, WallTime{});
  ImageAlias a{
      .project = "lab", .name = "tiny", .type = InstanceType::virtual_machine, .target = i.fingerprint, .description = "d"};
  EXPECT_EQ(encode(*decode_image_alias(encode(a))), encode(a));
}

TEST(Image, ChecksWhatClientsSet) {
  Image i;
  EXPECT_TRUE(check(i));
  i.properties = {{"a", "\x1b[31m"}};
  EXPECT_EQ(check(i).error().field(), "properties");
  i.properties = {{"", "x"}};
  EXPECT_FALSE(check(i));
  i.properties.clear();
  i.filename = "../x";
  EXPECT_EQ(check(i).error().field(), "filename");
  i.filename = "x";
  i.profiles = {"../x"};
  EXPECT_EQ(check(i).error().field(), "profiles");
}

TEST(Image, S10Fingerprints) {
  EXPECT_TRUE(check_fingerprint(std::string(64, '0')));
  EXPECT_FALSE(check_fingerprint(std::string(63, '0')));
  EXPECT_FALSE(check_fingerprint(std::string(64, 'A')));
  EXPECT_FALSE(check_fingerprint("../" + std::string(61, '0')));
  EXPECT_FALSE(check_fingerprint(""));
  EXPECT_EQ(*canonical_architecture("amd64"), "x86_64");
  EXPECT_FALSE(canonical_architecture("../x"));
}

}  // namespace
}  // namespace virga
