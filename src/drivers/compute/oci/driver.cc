// The lifecycle. Each step is repeatable, as a daemon may be killed between any two of them and remove() must then find everything.
#include "drivers/compute/oci/driver.h"

#include <fmt/format.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "base/log.h"
#include "drivers/compute/oci/core.h"
#include "drivers/compute/oci/rootfs.h"
#include "io/file.h"
#include "io/process.h"
#include "io/stream.h"

namespace virga::compute {
namespace oci_driver {
namespace {

bool runs(State state) {
  return state == State::running || state == State::paused;
}

/// Everything in the directory, but not the directory: that is the engine's.
Result<> empty_directory(const std::string& path) {
  auto names = io::list_directory(path);
  if (!names) return names.error().kind() == ErrorKind::not_found ? Result<>{} : fail(std::move(names).error());
  for (const auto& name : *names) VIRGA_CHECK(io::remove_tree(path + "/" + name));
  return {};
}

/// Follows a guest to its end.
Task<> watch(CorePtr core, GuestPtr guest) {
  const auto* shim = guest->shim.get();
  auto end = co_await guest->shim->wait_exit();
  if (!end && end.error().kind() == ErrorKind::cancelled) co_return;
  if (guest->shim.get() != shim) co_return;  // it was removed meanwhile
  if (!end && !guest->expected) {
    // Somebody killed the shim: a container nobody watches must not go on.
    log::warn("container '{}': {}; it is ended", guest->id, end.error().text());
    auto group = core->cgroup(guest->id);
    (void)co_await core->options.pool.run([group] { return group.kill_all(); });
  }
  guest->state = State::stopped;
  guest->ended.notify();
  if (guest->expected || core->closing || core->find(guest->id) != guest || !core->handler) co_return;
  GuestEvent event;
  event.id = guest->id;
  // An init that calls reboot(2) in a process namespace of its own dies of SIGHUP (restart) or SIGINT (halt, power off).
  event.reboot = end && end->signal == SIGHUP;
  event.exit_code = !end ? 128 + SIGKILL : end->signal == SIGINT || end->signal == SIGHUP ? 0 : end->code;
  core->handler(event);
}

void follow(const CorePtr& core, const GuestPtr& guest) {
  const auto& status = guest->shim->status();
  guest->pid = status.guest_pid;
  guest->start_time = status.guest_start_time;
  core->tasks.spawn("container " + guest->id, watch(core, guest));
}

/// The processes, the runtime's state, the cgroup, the shim and the run directory's content, in an order in which nothing can come
/// back.
Task<Result<>> take_away(CorePtr core, std::string id, std::string run_dir) {
  auto group = core->cgroup(id);
  auto killed = co_await core->options.pool.run([group] { return group.kill_all(); });
  if (!killed) co_return killed;
  if (!run_dir.empty()) VIRGA_CO_CHECK(co_await io::Shim::sweep(run_dir));
  if (!core->runtime.path.empty() && io::exists(core->runtime_state(id))) {
    io::ProcessSpec spec;
    spec.argv = delete_command(core->runtime, id);
    auto deleted = co_await io::run_process(std::move(spec));
    if (!deleted || deleted->status.code != 0)
      log::debug("the runtime did not delete '{}': {}", id, deleted ? deleted->err : deleted.error().text());
  }
  auto removed = co_await core->options.pool.run([group, state = core->runtime_state(id), run_dir]() -> Result<> {
    VIRGA_CHECK(group.remove());
    VIRGA_CHECK(io::remove_tree(state));  // where the runtime has failed to
    if (run_dir.empty()) return {};
    return empty_directory(run_dir);
  });
  co_return removed;
}

class OciDriver final : public Driver, public ExecOps, public FileOps, public ConsoleOps {
 public:
  OciDriver(CorePtr core, DriverInfo info) : core_(std::move(core)), info_(std::move(info)) {}
  const DriverInfo& info() const noexcept override { return info_; }
  ExecOps* exec() noexcept override { return this; }
  FileOps* files() noexcept override { return this; }
  ConsoleOps* console() noexcept override { return this; }
  void on_event(std::function<void(GuestEvent)> handler) override { core_->handler = std::move(handler); }

  Result<LaunchPlan> plan(const GuestSpec& spec) const override {
    VIRGA_TRY(auto config, make_config(spec, core_->facts));
    VIRGA_TRY(auto document, virga::oci::to_json(config));
    return LaunchPlan{create_command(core_->runtime, spec.id), std::move(document)};
  }

  Task<Result<GuestStatus>> create(GuestSpec spec) override {
    if (core_->runtime.path.empty())
      co_return fail(Error(ErrorKind::unavailable, "no OCI runtime works on this host")
                         .with_hint(info_.warnings.empty() ? "install runc" : info_.warnings.front()));
    auto guest = core_->find(spec.id);
    if (!guest) guest = core_->guests.emplace(spec.id, std::make_shared<Guest>(core_->options.executor, spec.id)).first->second;
    VIRGA_CO_TRY(auto turn, co_await guest->lock.lock());
    if (guest->state == State::created || runs(guest->state))
      co_return fail(ErrorKind::busy, fmt::format("container '{}' runs already", spec.name));
    guest->run_dir = spec.run_dir;
    auto made = co_await create_steps(guest, spec);
    if (!made) {
      co_await shield();
      if (auto undone = co_await take_away(core_, spec.id, spec.run_dir); !undone)
        log::warn("container '{}' could not be taken away after a failed start: {}", spec.id, undone.error().text());
      co_await forget(guest);
      co_return fail(std::move(made).error().wrap(fmt::format("create container '{}'", spec.name)));
    }
    co_return status(spec.id);
  }

  Task<Result<>> start(std::string id) override {
    auto guest = core_->find(id);
    if (!guest) co_return fail(ErrorKind::not_found, fmt::format("no container '{}'", id));
    VIRGA_CO_TRY(auto turn, co_await guest->lock.lock());
    if (runs(guest->state)) co_return Result<>{};
    if (guest->state != State::created) co_return fail(ErrorKind::unavailable, fmt::format("container '{}' is not created", id));
    io::ProcessSpec spec;
    spec.argv = start_command(core_->runtime, id);
    auto started = co_await io::check_process(std::move(spec));
    // The runtime removes its fifo when the init goes on: a start that failed or was cancelled late may have happened all the same.
    if (!started && io::exists(core_->runtime_state(id) + "/exec.fifo"))
      co_return fail(std::move(started).error().wrap(fmt::format("start container '{}'", id)));
    if (guest->state == State::created) guest->state = State::running;
    co_return Result<>{};
  }

  Task<Result<>> stop(std::string id, Milliseconds timeout) override {
    auto guest = core_->find(id);
    if (!guest || guest->state == State::absent || guest->state == State::stopped) co_return Result<>{};
    if (guest->state == State::paused) VIRGA_CO_CHECK(co_await resume(id));
    guest->expected = true;
    // An init that waits to be started knows no signals yet.
    const int signal = guest->state == State::created ? SIGKILL : guest->remembered.halt_signal;
    auto sent = co_await guest->shim->signal(signal);
    const auto end = std::chrono::steady_clock::now() + std::min(timeout, Milliseconds(std::chrono::hours(24 * 365)));
    while (guest->state != State::stopped && guest->state != State::absent) {
      const auto left = std::chrono::duration_cast<Milliseconds>(end - std::chrono::steady_clock::now());
      const bool cancelled = co_await is_cancelled();
      if (left.count() <= 0 || cancelled) {
        guest->expected = false;
        if (cancelled) co_return fail(ErrorKind::cancelled, "cancelled; it has been asked to shut down and may still do so");
        const auto seconds = static_cast<double>(timeout.count()) / 1000;
        co_return fail(ErrorKind::timeout, fmt::format("container '{}' did not shut down within {:g} s", id, seconds));
      }
      if (!sent && sent.error().kind() != ErrorKind::unavailable) co_return sent;
      co_await guest->ended.wait_for(left);
    }
    co_return Result<>{};
  }

  Task<Result<>> remove(std::string id) override {
    auto guest = core_->find(id);
    if (!guest) guest = core_->guests.emplace(id, std::make_shared<Guest>(core_->options.executor, id)).first->second;
    guest->expected = true;
    VIRGA_CO_TRY(auto turn, co_await guest->lock.lock());
    if (core_->find(id) != guest) co_return Result<>{};  // somebody else removed it while we waited
    co_await shield();
    // At once, and before the cgroup's processes are counted: the init takes its whole process namespace along.
    if (guest->shim && guest->state != State::stopped) (void)co_await guest->shim->signal(SIGKILL);
    auto removed = co_await take_away(core_, id, guest->run_dir);
    if (!removed) co_return fail(std::move(removed).error().wrap(fmt::format("remove container '{}'", id)));
    co_await forget(guest);
    co_return Result<>{};
  }

  Task<Result<>> set_limits(std::string id, Limits limits) override {
    auto guest = core_->find(id);
    if (!guest || !(runs(guest->state) || guest->state == State::created))
      co_return fail(ErrorKind::not_found, fmt::format("container '{}' does not run", id));
    auto set = [group = core_->cgroup(id), limits, most = core_->facts.most_processes]() -> Result<> {
      VIRGA_CHECK(group.limit_cpus(limits.cpus ? std::optional<double>(*limits.cpus) : std::nullopt));
      VIRGA_CHECK(group.limit_processes(limits.processes ? limits.processes : most));
      auto memory = group.limit_memory(limits.memory);
      if (!memory && memory.error().kind() == ErrorKind::busy)
        return fail(Error(ErrorKind::busy, "the container uses more memory than the new limit")
                        .with_hint("free memory in it, or restart it"));
      return memory;
    };
    co_return co_await core_->options.pool.run(std::move(set));
  }

  Task<Result<>> pause(std::string id) override {
    auto guest = core_->find(id);
    if (!guest || guest->state == State::absent) co_return fail(ErrorKind::not_found, fmt::format("no container '{}'", id));
    if (!runs(guest->state)) co_return fail(ErrorKind::unavailable, fmt::format("container '{}' does not run", id));
    auto done = co_await core_->options.pool.run([group = core_->cgroup(id)] { return group.freeze(); });
    if (done && guest->state == State::running) guest->state = State::paused;
    co_return done;
  }

  Task<Result<>> resume(std::string id) override {
    auto guest = core_->find(id);
    if (!guest || guest->state == State::absent) co_return fail(ErrorKind::not_found, fmt::format("no container '{}'", id));
    if (!runs(guest->state)) co_return fail(ErrorKind::unavailable, fmt::format("container '{}' does not run", id));
    auto done = co_await core_->options.pool.run([group = core_->cgroup(id)] { return group.thaw(); });
    if (done && guest->state == State::paused) guest->state = State::running;
    co_return done;
  }

  GuestStatus status(const std::string& id) const override {
    auto guest = core_->find(id);
    if (!guest || guest->state == State::absent) return {};
    if (guest->state != State::stopped && guest->shim && guest->shim->status().exited) return {State::stopped, -1, 0};
    if (guest->state == State::stopped) return {State::stopped, -1, 0};
    return {guest->state, guest->pid, guest->start_time};
  }

  Task<Result<GuestStats>> stats(std::string id) override {
    auto guest = core_->find(id);
    if (!guest || !(runs(guest->state) || guest->state == State::created))
      co_return fail(ErrorKind::not_found, fmt::format("container '{}' does not run", id));
    co_return co_await read_stats(core_, guest);
  }

  Task<Result<GuestStatus>> adopt(std::string id, std::string run_dir) override {
    auto guest = core_->find(id);
    if (!guest) guest = core_->guests.emplace(id, std::make_shared<Guest>(core_->options.executor, id)).first->second;
    VIRGA_CO_TRY(auto turn, co_await guest->lock.lock());
    if (guest->state != State::absent) co_return status(id);
    guest->run_dir = run_dir;  // remove() needs it, whatever is found
    auto connected = co_await io::Shim::connect(run_dir);
    if (!connected) {
      if (connected.error().kind() == ErrorKind::not_found) co_return GuestStatus{};
      co_return fail(std::move(connected).error().wrap(fmt::format("adopt container '{}'", id)));
    }
    auto shim = std::move(*connected);
    // The daemon before us may have died while the runtime was at work.
    for (int round = 0; !shim->status().launcher_done && round < 3000; ++round)
      if (!co_await sleep_for(Milliseconds(10))) co_return fail(ErrorKind::cancelled, "cancelled");
    if (shim->status().guest_pid <= 0) co_return GuestStatus{};
    auto found = co_await core_->options.pool.run(
        [path = run_dir + "/" + config_name, group = core_->cgroup(id)]() -> Result<std::pair<Remembered, bool>> {
          VIRGA_TRY(auto text, io::read_file(path));
          VIRGA_TRY(auto remembered, recall(text));
          return std::pair{std::move(remembered), group.frozen()};
        });
    if (!found) co_return GuestStatus{};  // an unreadable configuration: what is left is for remove()
    guest->remembered = std::move(found->first);
    guest->shim = std::move(shim);
    // The runtime's fifo is there until the init is told to go on.
    const bool waits = io::exists(core_->runtime_state(id) + "/exec.fifo");
    guest->state = guest->shim->status().exited ? State::stopped
                   : waits                      ? State::created
                   : found->second              ? State::paused
                                                : State::running;
    co_await sweep_exec_sessions(run_dir);
    follow(core_, guest);
    co_return status(id);
  }

  Task<> shut_down() override {
    core_->closing = true;
    core_->tasks.cancel();
    co_await core_->tasks.join();
    core_->guests.clear();
  }

  Task<Result<std::unique_ptr<ExecSession>>> exec(std::string id, ExecSpec spec) override {
    auto guest = core_->find(id);
    if (!guest || guest->state == State::absent) co_return fail(ErrorKind::not_found, fmt::format("no container '{}'", id));
    if (guest->state == State::paused)
      co_return fail(Error(ErrorKind::unavailable, "the container is paused").with_hint("resume it first"));
    if (guest->state != State::running)
      co_return fail(Error(ErrorKind::unavailable, "the container does not run").with_hint("start it first"));
    co_return co_await start_exec(core_, guest, std::move(spec));
  }

  Task<Result<std::unique_ptr<ByteStream>>> open_console(std::string id) override {
    auto guest = core_->find(id);
    if (!guest) co_return fail(ErrorKind::not_found, fmt::format("container '{}' does not run", id));
    VIRGA_CO_TRY(auto console, co_await io::open_console(guest->run_dir));
    co_return io::make_stream(core_->options.executor, std::move(console));
  }
  Task<Result<>> resize_console(std::string id, std::uint16_t columns, std::uint16_t rows) override {
    auto guest = core_->find(id);
    if (!guest || !guest->shim) co_return fail(ErrorKind::not_found, fmt::format("container '{}' does not run", id));
    co_return co_await guest->shim->resize(columns, rows);
  }
  Task<Result<>> clear_console_log(std::string id) override {
    auto guest = core_->find(id);
    if (!guest || !guest->shim) co_return fail(ErrorKind::not_found, fmt::format("container '{}' does not run", id));
    co_return co_await guest->shim->clear_log();
  }

  Task<Result<std::unique_ptr<ByteStream>>> open_files(std::string id) override {
    auto guest = core_->find(id);
    if (!guest || guest->state == State::absent) co_return fail(ErrorKind::not_found, fmt::format("no container '{}'", id));
    if (!runs(guest->state)) co_return fail(ErrorKind::unavailable, "the container does not run");
    co_return co_await serve_running(core_, guest);
  }
  Task<Result<std::unique_ptr<ByteStream>>> open_root(std::string rootfs, IdRange ids) override {
    return serve_stopped(core_, std::move(rootfs), ids);
  }
  Task<Result<>> write_files(std::string rootfs, IdRange ids, std::vector<NewFile> files) override {
    return write_new_files(core_, std::move(rootfs), ids, std::move(files));
  }

 private:
  Task<> forget(GuestPtr guest) {
    guest->state = State::absent;
    guest->shim.reset();
    guest->ended.notify();
    if (core_->find(guest->id) == guest) core_->guests.erase(guest->id);
    if (core_->guests.empty())
      co_await core_->options.pool.run(
          [parent = core_->layout.group("virga/" + core_->options.cgroup_tag)] { parent.remove_if_empty(); });
  }

  Task<Result<>> create_steps(GuestPtr guest, GuestSpec spec) {
    // Of an earlier run, or of a daemon that died: seldom there, so it is looked for before it is cleaned.
    if (guest->shim || io::exists(spec.run_dir + "/" + config_name) || io::exists(core_->runtime_state(spec.id)))
      VIRGA_CO_CHECK(co_await take_away(core_, spec.id, spec.run_dir));
    guest->shim.reset();
    guest->state = State::absent;
    guest->expected = false;
    VIRGA_CO_TRY(auto config, make_config(spec, core_->facts));
    auto prepare = [&spec, &config, &guest]() -> Result<> {
      VIRGA_TRY(auto init, prepare_rootfs(spec.rootfs, spec.ids));
      guest->remembered = {spec.rootfs, init.halt_signal, spec.nics};
      remember(config, guest->remembered);
      VIRGA_TRY(auto document, virga::oci::to_json(config));
      return io::write_file(spec.run_dir + "/" + config_name, json::serialize(document));
    };
    VIRGA_CO_CHECK(co_await core_->options.pool.run(prepare));
    VIRGA_CO_TRY(guest->shim, co_await run_create(spec));
    VIRGA_CO_CHECK(co_await core_->options.pool.run(
        [group = core_->cgroup(spec.id), uid = spec.ids.base] { return group.delegate_names(uid); }));
    guest->state = State::created;
    follow(core_, guest);
    co_return Result<>{};
  }

  Task<Result<std::unique_ptr<io::Shim>>> run_create(GuestSpec spec) {
    io::ShimSpec shim;
    shim.program = core_->options.shim_program;
    shim.run_dir = spec.run_dir;
    shim.cwd = spec.run_dir;
    shim.console = io::ConsoleSource::receive;
    shim.console_log = spec.log_dir + "/console.log";
    shim.output_log = spec.log_dir + "/init.log";
    shim.argv = create_command(core_->runtime, spec.id);
    shim.env = {"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"};
    shim.pid_file = spec.run_dir + "/" + pid_name;
    auto started = co_await io::Shim::start(std::move(shim), Milliseconds(60'000));
    if (started) co_return started;
    auto said = last_error(io::read_file(spec.run_dir + "/" + log_name).value_or(""));
    if (said.empty() || started.error().kind() != ErrorKind::unavailable) co_return started;
    co_return fail(ErrorKind::unavailable, fmt::format("{}: {}", core_->runtime.path, said));
  }

  CorePtr core_;
  DriverInfo info_;
};

}  // namespace
}  // namespace oci_driver

Task<Result<std::unique_ptr<Driver>>> open_oci_driver(OciOptions options) {
  using namespace oci_driver;
  ::signal(SIGPIPE, SIG_IGN);  // a command that closes its input must not end the daemon
  HostFacts facts;
  facts.cgroup_parent = "/virga/" + options.cgroup_tag;
  if (io::CgroupLayout::probe().has("pids")) facts.most_processes = io::default_process_limit();
  rlimit files{};
  if (::getrlimit(RLIMIT_NOFILE, &files) == 0) facts.open_files_hard = files.rlim_max;
  auto made = co_await options.pool.run([root = options.run_root] { return io::make_directory(root, 0711); });
  if (!made) co_return fail(std::move(made).error());
  auto probe = co_await probe_runtimes(options, facts);
  DriverInfo info;
  info.name = "oci";
  info.version = probe.version;
  info.kind = Kind::container;
  info.warnings = probe.warnings;
  auto core = std::make_shared<Core>(std::move(options), std::move(facts));
  core->runtime = probe.runtime;
  co_return std::make_unique<OciDriver>(std::move(core), std::move(info));
}

}  // namespace virga::compute
