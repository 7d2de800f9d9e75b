#include "drivers/image/confined/protocol.h"

#include <gtest/gtest.h>

namespace virga::image {
namespace {

Answer sample() {
  Answer a;
  a.inspection.type = Type::virtual_machine;
  a.convert_disk = true;
  a.inspection.metadata.architecture = "x86_64";
  a.inspection.metadata.creation_date = 1;
  a.inspection.metadata.properties = {{"os", "Tiny"}};
  a.inspection.metadata.templates["/etc/hosts"] = {{"create"}, true, "hosts.tpl", {{"a", "b"}}};
  return a;
}

TEST(Protocol, RoundTrip) {
  auto back = decode_answer(encode_answer(sample()));
  ASSERT_TRUE(back) << back.error().text();
  EXPECT_EQ(back->inspection.type, Type::virtual_machine);
  EXPECT_TRUE(back->convert_disk);
  EXPECT_EQ(back->inspection.metadata.templates.at("/etc/hosts").template_file, "hosts.tpl");
  auto error = decode_answer(encode_error(Error(ErrorKind::unavailable, "no space")));
  ASSERT_FALSE(error);
  EXPECT_EQ(error.error().kind(), ErrorKind::unavailable);
  EXPECT_EQ(error.error().message(), "no space");
}

TEST(Protocol, AWorkerThatLiesGetsAnError) {
  for (const char* text :
       {"", "{}", "[]", "null", "{\"type\":\"host\"}", "{\"type\":\"container\"}", "{\"type\":\"container\",\"metadata\":[]}",
        R"({"type":"container","metadata":{"architecture":"x86_64"}})",
        R"({"type":"container","metadata":{"architecture":"x86_64","creation_date":99999999999999}})",
        R"({"type":"container","metadata":{"architecture":"x86_64","creation_date":1,"properties":{"a":1}}})",
        R"({"type":"container","metadata":{"architecture":"x86_64","creation_date":1,"properties":{"a":"\u001b[2J"}}})",
        R"({"type":"container","metadata":{"architecture":"x86_64","creation_date":1,"templates":{"/a":{"template":"../../x"}}}})",
        R"({"type":"container","metadata":{"architecture":"x86_64","creation_date":1},"type":"virtual-machine"})"})
    EXPECT_FALSE(decode_answer(text)) << text;
  EXPECT_FALSE(decode_answer(std::string(max_answer + 1, ' ')));
  // It cannot make the daemon say "denied" or "exists", nor put control characters into a log.
  auto odd = decode_answer(R"({"error":{"kind":"denied","message":"a\u001b[31m\nb"}})");
  ASSERT_FALSE(odd);
  EXPECT_EQ(odd.error().kind(), ErrorKind::invalid);
  EXPECT_EQ(odd.error().message(), "a?[31m?b");
  const auto good = encode_answer(sample());
  for (std::size_t i = 0; i < good.size(); ++i) EXPECT_FALSE(decode_answer(good.substr(0, i)));
}

TEST(Protocol, RootFormats) {
  EXPECT_EQ(root_format("hsqs...."), RootFormat::squashfs);
  EXPECT_EQ(root_format("QFI\xfb"), RootFormat::qcow2);
  EXPECT_EQ(root_format(""), RootFormat::tarball);
  for (auto f : {RootFormat::none, RootFormat::tarball, RootFormat::squashfs, RootFormat::qcow2})
    EXPECT_EQ(*parse_root_format(to_string(f)), f);
}

}  // namespace
}  // namespace virga::image
