#include "apps/virga/remotes.h"

#include <gtest/gtest.h>

namespace virga::cli {
namespace {

std::string shown(std::string_view use, const std::vector<std::string>& words) {
  auto split = split_by_remote(use, words, "local");
  if (!split) return "error";
  std::string out;
  for (const auto& entry : *split) {
    out += out.empty() ? "" : " ";
    out += entry.remote + "(";
    for (std::size_t i = 0; i < entry.words.size(); ++i) out += (i == 0 ? "" : ",") + entry.words[i];
    out += ")";
  }
  return out;
}

TEST(Remotes, TheUsageLineSaysWhereTheyStand) {
  EXPECT_EQ(shown("list [<remote>:] [<filter>...]", {}), "local()");
  EXPECT_EQ(shown("list [<remote>:] [<filter>...]", {"b:"}), "b()");
  EXPECT_EQ(shown("list [<remote>:] [<filter>...]", {"b:c1", "x"}), "b(c1,x)");
  EXPECT_EQ(shown("list [<remote>:] [<filter>...]", {"c1", "type=container"}), "local(c1,type=container)");
  EXPECT_EQ(shown("import <tarball> [<rootfs>] [<remote>:] [key=value...]", {"a.tar", "b:", "k=v"}), "b(a.tar,k=v)");
  EXPECT_EQ(shown("import <tarball> [<rootfs>] [<remote>:] [key=value...]", {"a.tar", "r.img"}), "local(a.tar,r.img)");
  EXPECT_EQ(shown("add-certificate [<remote>:] <cert>", {"b:", "x.crt"}), "b(x.crt)");
}

TEST(Remotes, OnlyMarkedWordsAreLookedAt) {
  EXPECT_EQ(shown("set [<remote>:][<instance>] <key>=<value>...", {"b:c1", "user.x=y:z"}), "b(c1,user.x=y:z)");
  EXPECT_EQ(shown("set [<remote>:][<instance>] <key>=<value>...", {"c1", "user.x=y:z"}), "local(c1,user.x=y:z)");
  EXPECT_EQ(shown("set [<remote>:][<instance>] <key>=<value>...", {"core.https_address=[::]:8443"}),
            "local(core.https_address=[::]:8443)");
  EXPECT_EQ(shown("set [<remote>:][<instance>] <key>=<value>...", {"b:", "core.https_address=:8443"}),
            "b(,core.https_address=:8443)");
  EXPECT_EQ(shown("exec [<remote>:]<instance> [flags] [--] <command line>", {"b:c1", "echo", "a:b"}), "b(c1,echo,a:b)");
  EXPECT_EQ(shown("query [<remote>:]<API path>", {"b:/1.0"}), "b(/1.0)");
  EXPECT_EQ(shown("query [<remote>:]<API path>", {"/1.0/x?a:b"}), "local(/1.0/x?a:b)");
}

TEST(Remotes, VerbsOverManyObjectsAreRunForEachServer) {
  const auto* use = "delete [<remote>:]<instance> [[<remote>:]<instance>...]";
  EXPECT_EQ(shown(use, {"a:x", "y", "a:z"}), "a(x,z) local(y)");
  EXPECT_EQ(shown("copy [<remote>:]<profile> [<remote>:]<profile>", {"a:x", "b:y"}), "error");
  EXPECT_EQ(shown("copy [<remote>:]<profile> [<remote>:]<profile>", {"a:x", "a:y"}), "a(x,y)");
}

}  // namespace
}  // namespace virga::cli
