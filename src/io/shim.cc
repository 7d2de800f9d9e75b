#include "io/shim.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "base/shim_protocol.h"
#include "io/file.h"

namespace virga::io {
namespace {

namespace wire = virga::shim;

constexpr Milliseconds answer_time{5'000};
constexpr int first_shim_fd = 100;  // where the guest's descriptors sit in the shim: above all their numbers in the guest

ExitStatus decode(int status) {
  if (WIFSIGNALED(status)) return {128 + WTERMSIG(status), WTERMSIG(status)};
  return {WEXITSTATUS(status), 0};
}

ShimStatus decode(const wire::Status& s) {
  ShimStatus out;
  out.shim_pid = s.shim_pid;
  out.guest_pid = s.guest_pid;
  out.guest_start_time = s.guest_start_time;
  out.launcher_done = s.launcher_done != 0;
  if (out.launcher_done) out.launcher_status = decode(s.launcher_status);
  out.exited = s.exited != 0;
  if (out.exited) out.status = decode(s.exit_status);
  return out;
}

std::string words_of(const wire::Message& m) {
  std::string words(m.words, ::strnlen(m.words, sizeof m.words));
  while (!words.empty() && (words.back() == '\n' || words.back() == ' ')) words.pop_back();
  for (char& c : words)
    if (static_cast<unsigned char>(c) < 0x20) c = ' ';
  return words;
}

Error start_error(const wire::Message& m, const std::string& program) {
  const char* const doing[] = {"start",           "prepare",          "make the console", "fork",   "start a session",
                               "join the cgroup", "pass descriptors", "drop privileges",  "execute"};
  const auto stage = static_cast<std::size_t>(m.stage);
  const auto words = words_of(m);
  if (m.stage == wire::Stage::launcher) {
    const auto status = decode(m.status.launcher_status);
    auto how =
        status.signal ? fmt::format("was killed by signal {}", status.signal) : fmt::format("failed with code {}", status.code);
    return Error(ErrorKind::unavailable, fmt::format("'{}' {}{}{}", program, how, words.empty() ? "" : ": ", words));
  }
  if (m.stage == wire::Stage::pid_file)
    return Error(ErrorKind::unavailable,
                 fmt::format("'{}' ended well but left no guest behind{}{}", program, words.empty() ? "" : ": ", words));
  auto failed = fail_errno(m.error, fmt::format("{} '{}'", stage < std::size(doing) ? doing[stage] : doing[0], program));
  return std::move(failed).value();
}

Result<UniqueFd> open_directory(const std::string& path) {
  UniqueFd fd(::open(path.c_str(), O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  if (!fd) return fail_errno(errno, fmt::format("open '{}'", path));
  return fd;
}

/// Through /proc/self/fd, as the directory's own path may be longer than a socket's address.
Result<UniqueFd> connect_to(int directory, const char* name, int type) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  auto path = fmt::format("/proc/self/fd/{}/{}", directory, name);
  std::copy(path.begin(), path.end(), address.sun_path);
  UniqueFd fd(::socket(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd) return fail_errno(errno, "socket");
  if (::connect(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) != 0)
    return fail_errno(errno, fmt::format("connect to '{}'", name));
  return fd;
}

/// A shim that lives, or that is being started, holds the lock. Leaves the lock with us when nobody has it.
Result<UniqueFd> take_lock(int directory, int flags) {
  UniqueFd lock(::openat(directory, wire::lock_name, O_RDWR | O_NOFOLLOW | O_CLOEXEC | flags, 0600));
  if (!lock) return fail_errno(errno, "no shim lives there");
  if (::flock(lock.get(), LOCK_EX | LOCK_NB) != 0)
    return fail(errno == EWOULDBLOCK ? ErrorKind::busy : ErrorKind::internal, "a shim lives there");
  return lock;
}

void remove_files(int directory) {
  for (const char* name : {wire::socket_name, wire::console_name, wire::receive_name, wire::state_name, wire::lock_name})
    ::unlinkat(directory, name, 0);
}

/// One connection. The reader task keeps the status current, so that everybody else only looks or waits for `changed`.
struct Connection : std::enable_shared_from_this<Connection> {
  Connection(const Executor& executor, UniqueFd d, std::string program_name)
      : directory(std::move(d)), program(std::move(program_name)), changed(executor), requests(executor), tasks(executor) {}

  UniqueFd directory, socket, pidfd;
  std::string program;
  ShimStatus status;
  std::optional<Error> start_failure;
  bool started = false;
  bool closed = false;     ///< the connection has ended
  bool gone = false;       ///< the shim process has ended
  bool abandoned = false;  ///< the Shim object was destroyed
  std::uint32_t sequence = 0;
  std::uint32_t answered = 0;
  int answer = 0;
  Notification changed;
  AsyncMutex requests;
  TaskGroup tasks;

  /// Takes all messages that are there; true when there were any, and those who wait must be told.
  bool drain() noexcept {
    wire::Message m;
    bool news = false;
    for (; !closed; news = true) {
      const auto n = ::recv(socket.get(), &m, sizeof m, MSG_DONTWAIT);
      if (n < 0 && errno == EINTR) continue;
      if (n < 0 && errno == EAGAIN) return news;
      if (n != static_cast<ssize_t>(sizeof m) || m.magic != wire::magic) {
        closed = true;
        return true;
      }
      status = decode(m.status);
      if (m.kind == wire::Kind::reply) {
        answered = m.sequence;
        answer = m.error;
      } else if (m.kind == wire::Kind::started) {
        started = true;
      } else if (m.kind == wire::Kind::failed) {
        start_failure = start_error(m, program);
      }
    }
    return news;
  }

  void reap() noexcept {
    siginfo_t info{};
    if (pidfd) ::waitid(P_PIDFD, static_cast<id_t>(pidfd.get()), &info, WEXITED | WNOHANG);
  }

  static Task<> read_all(std::shared_ptr<Connection> self) {
    for (;;) {
      self->drain();
      self->changed.notify();
      if (self->closed || self->abandoned) break;
      if (!co_await wait_readable(self->socket.get())) break;
    }
    if (self->abandoned) co_return;
    if (!self->pidfd || co_await wait_readable(self->pidfd.get())) {
      self->reap();
      self->gone = true;
    }
    self->changed.notify();
  }

  /// Waits until `what` holds; false when the time ran out or the task was cancelled.
  template <class Predicate>
  Task<bool> wait_until(Predicate what, Milliseconds timeout) {
    // For ever is no point in time: adding it would overflow.
    const auto end = std::chrono::steady_clock::now() + (timeout == Milliseconds::max() ? Milliseconds(0) : timeout);
    while (!what()) {
      if (timeout == Milliseconds::max()) {
        if (!co_await changed.wait()) co_return false;
        continue;
      }
      const auto left = std::chrono::duration_cast<Milliseconds>(end - std::chrono::steady_clock::now());
      if (left.count() <= 0) co_return false;
      if (!co_await changed.wait_for(left) && co_await is_cancelled()) co_return false;
    }
    co_return true;
  }

  Task<Result<>> request(wire::Op op, int argument) {
    auto self = shared_from_this();
    VIRGA_CO_TRY(auto guard, co_await requests.lock());
    const wire::Request r{wire::magic, op, argument, ++sequence};
    if (closed || ::send(socket.get(), &r, sizeof r, MSG_DONTWAIT | MSG_NOSIGNAL) != static_cast<ssize_t>(sizeof r))
      co_return fail(ErrorKind::unavailable, "the guest's shim has ended");
    auto is_answered = [this, mine = sequence] { return answered == mine || closed; };
    if (!co_await wait_until(is_answered, answer_time)) {
      if (co_await is_cancelled()) co_return fail(ErrorKind::cancelled, "cancelled");
      co_return fail(ErrorKind::timeout, "the guest's shim does not answer");
    }
    if (answered != sequence) co_return fail(ErrorKind::unavailable, "the guest's shim has ended");
    if (answer != 0) co_return fail_errno(answer, "the guest's shim refused");
    co_return Result<>{};
  }
};

class Client final : public Shim {
 public:
  explicit Client(std::shared_ptr<Connection> c) : c_(std::move(c)) {}
  ~Client() override {
    c_->abandoned = true;
    ::shutdown(c_->socket.get(), SHUT_RDWR);
    c_->tasks.cancel();
    c_->changed.notify();
  }

  const ShimStatus& status() const noexcept override {
    if (c_->drain()) c_->changed.notify();
    return c_->status;
  }

  Task<Result<ExitStatus>> wait_exit() override { return wait_exit_of(c_); }

  Task<Result<>> signal(int number) override {
    auto c = c_;
    if (c->status.exited) co_return Result<>{};
    co_return co_await c->request(wire::Op::signal, number);
  }

  Task<Result<>> resize(std::uint16_t columns, std::uint16_t rows) override {
    auto c = c_;
    co_return co_await c->request(wire::Op::resize, columns << 16 | rows);
  }

  Task<Result<>> clear_log() override {
    auto c = c_;
    co_return co_await c->request(wire::Op::clear, 0);
  }

  Task<Result<>> dismiss() override {
    auto c = c_;
    if (!c->gone) {
      auto done = co_await c->request(wire::Op::dismiss, 0);
      if (!done && done.error().kind() != ErrorKind::unavailable)
        co_return fail(std::move(done).error().wrap("dismiss the guest's shim"));
      auto is_gone = [&c] { return c->gone; };
      if (!co_await c->wait_until(is_gone, answer_time)) co_return fail(ErrorKind::timeout, "the guest's shim does not end");
    }
    remove_files(c->directory.get());
    co_return Result<>{};
  }

  Task<Result<>> destroy() override { return destroy_of(c_); }

  static Task<Result<>> destroy_of(std::shared_ptr<Connection> c) {
    co_await shield();
    auto is_gone = [&c] { return c->gone; };
    if (!c->closed) {  // without waiting for the answer: its end is the answer
      const wire::Request r{wire::magic, wire::Op::destroy, 0, ++c->sequence};
      (void)!::send(c->socket.get(), &r, sizeof r, MSG_DONTWAIT | MSG_NOSIGNAL);
    }
    if (!co_await c->wait_until(is_gone, answer_time)) {
      // It hangs or is stopped: the guest first, so that none is left alone.
      kill_guest(c->status);
      ::syscall(SYS_pidfd_send_signal, c->pidfd.get(), SIGKILL, nullptr, 0);
      if (!co_await c->wait_until(is_gone, answer_time)) co_return fail(ErrorKind::busy, "the guest's shim cannot be killed");
    } else if (!c->status.exited) {
      kill_guest(c->status);  // the shim was dead before we asked
    }
    remove_files(c->directory.get());
    co_return Result<>{};
  }

  static void kill_guest(const ShimStatus& status) {
    if (status.guest_pid <= 1 || status.exited) return;
    UniqueFd guest(static_cast<int>(::syscall(SYS_pidfd_open, status.guest_pid, 0)));
    auto start = process_start_time(status.guest_pid);  // after the pidfd: what it names cannot change any more
    if (guest && start && *start == status.guest_start_time) ::syscall(SYS_pidfd_send_signal, guest.get(), SIGKILL, nullptr, 0);
  }

 private:
  static Task<Result<ExitStatus>> wait_exit_of(std::shared_ptr<Connection> c) {
    auto over = [&c] { return c->status.exited || c->closed || c->abandoned; };
    const bool waited = co_await c->wait_until(over, Milliseconds::max());
    if (c->status.exited) co_return c->status.status;
    if (!waited || c->abandoned) co_return fail(ErrorKind::cancelled, "cancelled while waiting for a guest");
    co_return fail(ErrorKind::unavailable, "the guest's shim has ended");
  }
  std::shared_ptr<Connection> c_;
};

Result<ProcessSpec> compose(const ShimSpec& spec, int control, int lock) {
  if (spec.argv.empty()) return fail(ErrorKind::internal, "a shim without a program to run");
  if (spec.fds.size() > 60) return fail(ErrorKind::internal, "too many descriptors for a guest");
  ProcessSpec p;
  p.argv = {spec.program, "--run-dir", spec.run_dir, "--control-fd", "3"};
  auto add = [&p](const char* name, std::string value) {
    p.argv.emplace_back(name);
    p.argv.push_back(std::move(value));
  };
  if (!spec.console_log.empty()) {
    add("--console-log", spec.console_log);
    add("--console-log-limit", std::to_string(spec.console_log_limit));
  }
  static constexpr const char* modes[] = {"none", "socketpair", "receive", "pty"};
  add("--console", modes[static_cast<int>(spec.console)]);
  if (spec.console_fd >= 0) add("--console-fd", std::to_string(spec.console_fd));
  if (!spec.cwd.empty()) add("--cwd", spec.cwd);
  if (!spec.output_log.empty()) add("--output-log", spec.output_log);
  if (!spec.pid_file.empty()) add("--pid-file", spec.pid_file);
  for (const auto& path : spec.cgroup_procs) add("--cgroup", path);
  if (spec.drop_to) add("--drop-to", fmt::format("{}:{}", spec.drop_to->first, spec.drop_to->second));
  if (spec.die_with_parent) p.argv.emplace_back("--die-with-parent");
  p.fds = {{control, 3}, {lock, 4}};
  int number = first_shim_fd;
  for (const auto& [ours, theirs] : spec.fds) {
    if (theirs < 0 || theirs >= first_shim_fd) return fail(ErrorKind::internal, "descriptor number out of range");
    p.fds.emplace_back(ours, number);
    add("--fd", fmt::format("{}:{}", number++, theirs));
  }
  p.argv.emplace_back("--");
  p.argv.insert(p.argv.end(), spec.argv.begin(), spec.argv.end());
  p.env = spec.env;
  p.new_session = true;
  return p;
}

Result<std::shared_ptr<Connection>> launch(const ShimSpec& spec, const Executor& executor) {
  VIRGA_TRY(auto directory, open_directory(spec.run_dir));
  VIRGA_TRY(auto lock, take_lock(directory.get(), O_CREAT));
  int pair[2];
  if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) != 0) return fail_errno(errno, "socketpair");
  UniqueFd ours(pair[0]), theirs(pair[1]);
  VIRGA_TRY(auto process_spec, compose(spec, theirs.get(), lock.get()));
  auto connection = std::make_shared<Connection>(executor, std::move(directory), spec.argv[0]);
  VIRGA_TRY(auto process, Process::start(process_spec));
  connection->status.shim_pid = process.pid();
  connection->pidfd = process.release();
  connection->socket = std::move(ours);
  return connection;
}

Task<Result<std::unique_ptr<Shim>>> start_shim(ShimSpec spec, Milliseconds timeout) {
  auto executor = co_await current_executor();
  auto launched = launch(spec, executor);
  if (!launched) co_return fail(std::move(launched).error().wrap("start virga-shim"));
  auto c = std::move(*launched);
  c->tasks.spawn("shim reader", Connection::read_all(c));
  auto client = std::make_unique<Client>(c);
  auto decided = [&c] { return c->started || c->start_failure || c->closed; };
  const bool in_time = co_await c->wait_until(decided, timeout);
  if (in_time && c->started && !c->start_failure) co_return std::unique_ptr<Shim>(std::move(client));
  const bool cancelled = co_await is_cancelled();
  co_await shield();
  auto destroyed = co_await client->destroy();
  if (c->start_failure) co_return fail(std::move(*c->start_failure));
  if (cancelled) co_return fail(ErrorKind::cancelled, "cancelled while a guest was started");
  if (!destroyed) co_return fail(std::move(destroyed).error());
  if (in_time) co_return fail(ErrorKind::unavailable, "virga-shim ended unexpectedly");
  co_return fail(ErrorKind::timeout, fmt::format("'{}' did not start the guest within {} ms", spec.argv[0], timeout.count()));
}

Task<Result<std::unique_ptr<Shim>>> connect_shim(std::string run_dir) {
  VIRGA_CO_TRY(auto directory, open_directory(run_dir));
  UniqueFd socket;
  for (int round = 0; !socket; ++round) {
    if (auto lock = take_lock(directory.get(), 0); lock)
      co_return fail(ErrorKind::not_found, fmt::format("no shim lives in '{}'", run_dir));
    else if (lock.error().kind() != ErrorKind::busy)
      co_return fail(std::move(lock).error());
    auto connected = connect_to(directory.get(), wire::socket_name, SOCK_SEQPACKET);
    if (connected)
      socket = std::move(*connected);
    else if (round == 500)
      co_return fail(std::move(connected).error());
    // It lives but does not listen: it was started a moment ago, by a daemon that died.
    else if (!co_await sleep_for(Milliseconds(10)))
      co_return fail(ErrorKind::cancelled, "cancelled");
  }
  ucred peer{};
  socklen_t size = sizeof peer;
  if (::getsockopt(socket.get(), SOL_SOCKET, SO_PEERCRED, &peer, &size) != 0)
    co_return fail_errno(errno, "peer of the shim's socket");
  auto c = std::make_shared<Connection>(co_await current_executor(), std::move(directory), "the guest");
  c->socket = std::move(socket);
  c->pidfd = UniqueFd(static_cast<int>(::syscall(SYS_pidfd_open, peer.pid, 0)));
  if (!c->pidfd) co_return fail(ErrorKind::not_found, fmt::format("no shim lives in '{}'", run_dir));
  c->status.shim_pid = peer.pid;
  c->tasks.spawn("shim reader", Connection::read_all(c));
  auto client = std::make_unique<Client>(c);
  auto answered = co_await c->request(wire::Op::status, 0);
  if (!answered) {
    if (c->closed) co_return fail(ErrorKind::not_found, fmt::format("no shim lives in '{}'", run_dir));
    co_return fail(std::move(answered).error());
  }
  co_return std::unique_ptr<Shim>(std::move(client));
}

}  // namespace

Task<Result<std::unique_ptr<Shim>>> Shim::start(ShimSpec spec, Milliseconds timeout) {
  return start_shim(std::move(spec), timeout);
}

Task<Result<std::unique_ptr<Shim>>> Shim::connect(std::string run_dir) {
  return connect_shim(std::move(run_dir));
}

Task<Result<>> Shim::sweep(std::string run_dir) {
  auto alive = co_await connect_shim(run_dir);
  if (alive) co_return co_await (*alive)->destroy();
  auto directory = open_directory(run_dir);
  if (!directory) co_return directory.error().kind() == ErrorKind::not_found ? Result<>{} : fail(std::move(directory).error());
  auto lock = take_lock(directory->get(), 0);
  if (!lock && lock.error().kind() == ErrorKind::busy)
    co_return fail(ErrorKind::busy, fmt::format("the shim in '{}' does not answer", run_dir));
  UniqueFd file(::openat(directory->get(), wire::state_name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC));
  wire::State state{};
  if (file && ::read(file.get(), &state, sizeof state) == static_cast<ssize_t>(sizeof state) && state.magic == wire::magic) {
    state.status.boot_id[sizeof state.status.boot_id - 1] = '\0';
    if (boot_id() == state.status.boot_id) Client::kill_guest(decode(state.status));
  }
  remove_files(directory->get());
  co_return Result<>{};
}

Task<Result<UniqueFd>> open_console(std::string run_dir) {
  VIRGA_CO_TRY(auto directory, open_directory(run_dir));
  auto fd = connect_to(directory.get(), wire::console_name, SOCK_STREAM);
  if (!fd) co_return fail(ErrorKind::not_found, "the guest has no console, or does not run");
  co_return fd;
}

}  // namespace virga::io
