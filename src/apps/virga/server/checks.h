// What `admin doctor` concludes from what it finds on a host. Pure: the text of files and the output of programs come in, findings
// go out.
#pragma once

#include <array>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace virga::cli {

enum class Verdict {
  good,
  note,     ///< works, but less well than it could
  missing,  ///< something essential is not there
};

struct Finding {
  Verdict verdict = Verdict::good;
  std::string subject;
  std::string detail;
  std::string remedy;
};

using Version = std::array<int, 3>;
/// The first "1.2" or "1.2.3" in the text. Absent where there is none.
std::optional<Version> find_version(std::string_view text);
std::string to_string(const Version& version);

/// `open_error` is the errno of opening /dev/kvm, 0 where that worked.
Finding check_kvm(int open_error, std::string_view cpuinfo);
/// `output` of `--version`; absent: no such program.
Finding check_qemu(std::optional<std::string_view> output);
Finding check_firmware(const std::string& path);
/// One finding for both: the better one is used. `runc` and `crun` are the outputs of `--version`.
Finding check_runtime(std::optional<std::string_view> runc, std::optional<std::string_view> crun, bool hybrid_cgroups);
/// `mounts` is /proc/mounts, `controllers` is cgroup.controllers of the v2 root (empty where there is none).
Finding check_cgroups(std::string_view mounts, std::string_view controllers);
bool has_v1_hierarchies(std::string_view mounts);
Finding check_program(std::string_view subject, std::optional<std::string_view> output, std::string_view package,
                      std::string_view purpose);

struct Kernel {
  std::string release;  ///< uname -r
  bool overlay = false;
  std::string max_user_namespaces = {};  ///< /proc/sys/user/max_user_namespaces
  bool mount_setattr = false;            ///< idmapped mounts
  bool openat2 = false;
  bool pidfd = false;
  bool seccomp = false;
  int landlock_abi = 0;
  bool tun = false;
  bool bridge = false;
  bool veth = false;
  bool nf_tables = false;
};
std::vector<Finding> check_kernel(const Kernel& kernel);

std::string render_findings(const std::vector<Finding>& findings);

}  // namespace virga::cli
