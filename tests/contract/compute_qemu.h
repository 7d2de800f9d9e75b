// The virtual machine driver's bench: a kernel, an initrd with busybox init and the agent, emulated.
#pragma once

#include <sys/stat.h>
#include <unistd.h>

#include <boost/asio/io_context.hpp>
#include <cstdlib>
#include <filesystem>

#include "contract/compute_bench.h"
#include "drivers/compute/qemu/driver.h"
#include "io/cgroup.h"
#include "io/file.h"
#include "io/process.h"

namespace virga::compute {

/// Made once for the whole program.
class TinyGuest {
 public:
  TinyGuest() {
    char name[] = "/tmp/virga-contract-tiny-XXXXXX";
    directory_ = ::mkdtemp(name);
    boost::asio::io_context loop;
    TaskGroup group(loop.get_executor());
    auto make = [&]() -> Task<> {
      io::ProcessSpec spec;
      spec.argv = {VIRGA_SOURCE_DIR "/../tests/support/tiny_initrd.sh", VIRGA_BIN_DIR "/virga-agent", directory_};
      spec.env = {"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root"};
      io::ProcessLimits limits;
      limits.timeout = Milliseconds(300'000);
      if (auto made = co_await io::check_process(std::move(spec), limits); !made) problem_ = made.error().text();
    };
    group.spawn("tiny guest", make());
    loop.run();
  }
  ~TinyGuest() { (void)io::remove_tree(directory_); }
  const std::string& directory() const { return directory_; }
  const std::string& problem() const { return problem_; }
  static const TinyGuest& get() {
    static const TinyGuest guest;
    return guest;
  }

 private:
  std::string directory_, problem_;
};

class QemuBench final : public Bench {
 public:
  QemuBench() {
    if (!skip().empty()) return;
    char name[] = "/tmp/virga-contract-qemu-XXXXXX";
    base_ = ::mkdtemp(name);
    tag_ = "contract-" + std::to_string(::getpid());
    (void)io::make_directory(base_ + "/log", 0700);
  }
  ~QemuBench() override {
    if (!base_.empty()) (void)io::remove_tree(base_);
  }
  std::string skip() override {
    if (::geteuid() != 0) return "needs root to give each machine a user of its own";
    if (!io::exists("/usr/bin/qemu-system-x86_64")) return "needs qemu-system-x86";
    if (auto problem = TinyGuest::get().problem(); !problem.empty()) return "no tiny guest: " + problem;
    return {};
  }
  std::unique_ptr<Driver> driver() override {
    QemuOptions options{.shim_program = VIRGA_BIN_DIR "/virga-shim", .cgroup_tag = tag_, .pool = pool_, .executor = executor};
    // On a loop of its own, as this is called from the test's.
    boost::asio::io_context loop;
    TaskGroup group(loop.get_executor());
    std::unique_ptr<Driver> made;
    auto open = [&]() -> Task<> {
      if (auto opened = co_await open_qemu_driver(std::move(options))) made = std::move(*opened);
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
    s.kind = Kind::virtual_machine;
    s.run_dir = base_ + "/run-" + id;
    s.log_dir = base_ + "/log";
    s.ids = {1'300'000 + static_cast<std::uint32_t>(id[0]), 1};
    s.memory = Bytes(192) << 20;
    const auto& tiny = TinyGuest::get().directory();
    s.direct_boot = DirectBoot{tiny + "/vmlinuz", tiny + "/initrd", "console=ttyS0 quiet panic=1"};
    (void)io::make_directory(s.run_dir, 0711);
    return s;
  }
  std::string leftovers(const std::string& id) override {
    const auto run_dir = base_ + "/run-" + id;
    if (io::exists(run_dir) && !std::filesystem::is_empty(run_dir)) return "files in the run directory";
    if (io::CgroupLayout::probe().group("virga/" + tag_ + "/" + id).exists()) return "a control group";
    return {};
  }

 private:
  BlockingPool pool_{"contract", 2};
  std::string base_, tag_;
};

}  // namespace virga::compute
