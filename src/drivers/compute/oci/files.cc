// The files of a container: a virga-files of its own serves each session, in the guest's namespaces (see apps/virga-files).
#include <fcntl.h>
#include <fmt/format.h>
#include <signal.h>

#include "drivers/compute/oci/core.h"
#include "io/file.h"
#include "io/idmap.h"
#include "io/process.h"
#include "io/stream.h"

namespace virga::compute::oci_driver {
namespace {

constexpr Milliseconds report_time{30'000};

struct Report {
  io::UniqueFd read, write;
};
Result<Report> make_report() {
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) return fail_errno(errno, "pipe");
  return Report{io::UniqueFd(ends[0]), io::UniqueFd(ends[1])};
}

/// Starts the program and waits until it serves, or says why not.
Task<Result<std::unique_ptr<ByteStream>>> start(CorePtr core, std::vector<std::string> arguments, io::UniqueFd user,
                                                io::UniqueFd mounts) {
  VIRGA_CO_TRY(auto sockets, io::make_socket_pair());
  VIRGA_CO_TRY(auto report, make_report());
  io::ProcessSpec spec;
  spec.argv = {core->options.files_program};
  for (auto& a : arguments) spec.argv.push_back(std::move(a));
  spec.fds = {{sockets.theirs.get(), 0}, {sockets.theirs.get(), 1}, {report.write.get(), 3}, {user.get(), 4}};
  if (mounts) spec.fds.emplace_back(mounts.get(), 5);
  auto started = co_await core->options.pool.run([&spec] { return io::Process::start(spec); });
  if (!started) co_return fail(std::move(started).error().wrap("serve the files"));
  auto process = std::make_shared<io::Process>(std::move(*started));
  sockets.theirs.reset();
  report.write.reset();
  bool reported = false;
  Notification news(core->options.executor);
  TaskGroup reading(core->options.executor);
  auto listen = [&]() -> Task<> {
    reported = co_await io::wait_readable(report.read.get());
    news.notify();
  };
  reading.spawn("first report of virga-files", listen());
  const bool in_time = reported || co_await news.wait_for(report_time) || reported;
  if (!in_time) {
    // It joins the guest's namespaces, which a guest or a stuck mount may hold up.
    const bool cancelled = co_await is_cancelled();
    co_await shield();
    (void)process->kill(SIGKILL);
    reading.cancel();
    co_await reading.join();
    if (cancelled) co_return fail(ErrorKind::cancelled, "cancelled");
    co_return fail(ErrorKind::timeout, "serve the files: the program does not begin");
  }
  co_await reading.join();
  if (!reported) co_return fail(ErrorKind::cancelled, "cancelled");
  char words[256];
  const auto n = ::read(report.read.get(), words, sizeof words);
  if (n > 0)
    co_return fail(ErrorKind::unavailable,
                   fmt::format("serve the files: {}", std::string_view(words, static_cast<std::size_t>(n))));
  co_return io::make_stream(core->options.executor, std::move(sockets.ours), process);
}

}  // namespace

Task<Result<std::unique_ptr<ByteStream>>> serve_running(CorePtr core, GuestPtr guest) {
  const auto proc = fmt::format("/proc/{}/ns/", guest->pid);
  VIRGA_CO_TRY(auto user, io::open_proc_link(proc + "user", O_RDONLY));
  VIRGA_CO_TRY(auto mounts, io::open_proc_link(proc + "mnt", O_RDONLY));
  // Looked at behind the opening: the number may belong to somebody else by now, whose namespaces these would be.
  auto now = io::process_start_time(guest->pid);
  if (!now || *now != guest->start_time) co_return fail(ErrorKind::unavailable, "the container has just ended");
  co_return co_await start(core, {"running"}, std::move(user), std::move(mounts));
}

Task<Result<std::unique_ptr<ByteStream>>> serve_stopped(CorePtr core, std::string rootfs, IdRange ids) {
  auto make = [ids] { return io::open_id_range(ids.base, ids.count); };
  VIRGA_CO_TRY(auto user, co_await core->options.pool.run(make));
  co_return co_await start(core, {"stopped", std::move(rootfs)}, std::move(user), {});
}

}  // namespace virga::compute::oci_driver
