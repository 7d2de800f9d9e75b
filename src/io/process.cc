#include "io/process.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/close_range.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include <algorithm>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <cerrno>
#include <cstring>
#include <thread>

#include "io/file.h"

namespace asio = boost::asio;

namespace virga::io {
namespace {

constexpr auto await_ec = asio::as_tuple(asio::use_awaitable);

Task<bool> wait_fd(int fd, asio::posix::stream_descriptor::wait_type what) {
  UniqueFd copy(::fcntl(fd, F_DUPFD_CLOEXEC, 3));
  if (!copy) co_return false;
  asio::posix::stream_descriptor descriptor(co_await current_executor(), copy.release());
  auto [ec] = co_await descriptor.async_wait(what, await_ec);
  co_return !ec;
}

/// Only async-signal-safe calls from here to execve: other threads may hold locks at the moment of the fork.
[[noreturn]] void child_main(const char* program, char* const* argv, char* const* envp, const char* cwd,
                             const std::pair<int, int>* fds, std::size_t fd_count, bool new_session, int error_pipe) {
  auto give_up = [&](int stage) {
    int report[2] = {stage, errno};
    (void)!::write(error_pipe, report, sizeof report);
    ::_exit(127);
  };
  sigset_t none;
  ::sigemptyset(&none);
  ::sigprocmask(SIG_SETMASK, &none, nullptr);
  struct sigaction standard{};
  standard.sa_handler = SIG_DFL;
  for (int s = 1; s < 32; ++s)
    if (s != SIGKILL && s != SIGSTOP) ::sigaction(s, &standard, nullptr);
  if (new_session && ::setsid() < 0) give_up(1);
  if (::chdir(cwd) != 0) give_up(2);
  // First out of the way of all targets, then into place: a source may be another's target.
  constexpr int safe_from = 700;
  int pipe_copy = ::fcntl(error_pipe, F_DUPFD_CLOEXEC, safe_from);
  if (pipe_copy >= 0) error_pipe = pipe_copy;
  int moved[64];
  for (std::size_t i = 0; i < fd_count; ++i) {
    moved[i] = ::fcntl(fds[i].first, F_DUPFD_CLOEXEC, safe_from);
    if (moved[i] < 0) give_up(3);
  }
  bool standard_given[3] = {false, false, false};
  for (std::size_t i = 0; i < fd_count; ++i)
    if (fds[i].second < 3) standard_given[fds[i].second] = true;
  for (int n = 0; n < 3; ++n) {
    if (standard_given[n]) continue;
    int null = ::open("/dev/null", O_RDWR | O_CLOEXEC);
    if (null < 0) give_up(3);
    if (null == n) {
      if (::fcntl(n, F_SETFD, 0) < 0) give_up(3);
      continue;
    }
    if (::dup2(null, n) < 0) give_up(3);
    ::close(null);
  }
  int highest = 2;
  for (std::size_t i = 0; i < fd_count; ++i) {
    if (::dup2(moved[i], fds[i].second) < 0) give_up(3);
    if (fds[i].second > highest) highest = fds[i].second;
  }
  // Everything else closes at exec; descriptors below `highest` that were not named are closed too.
  if (::syscall(SYS_close_range, 3u, ~0u, CLOSE_RANGE_CLOEXEC) != 0) give_up(4);
  for (std::size_t i = 0; i < fd_count; ++i)
    if (::fcntl(fds[i].second, F_SETFD, 0) < 0) give_up(3);
  ::execve(program, argv, envp);
  give_up(5);
  ::_exit(127);
}

std::string last_lines(const std::string& text) {
  std::string t = text;
  while (!t.empty() && (t.back() == '\n' || t.back() == ' ')) t.pop_back();
  if (t.size() > 600) t = "..." + t.substr(t.size() - 600);
  std::replace(t.begin(), t.end(), '\n', ' ');
  return t;
}

/// Reads until end of file or the limit; false when the limit was passed.
Task<bool> drain(asio::posix::stream_descriptor& from, std::string& into, std::size_t limit) {
  char buffer[16384];
  for (;;) {
    auto [ec, n] = co_await from.async_read_some(asio::buffer(buffer), await_ec);
    if (n > 0) {
      if (into.size() + n > limit) co_return false;
      into.append(buffer, n);
    }
    if (ec) co_return true;
  }
}

struct Pipe {
  UniqueFd read, write;
};
Result<Pipe> make_pipe() {
  int p[2];
  if (::pipe2(p, O_CLOEXEC) != 0) return fail_errno(errno, "pipe");
  return Pipe{UniqueFd(p[0]), UniqueFd(p[1])};
}

}  // namespace

Result<std::string> find_program(const std::string& name) {
  if (name.find('/') != std::string::npos) return name;
  for (const char* dir : {"/usr/local/sbin/", "/usr/local/bin/", "/usr/sbin/", "/usr/bin/", "/sbin/", "/bin/"}) {
    std::string path = dir + name;
    if (::access(path.c_str(), X_OK) == 0) return path;
  }
  return fail(ErrorKind::not_found, fmt::format("program '{}' is not installed", name));
}

Task<bool> wait_readable(int fd) {
  return wait_fd(fd, asio::posix::stream_descriptor::wait_read);
}
Task<bool> wait_writable(int fd) {
  return wait_fd(fd, asio::posix::stream_descriptor::wait_write);
}

Process::Process(pid_t pid, UniqueFd pidfd) : pid_(pid), pidfd_(std::move(pidfd)) {}
Process::Process(Process&& other) noexcept : pid_(std::exchange(other.pid_, -1)), pidfd_(std::move(other.pidfd_)) {}
Process& Process::operator=(Process&& other) noexcept {
  if (this != &other) {
    abandon();
    pid_ = std::exchange(other.pid_, -1);
    pidfd_ = std::move(other.pidfd_);
  }
  return *this;
}
Process::~Process() {
  abandon();
}

void Process::abandon() noexcept {
  if (pid_ <= 0) return;
  // Killed processes end at once, but not in no time: a detached thread reaps so that the loop never waits.
  ::syscall(SYS_pidfd_send_signal, pidfd_.get(), SIGKILL, nullptr, 0);
  int status = 0;
  if (::waitpid(pid_, &status, WNOHANG) == 0)
    std::thread([pid = pid_] {
      int s;
      ::waitpid(pid, &s, 0);
    }).detach();
  pid_ = -1;
}

Result<Process> Process::start(const ProcessSpec& spec) {
  if (spec.argv.empty() || spec.fds.size() > 64)
    return fail(ErrorKind::internal, "process without argv or with too many descriptors");
  for (const auto& a : spec.argv)
    if (a.find('\0') != std::string::npos)
      return fail(ErrorKind::invalid, fmt::format("argument of '{}' holds a NUL", spec.argv[0]));
  VIRGA_TRY(auto program, find_program(spec.argv[0]));
  VIRGA_TRY(auto errors, make_pipe());
  std::vector<char*> argv, envp;
  std::vector<std::string> env = spec.env;
  if (env.empty()) env = {"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C"};
  for (const auto& a : spec.argv) argv.push_back(const_cast<char*>(a.c_str()));
  for (const auto& e : env) envp.push_back(const_cast<char*>(e.c_str()));
  argv.push_back(nullptr);
  envp.push_back(nullptr);
  const std::string cwd = spec.cwd.empty() ? "/" : spec.cwd;

  // vfork semantics keep this at a fraction of a millisecond however large the daemon is; child_main touches nothing of ours.
  const pid_t pid = ::vfork();
  if (pid < 0) return fail_errno(errno, "fork");
  if (pid == 0)
    child_main(program.c_str(), argv.data(), envp.data(), cwd.c_str(), spec.fds.data(), spec.fds.size(), spec.new_session,
               errors.write.get());
  errors.write.reset();
  int report[2] = {0, 0};
  const auto n = ::read(errors.read.get(), report, sizeof report);
  if (n == sizeof report) {
    int status = 0;
    ::waitpid(pid, &status, 0);
    static constexpr const char* stages[] = {"", "setsid", "chdir", "pass descriptors", "close descriptors", "execute"};
    return fail_errno(report[1], fmt::format("{} '{}'", stages[std::clamp(report[0], 0, 5)], program));
  }
  UniqueFd pidfd(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)));
  if (!pidfd) {
    ::kill(pid, SIGKILL);
    int status = 0;
    ::waitpid(pid, &status, 0);
    return fail_errno(errno, "pidfd_open");
  }
  ::fcntl(pidfd.get(), F_SETFD, FD_CLOEXEC);
  return Process(pid, std::move(pidfd));
}

pid_t Process::pid() const noexcept {
  return pid_;
}

UniqueFd Process::release() noexcept {
  pid_ = -1;
  return std::move(pidfd_);
}

Result<> Process::kill(int signal) {
  if (::syscall(SYS_pidfd_send_signal, pidfd_.get(), signal, nullptr, 0) != 0)
    return fail_errno(errno, fmt::format("signal process {}", pid_));
  return {};
}

Task<Result<ExitStatus>> Process::wait() {
  for (;;) {
    int status = 0;
    const pid_t got = ::waitpid(pid_, &status, WNOHANG);
    if (got == pid_) {
      pid_ = -1;
      pidfd_.reset();
      if (WIFSIGNALED(status)) co_return ExitStatus{128 + WTERMSIG(status), WTERMSIG(status)};
      co_return ExitStatus{WEXITSTATUS(status), 0};
    }
    if (got < 0 && errno != EINTR) co_return fail_errno(errno, "waitpid");
    if (!co_await wait_readable(pidfd_.get())) co_return fail(ErrorKind::cancelled, "cancelled while waiting for a process");
  }
}

namespace {

/// Everything a run needs, so that the parallel readers share one life.
struct Run {
  Run(const Executor& ex, Process p, UniqueFd o, UniqueFd e)
      : process(std::move(p)), out(ex, o.release()), err(ex, e.release()), helpers(ex) {}
  Process process;
  asio::posix::stream_descriptor out, err;
  TaskGroup helpers;
  ProcessOutput output;
  bool overflow = false;
  bool timed_out = false;
};

Task<> read_stream(Run& run, asio::posix::stream_descriptor& from, std::string& into, std::size_t limit) {
  if (!co_await drain(from, into, limit)) {
    run.overflow = true;
    (void)run.process.kill(SIGKILL);
  }
}

Task<> feed(UniqueFd to, std::string input) {
  asio::posix::stream_descriptor stream(co_await current_executor(), to.release());
  std::size_t done = 0;
  while (done < input.size()) {
    auto [ec, n] = co_await stream.async_write_some(asio::buffer(input.data() + done, input.size() - done), await_ec);
    if (ec) co_return;
    done += n;
  }
}

Task<> watchdog(Run& run, Milliseconds timeout) {
  if (!co_await sleep_for(timeout)) co_return;
  run.timed_out = true;
  (void)run.process.kill(SIGKILL);
}

}  // namespace

Task<Result<ProcessOutput>> run_process(ProcessSpec spec, ProcessLimits limits) {
  VIRGA_CO_TRY(auto out, make_pipe());
  VIRGA_CO_TRY(auto err, make_pipe());
  VIRGA_CO_TRY(auto in, make_pipe());
  auto has = [&](int n) { return std::any_of(spec.fds.begin(), spec.fds.end(), [n](const auto& p) { return p.second == n; }); };
  if (!has(0) && !spec.input.empty()) spec.fds.emplace_back(in.read.get(), 0);
  if (!has(1)) spec.fds.emplace_back(out.write.get(), 1);
  if (!has(2)) spec.fds.emplace_back(err.write.get(), 2);
  VIRGA_CO_TRY(auto process, Process::start(spec));
  out.write.reset();
  err.write.reset();
  in.read.reset();
  auto executor = co_await current_executor();
  Run run(executor, std::move(process), std::move(out.read), std::move(err.read));
  run.helpers.spawn("stdout of " + spec.argv[0], read_stream(run, run.out, run.output.out, limits.max_output));
  run.helpers.spawn("stderr of " + spec.argv[0], read_stream(run, run.err, run.output.err, limits.max_output));
  if (!spec.input.empty()) run.helpers.spawn("stdin of " + spec.argv[0], feed(std::move(in.write), std::move(spec.input)));
  in.write.reset();
  TaskGroup dogs(executor);
  dogs.spawn("time-out of " + spec.argv[0], watchdog(run, limits.timeout));
  auto status = co_await run.process.wait();
  const bool cancelled = !status;
  if (cancelled) (void)run.process.kill(SIGKILL);
  co_await shield();
  if (cancelled) status = co_await run.process.wait();
  dogs.cancel();
  co_await dogs.join();
  // A grandchild may hold the pipes open: what is there is read, and no more is waited for.
  TaskGroup closer(executor);
  auto close_soon = [](Run& r) -> Task<> {
    if (co_await sleep_for(Milliseconds(200))) r.helpers.cancel();
  };
  closer.spawn("closer", close_soon(run));
  co_await run.helpers.join();
  closer.cancel();
  co_await closer.join();
  if (cancelled) co_return fail(ErrorKind::cancelled, fmt::format("'{}' was cancelled", spec.argv[0]));
  if (run.timed_out)
    co_return fail(ErrorKind::timeout, fmt::format("'{}' did not end within {} ms", spec.argv[0], limits.timeout.count()));
  if (run.overflow)
    co_return fail(ErrorKind::unavailable, fmt::format("'{}' printed more than {} bytes", spec.argv[0], limits.max_output));
  if (!status) co_return fail(std::move(status).error());
  run.output.status = *status;
  co_return std::move(run.output);
}

Task<Result<std::string>> check_process(ProcessSpec spec, ProcessLimits limits) {
  std::string name = spec.argv.empty() ? "" : spec.argv[0];
  auto result = co_await run_process(std::move(spec), limits);
  if (!result) co_return fail(std::move(result).error());
  if (result->status.code != 0)
    co_return fail(ErrorKind::unavailable,
                   fmt::format("'{}' failed with code {}: {}", name, result->status.code, last_lines(result->err)));
  co_return std::move(result->out);
}

Result<std::uint64_t> process_start_time(pid_t pid) {
  VIRGA_TRY(auto text, read_file(fmt::format("/proc/{}/stat", pid)));
  auto at = text.rfind(')');  // the name in field 2 may hold blanks and parentheses
  if (at == std::string::npos) return fail(ErrorKind::internal, "unreadable /proc/PID/stat");
  std::string_view rest(text);
  rest.remove_prefix(at + 2);
  for (int field = 3; field < 22; ++field) {
    auto space = rest.find(' ');
    if (space == std::string_view::npos) return fail(ErrorKind::internal, "short /proc/PID/stat");
    rest.remove_prefix(space + 1);
  }
  return std::strtoull(std::string(rest.substr(0, rest.find(' '))).c_str(), nullptr, 10);
}

std::string boot_id() {
  auto text = read_file("/proc/sys/kernel/random/boot_id").value_or("");
  while (!text.empty() && text.back() == '\n') text.pop_back();
  return text;
}

}  // namespace virga::io
