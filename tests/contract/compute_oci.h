// The container driver's bench: busybox as a whole system, one root a guest.
#pragma once

#include <sys/stat.h>
#include <unistd.h>

#include <boost/asio/io_context.hpp>
#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "contract/compute_bench.h"
#include "drivers/compute/oci/driver.h"
#include "io/cgroup.h"
#include "io/file.h"

namespace virga::compute {

class OciBench final : public Bench {
 public:
  OciBench() {
    if (!skip().empty()) return;
    char name[] = "/tmp/virga-contract-oci-XXXXXX";
    base_ = ::mkdtemp(name);
    ::chmod(base_.c_str(), 0711);
    tag_ = "contract-" + std::to_string(::getpid());
    (void)io::make_directory(base_ + "/log", 0711);
  }
  ~OciBench() override {
    if (!base_.empty()) (void)io::remove_tree(base_);
  }
  std::string skip() override {
    if (::geteuid() != 0) return "needs root to make containers";
    if (!io::exists("/bin/busybox")) return "needs busybox-static for a root";
    return {};
  }
  std::unique_ptr<Driver> driver() override {
    OciOptions options{.shim_program = VIRGA_BIN_DIR "/virga-shim",
                       .files_program = VIRGA_BIN_DIR "/virga-files",
                       .run_root = base_ + "/oci",
                       .cgroup_tag = tag_,
                       .pool = pool_,
                       .executor = executor};
    // The runtimes are tried on a loop of its own, as this is called from the test's.
    boost::asio::io_context loop;
    TaskGroup group(loop.get_executor());
    std::unique_ptr<Driver> made;
    auto open = [&]() -> Task<> {
      if (auto opened = co_await open_oci_driver(std::move(options))) made = std::move(*opened);
    };
    group.spawn("open", open());
    loop.run();
    return made;
  }
  GuestSpec spec(const std::string& id) override {
    GuestSpec s;
    s.id = id;
    s.project = "default";
    s.name = "guest";
    s.run_dir = base_ + "/run-" + id;
    s.log_dir = base_ + "/log";
    s.ids = {1'000'000, 65'536};
    s.rootfs = base_ + "/root-" + id;
    (void)io::make_directory(s.run_dir, 0711);
    if (!io::exists(s.rootfs)) make_root(s.rootfs, s.ids.base);
    return s;
  }
  std::string leftovers(const std::string& id) override {
    const auto run_dir = base_ + "/run-" + id;
    if (io::exists(run_dir) && !std::filesystem::is_empty(run_dir)) return "files in the run directory";
    if (io::exists(base_ + "/oci/" + id)) return "the runtime's state";
    if (io::CgroupLayout::probe().group("virga/" + tag_ + "/" + id).exists()) return "a control group";
    return {};
  }

 private:
  static void make_root(const std::string& root, uid_t owner) {
    namespace fs = std::filesystem;
    for (const char* d : {"", "/bin", "/sbin", "/etc", "/root", "/tmp"}) (void)io::make_directory(root + d, 0755);
    fs::copy_file("/bin/busybox", root + "/bin/busybox");
    for (const char* applet : {"sh", "cat", "echo", "sleep"}) fs::create_symlink("busybox", root + "/bin/" + applet);
    fs::create_symlink("../bin/busybox", root + "/sbin/init");
    std::ofstream(root + "/etc/inittab") << "::sysinit:/bin/echo up\n";
    (void)!::lchown(root.c_str(), owner, owner);
    for (const auto& e : fs::recursive_directory_iterator(root)) (void)!::lchown(e.path().c_str(), owner, owner);
  }
  BlockingPool pool_{"contract", 2};
  std::string base_, tag_;
};

}  // namespace virga::compute
