// Key=value words, YAML documents, multipart bodies, events, host checks.
#include "apps/virga/document.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cerrno>

#include "apps/virga/images/multipart.h"
#include "apps/virga/resource.h"
#include "apps/virga/server/checks.h"
#include "apps/virga/server/events.h"
#include "apps/virga/server/init.h"

namespace virga::cli {
namespace {

using testing::HasSubstr;

TEST(KeyValues, BothForms) {
  EXPECT_EQ(*parse_settings({"limits.cpu", "2"}), (KeyValues{{"limits.cpu", "2"}}));
  EXPECT_EQ(*parse_settings({"a=1", "b=x=y", "c="}), (KeyValues{{"a", "1"}, {"b", "x=y"}, {"c", ""}}));
  EXPECT_EQ(parse_settings({"a"}).error().message(), "Invalid key=value configuration: a");
  EXPECT_FALSE(parse_settings({"a", "b", "c"}));
  EXPECT_FALSE(parse_key_values({"=x"}));
}

TEST(Document, ConfigurationStaysText) {
  auto object = parse_document(
      "config:\n  limits.cpu: 2\n  boot.autostart: true\ndevices:\n  root:\n    size: 10\nephemeral: true\nprofiles:\n- default\n");
  ASSERT_TRUE(object) << object.error().text();
  EXPECT_EQ(
      json::serialize(*object),
      R"({"config":{"limits.cpu":"2","boot.autostart":"true"},"devices":{"root":{"size":"10"}},"ephemeral":true,"profiles":["default"]})");
  EXPECT_EQ(json::serialize(*parse_document("config:\ndescription: 7\n")), R"({"config":{},"description":"7"})");
  EXPECT_TRUE(parse_document("")->empty());
  EXPECT_FALSE(parse_document("- a\n"));
  EXPECT_FALSE(parse_document("a: [\n"));
}

TEST(Properties, KeepTheirType) {
  auto object = *parse_json_object(R"({"ephemeral":false,"description":"x","profiles":["a"]})");
  ASSERT_TRUE(set_property(object, "ephemeral", "yes"));
  EXPECT_EQ(object["ephemeral"], true);
  ASSERT_TRUE(set_property(object, "description", "7"));
  EXPECT_EQ(*property_text(object, "description"), "7");
  EXPECT_EQ(*property_text(object, "profiles"), "- a");
  EXPECT_FALSE(set_property(object, "ephemeral", "maybe"));
  EXPECT_FALSE(set_property(object, "nothing", "x"));
}

TEST(Settings, UnsettingWhatIsNotSetIsAnError) {
  auto object = *parse_json_object(R"({"config":{"a":"1"}})");
  ASSERT_TRUE(apply_settings(object, {{"b", "2"}}, false));
  ASSERT_TRUE(remove_setting(object, "a", false));
  EXPECT_EQ(remove_setting(object, "a", false).error().message(), "Can't unset key 'a', it's not currently set");
  EXPECT_EQ(json::serialize(object), R"({"config":{"b":"2"}})");
}

TEST(Multipart, TwoFiles) {
  const std::string body =
      "--xyz\r\nContent-Disposition: form-data; name=\"metadata\"; filename=\"meta.tar.xz\"\r\n\r\nMETA\r\n--xyz\r\n"
      "Content-Disposition: form-data; name=\"rootfs\"; filename=\"../../etc/root.squashfs\"\r\nContent-Type: "
      "x\r\n\r\n\r\n--xy\r\n--xyz--\r\n";
  auto parts = parse_multipart(body, "multipart/form-data; boundary=xyz");
  ASSERT_TRUE(parts) << parts.error().text();
  ASSERT_EQ(parts->size(), 2u);
  EXPECT_EQ((*parts)[0].name, "metadata");
  EXPECT_EQ((*parts)[0].content, "META");
  EXPECT_EQ((*parts)[1].file_name, "root.squashfs");
  EXPECT_EQ((*parts)[1].content, "\r\n--xy");
  for (std::size_t n = 0; n + 4 < body.size(); ++n)
    EXPECT_FALSE(parse_multipart(std::string_view(body).substr(0, n), "multipart/form-data; boundary=xyz")) << n;
  EXPECT_FALSE(parse_multipart(body, "multipart/form-data"));
}

TEST(Multipart, FileNamesAreOneSafeComponent) {
  EXPECT_EQ(disposition_file_name("inline;filename=\"a/../b.tar.xz\""), "b.tar.xz");
  for (auto bad : {"attachment", "attachment; filename=\"..\"", "attachment; filename=\"a/\"", "attachment; filename=\"a\nb\""})
    EXPECT_EQ(disposition_file_name(bad), "") << bad;
}

TEST(Events, Styles) {
  auto event = *parse_json_object(
      R"({"type":"logging","timestamp":"2026-01-31T12:00:00.5Z","metadata":{"message":"hi \u001b[1m","level":"info","context":{"id":"7","url":"a b"}}})");
  EventFormat pretty{EventFormat::pretty, 0};
  EXPECT_EQ(render_event(event, pretty), "time=\"2026-01-31T12:00:00Z\" level=info msg=\"hi \\u001b[1m\" id=7 url=\"a b\"\n");
  pretty.lowest = *parse_log_level("warn");
  EXPECT_EQ(render_event(event, pretty), "");
  EXPECT_EQ(render_event(event, {EventFormat::json, 0}).substr(0, 12), R"({"metadata":)");
  EXPECT_FALSE(parse_log_level("loud"));
}

TEST(Preseed, UnknownPartsAreNamed) {
  EXPECT_TRUE(check_preseed(*parse_json_object(R"({"config":{},"networks":[]})")));
  EXPECT_EQ(check_preseed(*parse_json_object(R"({"storage":[]})")).error().field(), "storage");
}

TEST(Doctor, Versions) {
  EXPECT_EQ(*find_version("runc version 1.1.5+ds1"), (Version{1, 1, 5}));
  EXPECT_EQ(*find_version("QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7)"), (Version{7, 2, 22}));
  EXPECT_EQ(*find_version("nftables v1.0 (Old)"), (Version{1, 0, 0}));
  for (auto bad : {"", "none", "7", "v.1"}) EXPECT_FALSE(find_version(bad)) << bad;
}

TEST(Doctor, KvmIsBelievedOnlyWithTheProcessorsWord) {
  EXPECT_EQ(check_kvm(0, "flags\t\t: fpu vmx sse").verdict, Verdict::good);
  EXPECT_EQ(check_kvm(0, "flags\t\t: fpu svm sse").verdict, Verdict::good);
  auto nested = check_kvm(0, "flags\t\t: fpu sse");
  EXPECT_EQ(nested.verdict, Verdict::note);
  EXPECT_THAT(nested.detail, HasSubstr("TCG"));
  EXPECT_EQ(check_kvm(ENOENT, "flags : vmx\n").remedy, "modprobe kvm_intel");
  EXPECT_EQ(check_kvm(EACCES, "").verdict, Verdict::note);
}

TEST(Doctor, Runtimes) {
  EXPECT_EQ(check_runtime({}, {}, false).verdict, Verdict::missing);
  EXPECT_EQ(check_runtime("runc version 1.1.5", {}, true).verdict, Verdict::note);
  EXPECT_EQ(check_runtime("runc version 1.3.6", "crun version 1.8.1", true).detail, "runc 1.3.6, with the known escapes fixed");
  EXPECT_EQ(check_runtime("runc version 1.1.5", "crun version 1.28", false).verdict, Verdict::good);
  EXPECT_EQ(check_runtime({}, "crun version 1.8.1", true).verdict, Verdict::missing);
  EXPECT_EQ(check_runtime("runc version 1.3.3", {}, false).verdict, Verdict::note);
}

TEST(Doctor, Cgroups) {
  EXPECT_EQ(check_cgroups("cgroup2 /sys/fs/cgroup cgroup2 rw 0 0\n", "cpuset cpu io memory pids\n").detail, "v2 (unified)");
  const auto* hybrid =
      "cgroup /sys/fs/cgroup/cpu cgroup rw,cpu,cpuacct 0 0\ncgroup /m cgroup rw,memory 0 0\ncgroup /p cgroup rw,pids 0 0\nnone /u "
      "cgroup2 rw 0 0\n";
  EXPECT_EQ(check_cgroups(hybrid, "").verdict, Verdict::good);
  EXPECT_EQ(check_cgroups("cgroup2 /sys/fs/cgroup cgroup2 rw 0 0\n", "cpu pids").verdict, Verdict::missing);
  EXPECT_EQ(check_cgroups("", "").verdict, Verdict::missing);
  EXPECT_TRUE(has_v1_hierarchies(hybrid));
}

TEST(Doctor, EachMissHasItsRemedy) {
  auto findings = check_kernel({.release = "5.4.0"});
  findings.push_back(check_qemu({}));
  findings.push_back(check_qemu("QEMU emulator version 5.2.0"));
  findings.push_back(check_program("dnsmasq", {}, "dnsmasq-base", "names"));
  findings.push_back(check_firmware(""));
  for (const auto& finding : findings) {
    EXPECT_NE(finding.verdict, Verdict::good) << finding.subject;
    EXPECT_FALSE(finding.remedy.empty()) << finding.subject;
  }
  EXPECT_THAT(render_findings(findings), HasSubstr("has to be mended first"));
}

}  // namespace
}  // namespace virga::cli
