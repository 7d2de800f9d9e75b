// The lifecycle. Each step is repeatable, as a daemon may be killed between any two of them and remove() must then find everything.
#include "drivers/compute/qemu/driver.h"

#include <fmt/format.h>
#include <signal.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>

#include "base/fault.h"
#include "base/log.h"
#include "drivers/compute/qemu/descriptors.h"
#include "drivers/compute/qemu/guest.h"
#include "io/file.h"
#include "io/process.h"
#include "io/stream.h"
#include "wire/sftp/whole_file.h"

namespace virga::compute {
namespace qemu_driver {
namespace {

/// When a process began, from its start time in clock ticks since the host's boot: a guest that was adopted may still be booting.
std::chrono::steady_clock::time_point steady_time_of(std::uint64_t start_time) {
  timespec since_boot{};
  ::clock_gettime(CLOCK_BOOTTIME, &since_boot);
  const auto now = std::chrono::seconds(since_boot.tv_sec) + std::chrono::nanoseconds(since_boot.tv_nsec);
  const auto began = std::chrono::milliseconds(start_time * 1000 / static_cast<std::uint64_t>(::sysconf(_SC_CLK_TCK)));
  return std::chrono::steady_clock::now() - std::chrono::duration_cast<std::chrono::steady_clock::duration>(now - began);
}

using namespace std::chrono_literals;

constexpr Milliseconds monitor_time{20'000};
constexpr Milliseconds quit_time{40};
constexpr Milliseconds look_every{500};
constexpr auto press_every = 5s;
/// What a caller means by "for ever", without overflowing the clock.
constexpr Milliseconds longest_wait = std::chrono::hours(24 * 365);

std::string remembered_path(const std::string& run_dir) {
  return run_dir + "/guest.json";
}

/// Everything in the directory, but not the directory: that is the engine's.
Result<> empty_directory(const std::string& path) {
  auto names = io::list_directory(path);
  if (!names) return names.error().kind() == ErrorKind::not_found ? Result<>{} : fail(std::move(names).error());
  for (const auto& name : *names) VIRGA_CHECK(io::remove_tree(path + "/" + name));
  return {};
}

/// QEMU's last words, fit for one line.
std::string last_words(const std::string& log) {
  auto text = io::read_file(log).value_or("");
  while (!text.empty() && text.back() == '\n') text.pop_back();
  if (text.size() > 600) text = "..." + text.substr(text.size() - 600);
  for (char& c : text)
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) c = ' ';
  return text;
}

/// The processes, the cgroup and the run directory's content.
Task<Result<>> take_away(CorePtr core, std::string id, std::string run_dir) {
  if (!run_dir.empty()) VIRGA_CO_CHECK(co_await io::Shim::sweep(run_dir));
  const bool last = core->guests.empty() || (core->guests.size() == 1 && core->guests.begin()->first == id);
  auto clean = [core, id, run_dir, last]() -> Result<> {
    if (core->has_cgroups()) {
      auto group = core->cgroup(id);
      VIRGA_CHECK(group.kill_all());
      VIRGA_CHECK(group.remove());
      if (last) {
        core->layout.group("virga/" + core->options.cgroup_tag).remove_if_empty();
      }
    }
    return run_dir.empty() ? Result<>{} : empty_directory(run_dir);
  };
  co_return co_await core->options.pool.run(std::move(clean));
}

std::string variables_template(const CorePtr& core, const GuestSpec& spec) {
  return core->options.firmware_directory +
         (spec.firmware && spec.firmware->secure_boot ? "/OVMF_VARS_4M.ms.fd" : "/OVMF_VARS_4M.fd");
}

/// What is done on the pool before QEMU starts.
struct Prepared {
  Opened opened;
  std::vector<std::string> cgroup_procs;
};

Result<Prepared> prepare(const CorePtr& core, const GuestSpec& spec, const Plan& plan) {
  Prepared p;
  VIRGA_TRY(p.opened, open_descriptors(plan, spec, variables_template(core, spec)));
  // No need to survive a power cut: then the guest is gone too.
  VIRGA_CHECK(io::write_file(remembered_path(spec.run_dir), json::serialize(remember(spec))));
  if (!core->has_cgroups()) return p;
  auto group = core->cgroup(spec.id);
  if (auto made = group.create(); made) {
    p.cgroup_procs = group.procs_files();
    // Its threads are as many as the guest's disks ask for; QEMU that was taken over shall not take the host's all.
    if (core->layout.has("pids"))
      if (auto limited = group.limit_processes(io::default_process_limit()); !limited)
        log::warn("virtual machine '{}' runs without a limit of threads: {}", spec.id, limited.error().text());
  } else {
    log::warn("virtual machine '{}' runs without a cgroup: {}", spec.id, made.error().text());
  }
  return p;
}

Task<Result<>> launch(CorePtr core, GuestPtr guest, const GuestSpec& spec) {
  VIRGA_CO_TRY(auto plan, make_plan(spec, core->host));
  auto work = [&core, &spec, &plan] { return prepare(core, spec, plan); };
  VIRGA_CO_TRY(auto prepared, co_await core->options.pool.run(std::move(work)));
  VIRGA_CO_CHECK(fault_point("qemu.create.prepared"));
  io::ShimSpec shim;
  shim.program = core->options.shim_program;
  shim.run_dir = spec.run_dir;
  shim.console_log = spec.log_dir + "/console.log";
  shim.console = io::ConsoleSource::socketpair;
  shim.console_fd = console_fd;
  shim.argv = std::move(plan.argv);
  shim.env = {"PATH=/usr/bin:/bin", "LANG=C"};
  shim.output_log = spec.log_dir + "/qemu.log";
  for (const auto& [fd, number] : prepared.opened.fds) shim.fds.emplace_back(fd.get(), number);
  shim.cgroup_procs = std::move(prepared.cgroup_procs);
  shim.drop_to.emplace(spec.ids.base, core->kvm_group.value_or(spec.ids.base));
  VIRGA_CO_TRY(guest->shim, co_await io::Shim::start(std::move(shim)));
  prepared.opened.fds.clear();
  VIRGA_CO_CHECK(fault_point("qemu.create.started"));
  auto monitor = co_await qmp::Client::connect(monitor_path(spec.run_dir), monitor_time);
  if (!monitor) {
    auto words = last_words(spec.log_dir + "/qemu.log");
    auto error = std::move(monitor).error();
    if (!words.empty()) co_return fail(error.kind(), fmt::format("QEMU does not start: {}", words));
    co_return fail(std::move(error).wrap("QEMU does not start"));
  }
  guest->state = State::created;
  attach_monitor(guest, std::move(*monitor));
  follow(core, guest);
  co_return Result<>{};
}

class QemuDriver final : public Driver, public ExecOps, public FileOps, public ConsoleOps, public DiskOps, public FreezeOps {
 public:
  QemuDriver(CorePtr core, DriverInfo info) : core_(std::move(core)), info_(std::move(info)) {}
  ~QemuDriver() override { let_go(); }
  const DriverInfo& info() const noexcept override { return info_; }
  ExecOps* exec() noexcept override { return this; }
  FileOps* files() noexcept override { return this; }
  ConsoleOps* console() noexcept override { return this; }
  DiskOps* disks() noexcept override { return this; }
  FreezeOps* freezing() noexcept override { return this; }
  void on_event(std::function<void(GuestEvent)> handler) override { core_->handler = std::move(handler); }

  Result<LaunchPlan> plan(const GuestSpec& spec) const override {
    VIRGA_TRY(auto made, make_plan(spec, core_->host));
    return LaunchPlan{std::move(made.argv), nullptr};
  }

  Task<Result<GuestStatus>> create(GuestSpec spec) override {
    if (!core_->usable)
      co_return fail(Error(ErrorKind::unavailable, "no usable QEMU on this host")
                         .with_hint(info_.warnings.empty() ? "apt install qemu-system-x86" : info_.warnings.front()));
    if (spec.ids.base == 0) co_return fail(ErrorKind::invalid, "a virtual machine needs a user of its own");
    auto core = core_;
    auto guest = core->find_or_make(spec.id);
    VIRGA_CO_TRY(auto turn, co_await guest->lock.lock());
    if (guest->lives()) co_return fail(ErrorKind::busy, fmt::format("virtual machine '{}' runs already", spec.name));
    // What an earlier run has left: a shim that still tells how its guest ended.
    guest->shim.reset();
    VIRGA_CO_CHECK(co_await io::Shim::sweep(spec.run_dir));
    guest->run_dir = spec.run_dir;
    guest->memory_mib = memory_mib(spec);
    guest->cpus = spec.cpus.value_or(1);
    guest->nics = spec.nics;
    guest->expected = false;
    auto launched = co_await launch(core, guest, spec);
    if (!launched) {
      co_await shield();
      guest->expected = true;
      if (guest->shim) (void)co_await guest->shim->destroy();
      if (auto undone = co_await take_away(core, spec.id, spec.run_dir); !undone)
        log::warn("virtual machine '{}' could not be taken away after a failed start: {}", spec.id, undone.error().text());
      forget(core, guest);
      co_return fail(std::move(launched).error().wrap(fmt::format("create virtual machine '{}'", spec.name)));
    }
    co_return status_of(*guest);
  }

  Task<Result<>> start(std::string id) override {
    auto guest = core_->find(id);
    if (!guest) co_return fail(ErrorKind::not_found, fmt::format("no virtual machine '{}'", id));
    VIRGA_CO_TRY(auto turn, co_await guest->lock.lock());
    if (guest->state == State::running || guest->state == State::paused) co_return Result<>{};
    if (guest->state != State::created)
      co_return fail(ErrorKind::unavailable, fmt::format("virtual machine '{}' is not created", id));
    guest->booted = std::chrono::steady_clock::now();
    auto continued = co_await command(guest, "cont");
    if (!continued) co_return fail(std::move(continued).error().wrap(fmt::format("start virtual machine '{}'", id)));
    if (guest->state == State::created) guest->state = State::running;
    co_return Result<>{};
  }

  Task<Result<>> stop(std::string id, Milliseconds timeout) override {
    auto guest = core_->find(id);
    if (!guest || !guest->lives()) co_return Result<>{};
    guest->expected = true;
    if (guest->state == State::created) {  // it has never run: there is nobody to ask
      (void)co_await guest->shim->signal(SIGKILL);
    } else if (guest->state == State::paused) {
      if (auto resumed = co_await resume(id); !resumed) {
        guest->expected = false;
        co_return fail(std::move(resumed).error().wrap(fmt::format("stop virtual machine '{}'", id)));
      }
    }
    const auto end = std::chrono::steady_clock::now() + std::min(timeout, longest_wait);
    auto press_at = std::chrono::steady_clock::now();
    bool agreed = false;
    while (guest->lives()) {
      // Asked again and again: a guest that boots hears neither its power button nor an agent yet.
      if (guest->state == State::running && !agreed) agreed = co_await ask_agent(guest);
      if (guest->state == State::running && !agreed && std::chrono::steady_clock::now() >= press_at) {
        (void)co_await command(guest, "system_powerdown", {}, std::min(timeout, Milliseconds(2'000)));
        press_at = std::chrono::steady_clock::now() + press_every;
      }
      const auto left = std::chrono::duration_cast<Milliseconds>(end - std::chrono::steady_clock::now());
      const bool cancelled = co_await is_cancelled();
      if (!guest->lives()) break;
      if (left.count() <= 0 || cancelled) {
        guest->expected = false;
        if (cancelled) co_return fail(ErrorKind::cancelled, "cancelled; it has been asked to shut down and may still do so");
        const auto seconds = static_cast<double>(timeout.count()) / 1000;
        co_return fail(ErrorKind::timeout, fmt::format("virtual machine '{}' did not shut down within {:g} s", id, seconds));
      }
      co_await guest->ended.wait_for(agreed ? left : std::min(left, look_every));
    }
    co_return Result<>{};
  }

  Task<Result<>> remove(std::string id) override {
    auto core = core_;
    auto guest = core->find_or_make(id);
    guest->expected = true;
    VIRGA_CO_TRY(auto turn, co_await guest->lock.lock());
    if (core->find(id) != guest) co_return Result<>{};  // somebody else removed it while we waited
    co_await shield();
    if (guest->lives() && guest->state != State::created && guest->monitor && guest->monitor->connected()) {
      // An orderly end writes what QEMU itself still holds of the disks. One that hangs is not waited for.
      (void)co_await guest->monitor->execute("quit", {}, quit_time);
      if (guest->lives()) co_await guest->ended.wait_for(quit_time);
    }
    if (guest->shim) (void)co_await guest->shim->destroy();
    guest->state = State::stopped;
    guest->ended.notify();
    guest->monitor.reset();
    guest->agent.reset();
    auto removed = co_await take_away(core, id, guest->run_dir);
    if (!removed) co_return fail(std::move(removed).error().wrap(fmt::format("remove virtual machine '{}'", id)));
    forget(core, guest);
    co_return Result<>{};
  }

  Task<Result<>> set_limits(std::string id, Limits limits) override {
    auto guest = core_->find(id);
    if (!guest || !guest->lives()) co_return fail(ErrorKind::not_found, fmt::format("virtual machine '{}' does not run", id));
    if (limits.cpus.value_or(1) != guest->cpus)
      co_return fail(Error(ErrorKind::unsupported, "the number of processors of a virtual machine changes with its next start")
                         .with_hint("restart the instance"));
    const auto bytes = limits.memory.value_or(Bytes(1) << 30);
    if (bytes > guest->memory_mib << 20)
      co_return fail(Error(ErrorKind::unsupported, "a virtual machine gets more memory than it was started with at its next start")
                         .with_hint("restart the instance"));
    json::object arguments;
    arguments["value"] = static_cast<std::int64_t>(bytes);
    VIRGA_CO_CHECK(co_await command(guest, "balloon", std::move(arguments)));
    co_return Result<>{};
  }

  Task<Result<>> pause(std::string id) override { return switch_to(id, State::paused); }
  Task<Result<>> resume(std::string id) override { return switch_to(id, State::running); }

  GuestStatus status(const std::string& id) const override {
    auto guest = core_->find(id);
    return guest ? status_of(*guest) : GuestStatus{};
  }

  Task<Result<GuestStats>> stats(std::string id) override {
    auto guest = core_->find(id);
    if (!guest || !guest->lives()) co_return fail(ErrorKind::not_found, fmt::format("virtual machine '{}' does not run", id));
    co_return co_await guest_stats(core_, guest);
  }

  Task<Result<GuestStatus>> adopt(std::string id, std::string run_dir) override {
    auto core = core_;
    auto guest = core->find_or_make(id);
    VIRGA_CO_TRY(auto turn, co_await guest->lock.lock());
    if (guest->lives()) co_return status_of(*guest);
    guest->run_dir = run_dir;
    guest->state = State::absent;
    auto shim = co_await io::Shim::connect(run_dir);
    if (!shim && shim.error().kind() != ErrorKind::not_found)
      co_return fail(std::move(shim).error().wrap(fmt::format("adopt virtual machine '{}'", id)));
    if (!shim) co_return status_of(*guest);
    guest->shim = std::move(*shim);
    guest->expected = false;
    const auto& known = guest->shim->status();
    guest->pid = known.guest_pid;
    guest->start_time = known.guest_start_time;
    guest->booted = steady_time_of(known.guest_start_time);
    if (known.exited) {
      guest->state = State::stopped;
      co_return status_of(*guest);
    }
    if (known.guest_pid <= 0) co_return status_of(*guest);  // a shim that was about to start QEMU: remove() ends it
    if (auto text = io::read_file(remembered_path(run_dir)); text)
      if (auto recalled = recall(*guest, *text); !recalled) log::warn("virtual machine '{}': {}", id, recalled.error().text());
    guest->state = State::running;
    auto monitor = co_await qmp::Client::connect(monitor_path(run_dir));
    if (monitor) {
      attach_monitor(guest, std::move(*monitor));
      co_await learn_state(guest);
    } else {
      // A QEMU that hangs is a guest all the same; its connection is tried on and on.
      log::warn("virtual machine '{}' is adopted without its monitor: {}", id, monitor.error().text());
    }
    follow(core, guest);
    co_return status_of(*guest);
  }

  Task<> shut_down() override {
    auto core = core_;
    let_go();
    co_await core->tasks.join();
  }

  Task<Result<std::unique_ptr<ExecSession>>> exec(std::string id, ExecSpec spec) override {
    auto guest = core_->find(id);
    if (!guest) co_return fail(ErrorKind::not_found, fmt::format("no virtual machine '{}'", id));
    co_return co_await start_exec(guest, std::move(spec));
  }

  Task<Result<>> add_layer(std::string id, std::size_t disk, Disk layer) override {
    auto guest = core_->find(id);
    if (!guest || !guest->lives()) co_return fail(ErrorKind::not_found, fmt::format("virtual machine '{}' does not run", id));
    VIRGA_CO_TRY(auto turn, co_await guest->lock.lock());
    co_return co_await add_disk_layer(core_, guest, disk, std::move(layer));
  }
  Task<Result<>> merge_layers(std::string id, std::size_t disk, Disk layers, std::string upper, std::string lower) override {
    auto guest = core_->find(id);
    if (!guest || !guest->lives()) co_return fail(ErrorKind::not_found, fmt::format("virtual machine '{}' does not run", id));
    co_return co_await merge_disk_layers(core_, guest, disk, std::move(layers), std::move(upper), std::move(lower));
  }
  Task<Result<>> freeze_files(std::string id, Milliseconds longest) override {
    auto guest = core_->find(id);
    if (!guest || !guest->lives()) co_return fail(ErrorKind::not_found, fmt::format("virtual machine '{}' does not run", id));
    if (!guest->agent || !guest->agent->ready())
      co_return fail(ErrorKind::unavailable, "no virga-agent answers in the virtual machine");
    co_return co_await guest->agent->freeze(longest, 5s);
  }
  Task<Result<>> thaw_files(std::string id) override {
    auto guest = core_->find(id);
    // Without its agent, and without us, it goes on by itself.
    if (!guest || !guest->lives() || !guest->agent || !guest->agent->ready()) co_return Result<>{};
    co_return co_await guest->agent->thaw(5s);
  }

  Task<Result<std::unique_ptr<ByteStream>>> open_console(std::string id) override {
    auto guest = core_->find(id);
    if (!guest) co_return fail(ErrorKind::not_found, fmt::format("virtual machine '{}' does not run", id));
    VIRGA_CO_TRY(auto console, co_await io::open_console(guest->run_dir));
    co_return io::make_stream(core_->options.executor, std::move(console));
  }
  Task<Result<>> resize_console(std::string /*id*/, std::uint16_t /*columns*/, std::uint16_t /*rows*/) override {
    co_return fail(ErrorKind::unsupported, "a serial line has no size");
  }
  Task<Result<std::unique_ptr<ByteStream>>> open_screen(std::string id, Screen protocol) override {
    auto guest = core_->find(id);
    if (!guest) co_return fail(ErrorKind::not_found, fmt::format("virtual machine '{}' does not run", id));
    co_return co_await join_screen(guest, protocol, core_->options.executor);
  }
  Task<Result<std::string>> screenshot(std::string id) override {
    auto guest = core_->find(id);
    if (!guest) co_return fail(ErrorKind::not_found, fmt::format("virtual machine '{}' does not run", id));
    co_return co_await take_screenshot(guest);
  }
  Task<Result<>> clear_console_log(std::string id) override {
    auto guest = core_->find(id);
    if (!guest || !guest->shim) co_return fail(ErrorKind::not_found, fmt::format("virtual machine '{}' does not run", id));
    co_return co_await guest->shim->clear_log();
  }

  Task<Result<std::unique_ptr<ByteStream>>> open_files(std::string id) override {
    auto guest = core_->find(id);
    if (!guest || !guest->lives()) co_return fail(ErrorKind::not_found, fmt::format("virtual machine '{}' does not run", id));
    co_return co_await serve_files(guest);
  }

  Task<Result<>> write_running(std::string id, std::vector<NewFile> files) override {
    VIRGA_CO_TRY(auto stream, co_await open_files(std::move(id)));
    std::vector<sftp::WholeFile> whole;
    for (auto& f : files) whole.push_back({std::move(f.path), std::move(f.text), f.uid, f.gid, f.mode, f.only_if_missing});
    co_return co_await sftp::write_whole_files(std::move(stream), std::move(whole));
  }

 private:
  static GuestStatus status_of(const Guest& guest) {
    GuestStatus status;
    status.state = guest.state;
    if (guest.lives()) {
      status.pid = guest.pid;
      status.start_time = guest.start_time;
    }
    return status;
  }

  static void forget(const CorePtr& core, const GuestPtr& guest) {
    guest->state = State::absent;
    guest->ended.notify();
    guest->agent_changed.notify();
    guest->monitor_changed.notify();
    if (core->find(guest->id) == guest) core->guests.erase(guest->id);
  }

  /// True: the guest has agreed to shut down.
  static Task<bool> ask_agent(GuestPtr guest) {
    if (!guest->agent || !guest->agent->ready()) co_return false;
    auto agreed = co_await guest->agent->power(agent::Power::off, 2s);
    co_return agreed.has_value();
  }

  Task<Result<>> switch_to(std::string id, State wanted) {
    auto guest = core_->find(id);
    if (!guest) co_return fail(ErrorKind::not_found, fmt::format("no virtual machine '{}'", id));
    if (guest->state != State::running && guest->state != State::paused)
      co_return fail(ErrorKind::unavailable, fmt::format("virtual machine '{}' does not run", id));
    VIRGA_CO_TRY(auto turn, co_await guest->lock.lock());
    if (guest->state == wanted) co_return Result<>{};
    auto done = co_await command(guest, wanted == State::paused ? "stop" : "cont", {}, 30s);
    if (!done)
      co_return fail(
          std::move(done).error().wrap(fmt::format("{} virtual machine '{}'", wanted == State::paused ? "pause" : "resume", id)));
    if (guest->state == State::running || guest->state == State::paused) guest->state = wanted;
    co_return Result<>{};
  }

  void let_go() {
    core_->closing = true;
    core_->handler = nullptr;
    core_->tasks.cancel();
    for (auto& [id, guest] : core_->guests) {
      guest->monitor.reset();
      guest->agent.reset();
      guest->ended.notify();
      guest->agent_changed.notify();
      guest->monitor_changed.notify();
    }
  }

  CorePtr core_;
  DriverInfo info_;
};

/// The firmware files of Debian's ovmf, where they are.
void find_firmware(Core& core) {
  // Some of them are symlinks, which open_descriptors() refuses.
  auto there = [](const std::string& path) {
    std::error_code ec;
    auto real = std::filesystem::canonical(path, ec);
    return ec ? std::string() : real.string();
  };
  core.host.firmware = there(core.options.firmware_directory + "/OVMF_CODE_4M.fd");
  core.host.secure_firmware = there(core.options.firmware_directory + "/OVMF_CODE_4M.ms.fd");
  core.host.bios = there(core.options.bios_directory + "/qboot.rom");
}

}  // namespace
}  // namespace qemu_driver

Task<Result<std::unique_ptr<Driver>>> open_qemu_driver(QemuOptions options) {
  using namespace qemu_driver;
  auto core = std::make_shared<Core>(std::move(options));
  DriverInfo info;
  info.name = "qemu";
  info.kind = Kind::virtual_machine;
  core->host.qemu_program = core->options.qemu_program;
  auto version = co_await qemu_version(core->options.qemu_program);
  if (version) {
    core->usable = true;
    core->host.version = *version;
    info.version = version->text;
  } else {
    info.warnings.push_back(
        fmt::format("no virtual machines: {}; install qemu-system-x86 (7.2 or newer)", version.error().chain()));
  }
  const auto chosen = choose_accelerator(co_await core->options.pool.run([] { return kvm_facts(); }));
  core->host.kvm = chosen.kvm;
  core->kvm_group = chosen.group;
  if (!chosen.kvm)
    info.warnings.push_back(
        fmt::format("virtual machines are emulated (TCG), which is slow: {}; {}", chosen.reason, chosen.remedy));
  find_firmware(*core);
  if (core->host.firmware.empty())
    info.warnings.push_back("images that boot by firmware do not work: there is no OVMF; install ovmf");
  core->layout = io::CgroupLayout::probe();
  co_return std::unique_ptr<Driver>(std::make_unique<QemuDriver>(core, std::move(info)));
}

}  // namespace virga::compute
