// The pure parts: configuration (golden file), command lines, the runtime's words, versions, texts of a guest.
#include "drivers/compute/oci/config.h"

#include <gtest/gtest.h>
#include <signal.h>

#include <cstdlib>
#include <filesystem>

#include "drivers/compute/oci/commands.h"
#include "drivers/compute/oci/core.h"
#include "drivers/compute/oci/rootfs.h"
#include "io/file.h"

namespace virga::compute::oci_driver {
namespace {

GuestSpec web() {
  GuestSpec spec;
  spec.id = "5a1f9f3e-0000-4000-8000-000000000001";
  spec.project = "default";
  spec.name = "web";
  spec.rootfs = "/pool/containers/web/rootfs";
  spec.ids = {1'000'000, 65'536};
  return spec;
}
HostFacts facts() {
  return {.cgroup_parent = "/virga/t", .open_files_hard = 524'288};
}

void indent(const json::value& v, std::string& out, int depth) {
  const std::string pad(static_cast<std::size_t>(depth) * 2 + 2, ' ');
  if (v.is_object() && !v.as_object().empty()) {
    const char* between = "{\n";
    for (const auto& [key, value] : v.as_object()) {
      out += between + pad + json::serialize(json::value(key)) + ": ";
      indent(value, out, depth + 1);
      between = ",\n";
    }
    out += "\n" + pad.substr(2) + "}";
  } else if (v.is_array() && !v.as_array().empty() && v.as_array()[0].is_object()) {
    const char* between = "[\n";
    for (const auto& value : v.as_array()) {
      out += between + pad;
      indent(value, out, depth + 1);
      between = ",\n";
    }
    out += "\n" + pad.substr(2) + "]";
  } else {
    out += json::serialize(v);
  }
}

void expect_golden(const std::string& name, const json::value& document) {
  const auto path = std::filesystem::path(VIRGA_SOURCE_DIR "/drivers/compute/oci/testdata") / name;
  std::string text;
  indent(document, text, 0);
  text += "\n";
  if (std::getenv("VIRGA_UPDATE_GOLDEN") != nullptr) {
    ASSERT_TRUE(io::write_file(path.string(), text, 0644));
  }
  auto golden = io::read_file(path.string());
  ASSERT_TRUE(golden) << golden.error().text();
  EXPECT_EQ(text, *golden) << "run with VIRGA_UPDATE_GOLDEN=1 and read the difference";
}

TEST(OciGuest, GoldenPlain) {
  expect_golden("plain.json", to_json(make_config(web(), facts()).value()).value());
}

TEST(OciGuest, GoldenLimitedAndNesting) {
  auto spec = web();
  spec.cpus = 2;
  spec.memory = Bytes{512} << 20;
  spec.processes = 500;
  spec.nesting = true;
  spec.environment = {{"TZ", "UTC"}, {"container", "mine"}};
  expect_golden("limited-nesting.json", to_json(make_config(spec, facts()).value()).value());
}

TEST(OciGuest, ItsOwnLimitOfProcessesWinsOverTheHosts) {
  auto host = facts();
  host.most_processes = 4915;
  auto spec = web();
  EXPECT_EQ(make_config(spec, host)->resources.processes, 4915u);
  spec.processes = 100'000;
  EXPECT_EQ(make_config(spec, host)->resources.processes, 100'000u);
}

TEST(OciGuest, RefusesWhatItCannotDo) {
  auto refused = [](auto change) {
    auto spec = web();
    change(spec);
    auto made = make_config(spec, facts());
    EXPECT_FALSE(made);
    return !made;
  };
  EXPECT_TRUE(refused([](GuestSpec& s) { s.kind = Kind::virtual_machine; }));
  EXPECT_TRUE(refused([](GuestSpec& s) { s.disks.push_back({}); }));
  EXPECT_TRUE(refused([](GuestSpec& s) { s.ids = {}; })) << "never the host's ids";
  EXPECT_TRUE(refused([](GuestSpec& s) { s.ids = {4294930000u, 65536}; })) << "wraps";
  EXPECT_TRUE(refused([](GuestSpec& s) { s.ids.count = 1; }));
  EXPECT_TRUE(refused([](GuestSpec& s) { s.rootfs = "relative"; }));
  EXPECT_TRUE(refused([](GuestSpec& s) { s.cpus = 0; }));
  EXPECT_TRUE(refused([](GuestSpec& s) { s.environment["A=B"] = "c"; }));
  EXPECT_TRUE(refused([](GuestSpec& s) { s.id = "../x"; }));
  EXPECT_TRUE(refused([](GuestSpec& s) { s.id = ""; }));
}

TEST(OciGuest, RemembersWhatAdoptNeeds) {
  auto config = make_config(web(), facts()).value();
  Nic nic;
  nic.guest_name = "eth0";
  nic.host_name = "veth1234";
  remember(config, {.rootfs = config.rootfs, .halt_signal = 37, .nics = {nic}});
  auto back = recall(json::serialize(to_json(config).value()));
  ASSERT_TRUE(back) << back.error().text();
  EXPECT_EQ(back->rootfs, web().rootfs);
  EXPECT_EQ(back->halt_signal, 37);
  ASSERT_EQ(back->nics.size(), 1u);
  EXPECT_EQ(back->nics[0].guest_name, "eth0");
  EXPECT_EQ(back->nics[0].host_name, "veth1234");
  for (const char* bad : {"", "{", "[]", "{\"root\":7}", "{\"root\":{\"path\":1}}",
                          "{\"root\":{\"path\":\"/\"},\"annotations\":{\"virga.halt-signal\":\"999\"}}"})
    EXPECT_FALSE(recall(bad)) << bad;
}

TEST(OciExecProcess, DefaultsAndLimits) {
  ExecSpec spec;
  spec.command = {"ls"};
  spec.environment = {{"HOME", "/elsewhere"}};
  auto p = make_process(spec, "/root", "root", facts()).value();
  EXPECT_EQ(p.cwd, "/root");
  EXPECT_EQ(p.env, (std::vector<std::string>{"HOME=/elsewhere", "LANG=C.UTF-8",
                                             "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "USER=root"}));
  spec.interactive = true;
  EXPECT_EQ(make_process(spec, "/root", "root", facts())->env[3], "TERM=xterm");
  for (const char* cwd : {"/proc/self/fd/7", "/proc", "/proc/1/root"}) {
    spec.cwd = cwd;
    EXPECT_FALSE(make_process(spec, "/root", "root", facts())) << cwd;
  }
  spec.cwd = "/process";
  EXPECT_TRUE(make_process(spec, "/root", "root", facts()));
  spec.command.clear();
  EXPECT_FALSE(make_process(spec, "/root", "root", facts()));
}

TEST(OciCommands, AreExactly) {
  Runtime r{"runc", "/var/lib/virga/oci"};
  auto words = [](const std::vector<std::string>& argv) {
    std::string out;
    for (const auto& a : argv) out += a + " ";
    return out;
  };
  EXPECT_EQ(words(create_command(r, "ID")),
            "runc --root /var/lib/virga/oci --log runtime.log --log-format json create --bundle . --pid-file pid --console-socket "
            "console-receive.sock ID ");
  EXPECT_EQ(words(start_command(r, "ID")), "runc --root /var/lib/virga/oci start ID ");
  EXPECT_EQ(words(delete_command(r, "ID")), "runc --root /var/lib/virga/oci delete --force ID ");
  EXPECT_EQ(words(exec_command(r, "ID", true)),
            "runc --root /var/lib/virga/oci --log runtime.log --log-format json exec --process process.json --pid-file pid "
            "--detach --console-socket tty.sock ID ");
}

TEST(OciCommands, ErrorsAreFoundInTheLog) {
  EXPECT_EQ(last_error(""), "");
  EXPECT_EQ(last_error("nonsense\n{\"level\":\"warning\",\"msg\":\"w\"}\n"), "");
  EXPECT_EQ(
      last_error(
          "{\"level\":\"error\",\"msg\":\"first\"}\n{\"level\":\"error\",\"msg\":\"second\"}\n{\"level\":\"info\",\"msg\":\"x\"}"),
      "second");
  EXPECT_EQ(exit_code_of_failed_exec(
                "exec failed: unable to start container process: exec: \"nope\": executable file not found in $PATH"),
            127);
  EXPECT_EQ(exit_code_of_failed_exec("unable to start container process: exec: \"/etc/x\": stat /etc/x: no such file or directory"),
            127);
  EXPECT_EQ(exit_code_of_failed_exec("unable to start container process: exec: \"/etc/passwd\": permission denied"), 126);
  EXPECT_EQ(exit_code_of_failed_exec("cannot exec in a stopped container"), 0);
  EXPECT_EQ(exit_code_of_failed_exec(""), 0);
}

TEST(OciProbe, KnownEscapesByVersionAndDistribution) {
  auto count = [](std::string_view text) { return known_escapes(text).size(); };
  EXPECT_EQ(count("runc version 1.1.5+ds1\ncommit: 1.1.5+ds1-1+deb12u1\nspec: 1.0.2-dev\n"), 3u)
      << "2024-21626 is patched by Debian, the others are not";
  EXPECT_EQ(count("runc version 1.1.5\n"), 4u);
  EXPECT_EQ(count("runc version 1.1.12\n"), 3u);
  EXPECT_EQ(count("runc version 1.2.8\n"), 1u);
  EXPECT_EQ(count("runc version 1.3.2\n"), 2u);
  EXPECT_EQ(count("runc version 1.3.6\n"), 0u);
  EXPECT_EQ(count("runc version 1.4.1\n"), 1u);
  EXPECT_EQ(count("runc version 1.5.0\n"), 0u);
  EXPECT_EQ(count("runc version 2.0.0\n"), 0u);
  EXPECT_EQ(count("crun version 1.8.1\n"), 1u);
  EXPECT_EQ(count("crun version 1.28\n"), 0u);
  EXPECT_EQ(count("who knows"), 4u) << "an unknown version is open to all";
}

TEST(OciRootfs, TextsOfAGuest) {
  const char* passwd =
      "root:x:0:0:root:/root:/bin/sh\nbroken\n::::::\nweb:x:33:33::/var/www:/bin/sh\nevil:x:44:44::relative:/bin/"
      "sh\nesc\x1b:x:55:55::/h\x1bome:/bin/sh\n";
  EXPECT_EQ(parse_passwd(passwd, 0).home, "/root");
  EXPECT_EQ(parse_passwd(passwd, 33).name, "web");
  EXPECT_EQ(parse_passwd(passwd, 44).home, "");
  EXPECT_EQ(parse_passwd(passwd, 55).name, "esc");
  EXPECT_EQ(parse_passwd(passwd, 55).home, "/home");
  EXPECT_EQ(parse_passwd("", 0).name, "");
  auto os = parse_os_release("PRETTY_NAME=\"x\"\nNAME=\"Debian GNU/Linux\"\nVERSION_ID='12'\n");
  EXPECT_EQ(os.name, "Debian GNU/Linux");
  EXPECT_EQ(os.version, "12");
  EXPECT_EQ(halt_signal_of("/bin/busybox"), SIGUSR2);
  EXPECT_EQ(halt_signal_of("/lib/systemd/systemd"), 37);
  EXPECT_EQ(halt_signal_of("/sbin/init"), SIGPWR);
  EXPECT_EQ(halt_signal_of("/opt/app"), SIGTERM);
}

namespace fs = std::filesystem;

/// S12: what an image may put where the runtime mounts.
class OciRootfsDir : public testing::Test {
 protected:
  OciRootfsDir() {
    char name[] = "/tmp/virga-oci-root-XXXXXX";
    base_ = ::mkdtemp(name);
    ::chmod(base_.c_str(), 0711);
    for (const char* d : {"/root", "/root/sbin", "/outside"}) EXPECT_TRUE(io::make_directory(base_ + d, 0755));
    EXPECT_TRUE(io::write_file(base_ + "/root/sbin/init", "#!/bin/sh\n", 0755));
  }
  ~OciRootfsDir() override {
    EXPECT_TRUE(std::filesystem::is_empty(base_ + "/outside")) << "something was made outside";
    EXPECT_TRUE(io::remove_tree(base_));
  }
  std::string root() const { return base_ + "/root"; }
  IdRange ids_{static_cast<std::uint32_t>(::geteuid() == 0 ? 1'000'000 : ::geteuid()), 65'536};
  std::string base_;
};

TEST_F(OciRootfsDir, MakesWhatIsMissing) {
  auto init = prepare_rootfs(root(), ids_);
  ASSERT_TRUE(init) << init.error().text();
  EXPECT_EQ(init->halt_signal, SIGPWR);
  for (const char* d : {"/dev", "/proc", "/sys"}) EXPECT_TRUE(std::filesystem::is_directory(root() + d));
  EXPECT_TRUE(prepare_rootfs(root(), ids_)) << "again";
}

TEST_F(OciRootfsDir, RefusesLinksWhereTheRuntimeMounts) {
  for (const char* d : {"dev", "proc", "sys"})
    for (const std::string& target :
         {base_ + "/outside", std::string("../outside"), std::string("sbin"), std::string("/proc/self/root")}) {
      std::filesystem::create_symlink(target, root() + "/" + d);
      auto prepared = prepare_rootfs(root(), ids_);
      ASSERT_FALSE(prepared) << d << " -> " << target;
      EXPECT_EQ(prepared.error().kind(), ErrorKind::invalid);
      EXPECT_NE(prepared.error().text().find("symbolic link"), std::string::npos);
      std::filesystem::remove(root() + "/" + d);
    }
  fs::remove(root() + "/dev");
  ASSERT_TRUE(io::write_file(root() + "/dev", "", 0644));
  EXPECT_FALSE(prepare_rootfs(root(), ids_)) << "a file";
}

TEST_F(OciRootfsDir, SaysWhichDirectoryIsInTheWay) {
  ::chmod(base_.c_str(), 0700);
  auto prepared = prepare_rootfs(root(), {1'000'000, 65'536});
  ASSERT_FALSE(prepared);
  EXPECT_EQ(prepared.error().kind(), ErrorKind::denied);
  EXPECT_NE(prepared.error().hint().find("chmod o+x " + base_), std::string::npos);
}

TEST_F(OciRootfsDir, FindsTheInitInsideOnly) {
  std::filesystem::remove(root() + "/sbin/init");
  auto none = prepare_rootfs(root(), ids_);
  ASSERT_FALSE(none);
  EXPECT_NE(none.error().text().find("/sbin/init"), std::string::npos);
  std::filesystem::create_symlink("/bin/busybox", root() + "/sbin/init");
  EXPECT_FALSE(prepare_rootfs(root(), ids_)) << "the host's busybox is not the guest's";
  ASSERT_TRUE(io::make_directory(root() + "/bin", 0755));
  ASSERT_TRUE(io::write_file(root() + "/bin/busybox", "x", 0755));
  auto found = prepare_rootfs(root(), ids_);
  ASSERT_TRUE(found) << found.error().text();
  EXPECT_EQ(found->halt_signal, SIGUSR2);
  std::filesystem::permissions(root() + "/bin/busybox", std::filesystem::perms::owner_read);
  EXPECT_FALSE(prepare_rootfs(root(), ids_)) << "not a program";
}

}  // namespace
}  // namespace virga::compute::oci_driver
