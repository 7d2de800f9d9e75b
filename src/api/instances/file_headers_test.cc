#include "api/instances/file_headers.h"

#include <gmock/gmock.h>

namespace virga::api {
namespace {

Result<FileHeaders> read(std::initializer_list<std::pair<std::string_view, std::string_view>> list) {
  http::Headers headers;
  for (const auto& [name, value] : list) headers.add(name, value);
  return read_file_headers(headers);
}

TEST(FileHeaders, WhatClientsSend) {
  auto h = read({{"X-Incus-uid", "1000"}, {"X-Incus-gid", "0"}, {"X-Incus-mode", "0755"}, {"X-Incus-type", "directory"}});
  ASSERT_TRUE(h);
  EXPECT_EQ(h->uid, 1000u);
  EXPECT_EQ(h->gid, 0u);
  EXPECT_EQ(h->mode, 0755u);
  EXPECT_EQ(h->type, FileHeaders::Type::directory);
  EXPECT_EQ(read({{"X-Incus-mode", "644"}})->mode, 0644u);
  EXPECT_TRUE(read({{"X-Incus-write", "append"}})->append);
  EXPECT_FALSE(read({})->uid);
}

TEST(FileHeaders, WhatNoFileCanHave) {
  for (auto [name, value] : {std::pair("X-Incus-uid", "4294967295"),
                             {"X-Incus-uid", "-1"},
                             {"X-Incus-uid", "1e3"},
                             {"X-Incus-gid", "18446744073709551616"},
                             {"X-Incus-gid", " 1"},
                             {"X-Incus-mode", "8"},
                             {"X-Incus-mode", "10000"},
                             {"X-Incus-mode", "-644"},
                             {"X-Incus-type", "fifo"},
                             {"X-Incus-write", "truncate"}}) {
    auto h = read({{name, value}});
    ASSERT_FALSE(h) << name << value;
    EXPECT_EQ(h.error().field(), name);
  }
}

TEST(FileHeaders, WhatIsSentBack) {
  sftp::Attributes a;
  a.uid = 5;
  a.gid = 6;
  a.permissions = 0100640;
  a.modified = 1'700'000'000;
  EXPECT_THAT(file_headers(a), testing::ElementsAre(testing::Pair("X-Incus-uid", "5"), testing::Pair("X-Incus-gid", "6"),
                                                    testing::Pair("X-Incus-mode", "0640"),
                                                    testing::Pair("X-Incus-modified", "2023-11-14 22:13:20 +0000 UTC"),
                                                    testing::Pair("X-Incus-type", "file")));
  a.permissions = 0010644;
  EXPECT_EQ(file_type(a), "");
}

}  // namespace
}  // namespace virga::api
