#include "apps/virga/server/fixes.h"

#include <gtest/gtest.h>

namespace virga::cli {
namespace {

std::optional<Fix> fix(std::string remedy, Verdict verdict = Verdict::missing) {
  return fix_of({verdict, "x", "y", std::move(remedy)});
}

TEST(Fixes, RemediesThatAProgramMayApply) {
  EXPECT_EQ(fix("modprobe overlay")->kind, Fix::Kind::module);
  auto setting = fix("sysctl user.max_user_namespaces=65536");
  ASSERT_TRUE(setting);
  EXPECT_EQ(setting->names[0], "user.max_user_namespaces");
  EXPECT_EQ(setting->value, "65536");
  EXPECT_EQ(fix("apt install qemu-system-x86 qemu-utils")->names.size(), 2u);
  EXPECT_EQ(fix("mkdir /var/lib/virga")->kind, Fix::Kind::directory);
}

TEST(Fixes, EverythingElseIsLeftToPeople) {
  EXPECT_FALSE(fix("modprobe overlay", Verdict::good));
  for (const char* remedy :
       {"", "use a kernel of 5.12 or newer", "modprobe ../x", "modprobe a b", "mkdir /etc/x", "sysctl a=b", "sysctl ../x=1",
        "apt install", "apt install x;y", "apt install -o x", "apt update && apt install runc"})
    EXPECT_FALSE(fix(remedy)) << remedy;
}

}  // namespace
}  // namespace virga::cli
