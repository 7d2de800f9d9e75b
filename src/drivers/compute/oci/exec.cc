// Commands in a running container: `runtime exec --detach` under a virga-shim that dies with us. The streams are the command's own
// pipes, or the master of its pseudo-terminal: who does not read stops the command, and nothing is buffered here.
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <termios.h>

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <utility>

#include "base/log.h"
#include "base/random.h"
#include "drivers/compute/oci/core.h"
#include "drivers/compute/oci/rootfs.h"
#include "io/file.h"

namespace asio = boost::asio;

namespace virga::compute::oci_driver {
namespace {

constexpr auto await_ec = asio::as_tuple(asio::use_awaitable);
constexpr std::size_t chunk = 64u << 10;
/// How long a stream may stay silent after the command's end before it counts as ended: something in the background holds it open.
constexpr Milliseconds grace{100};

using Descriptor = asio::posix::stream_descriptor;

struct Pipe {
  io::UniqueFd read, write;
};
Result<Pipe> make_pipe() {
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) return fail_errno(errno, "pipe");
  return Pipe{io::UniqueFd(ends[0]), io::UniqueFd(ends[1])};
}

/// What outlives the session object: a read that waits while the session is destroyed still needs its descriptors.
struct Session {
  Session(CorePtr c, std::string d)
      : core(std::move(c)),
        dir(std::move(d)),
        input(core->options.executor),
        output(core->options.executor),
        error(core->options.executor) {}
  CorePtr core;
  std::string dir;
  std::unique_ptr<io::Shim> shim;
  bool terminal = false;
  bool exited = false;
  bool dropped = false;
  Descriptor input, output, error;  // with a terminal: input and output are its master, error is closed
  int failed_code = 0;              ///< set: the command could not be executed, and this is what a shell would return
  std::string failed_words;         ///< and what it would say, until somebody reads it
};
using SessionPtr = std::shared_ptr<Session>;

void wake(Session& s) {
  boost::system::error_code ignored;
  if (s.output.is_open()) s.output.cancel(ignored);
  if (s.error.is_open()) s.error.cancel(ignored);
}

Task<> watch(SessionPtr s) {
  (void)co_await s->shim->wait_exit();
  s->exited = true;
  wake(*s);  // readers look again, now with the grace time
}

/// Waits until the stream has something; false when it is over.
Task<bool> wait_for_data(SessionPtr s, Descriptor& from) {
  if (!s->exited) {
    (void)co_await from.async_wait(Descriptor::wait_read, await_ec);
    co_return !s->dropped && !co_await is_cancelled();
  }
  asio::steady_timer timer(s->core->options.executor, grace);
  timer.async_wait([s, &from](const boost::system::error_code& ec) {
    boost::system::error_code ignored;
    if (!ec && from.is_open()) from.cancel(ignored);
  });
  auto [ec] = co_await from.async_wait(Descriptor::wait_read, await_ec);
  timer.cancel();
  co_return !ec;
}

Task<Result<std::string>> read_stream(SessionPtr s, Descriptor& from) {
  std::string buffer;
  while (from.is_open()) {
    buffer.resize(chunk);
    const auto n = ::read(from.native_handle(), buffer.data(), buffer.size());
    if (n > 0) {
      buffer.resize(static_cast<std::size_t>(n));
      co_return buffer;
    }
    // EIO is how a terminal without users ends.
    if (n == 0 || (errno != EAGAIN && errno != EINTR)) break;
    if (!co_await wait_for_data(s, from)) {
      if (co_await is_cancelled()) co_return fail(ErrorKind::cancelled, "cancelled");
      break;
    }
  }
  co_return std::string();
}

Task<Result<>> write_input(SessionPtr s, std::string bytes) {
  std::size_t done = 0;
  while (done < bytes.size()) {
    if (!s->input.is_open() || s->exited) co_return fail(ErrorKind::unavailable, "the command takes no more input");
    auto [ec, n] = co_await s->input.async_write_some(asio::buffer(bytes.data() + done, bytes.size() - done), await_ec);
    done += n;
    if (!ec) continue;
    if (co_await is_cancelled()) co_return fail(ErrorKind::cancelled, "cancelled");
    co_return fail(ErrorKind::unavailable, "the command takes no more input");
  }
  co_return Result<>{};
}

Task<> clean_up(SessionPtr s) {
  co_await shield();
  if (s->shim) {
    if (auto gone = co_await s->shim->destroy(); !gone) log::warn("an exec session's shim stays: {}", gone.error().text());
    s->shim.reset();
  }
  if (auto removed = co_await s->core->options.pool.run([dir = s->dir] { return io::remove_tree(dir); }); !removed)
    log::warn("an exec session's directory stays: {}", removed.error().text());
}

class OciExec final : public ExecSession {
 public:
  explicit OciExec(SessionPtr s) : s_(std::move(s)) {}
  ~OciExec() override {
    s_->dropped = true;
    wake(*s_);
    boost::system::error_code ignored;
    if (s_->input.is_open()) s_->input.close(ignored);
    // Where the driver is shutting down, dropping the connection is what ends the shim.
    if (!s_->core->closing) s_->core->tasks.spawn("end of an exec session", clean_up(s_));
  }

  Task<Result<>> write(std::string bytes) override { return write_input(s_, std::move(bytes)); }

  Task<Result<>> close_input() override {
    auto s = s_;
    if (s->terminal) {
      // A terminal has no end of input but the key for it.
      co_return co_await write_input(s, "\x04");
    }
    boost::system::error_code ignored;
    if (s->input.is_open()) s->input.close(ignored);
    co_return Result<>{};
  }

  Task<Result<std::string>> read(Stream stream) override {
    auto s = s_;
    if (!s->failed_words.empty() && stream == (s->terminal ? Stream::output : Stream::error))
      co_return std::exchange(s->failed_words, std::string());
    co_return co_await read_stream(s, stream == Stream::output ? s->output : s->error);
  }

  Task<Result<>> resize(std::uint16_t columns, std::uint16_t rows) override {
    if (!s_->terminal) co_return fail(ErrorKind::invalid, "the command has no terminal");
    winsize size{};
    size.ws_col = columns;
    size.ws_row = rows;
    if (::ioctl(s_->output.native_handle(), TIOCSWINSZ, &size) != 0) co_return fail_errno(errno, "resize the terminal");
    co_return Result<>{};
  }

  Task<Result<>> signal(int number) override {
    auto s = s_;
    if (!s->shim) co_return Result<>{};
    co_return co_await s->shim->signal(number);
  }

  Task<Result<int>> wait() override {
    auto s = s_;
    if (!s->shim) co_return s->failed_code;
    auto end = co_await s->shim->wait_exit();
    if (!end) co_return fail(std::move(end).error());
    co_return end->code;
  }

 private:
  SessionPtr s_;
};

/// Where the runtime sends the terminal's master to.
Result<io::UniqueFd> listen_for_terminal(const std::string& dir) {
  VIRGA_TRY(auto directory, io::open_path(dir, O_PATH | O_DIRECTORY));
  io::UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  const auto path = fmt::format("/proc/self/fd/{}/{}", directory.get(), terminal_name);
  std::copy(path.begin(), path.end(), address.sun_path);
  if (!fd || ::bind(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) != 0 || ::listen(fd.get(), 1) != 0)
    return fail_errno(errno, "make a socket for the terminal");
  return fd;
}

/// The runtime has connected and sent the master before it ended.
Result<io::UniqueFd> take_terminal(int listener) {
  io::UniqueFd connection(::accept4(listener, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
  char text[256];
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))];
  iovec io{text, sizeof text};
  msghdr message{};
  message.msg_iov = &io;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof control;
  if (!connection || ::recvmsg(connection.get(), &message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT) < 0)
    return fail(ErrorKind::unavailable, "the runtime sent no terminal");
  const auto* header = CMSG_FIRSTHDR(&message);
  if (header == nullptr || header->cmsg_type != SCM_RIGHTS || header->cmsg_len != CMSG_LEN(sizeof(int)))
    return fail(ErrorKind::unavailable, "the runtime sent no terminal");
  int master = -1;
  std::memcpy(&master, CMSG_DATA(header), sizeof master);
  return io::UniqueFd(master);
}

Result<> assign(Descriptor& to, io::UniqueFd fd) {
  ::fcntl(fd.get(), F_SETFL, ::fcntl(fd.get(), F_GETFL) | O_NONBLOCK);
  boost::system::error_code ec;
  to.assign(fd.get(), ec);
  if (ec) return fail(ErrorKind::internal, "watch a stream: " + ec.message());
  to.native_non_blocking(true, ec);
  fd.release();
  return {};
}

Result<> prepare_directory(const std::string& run_dir, const std::string& dir, const std::string& rootfs, const ExecSpec& spec,
                           const HostFacts& facts) {
  const auto user = find_user(rootfs, spec.uid);
  VIRGA_TRY(auto process, make_process(spec, user.home, user.name, facts));
  VIRGA_TRY(auto document, virga::oci::to_json(process));
  VIRGA_CHECK(io::make_directory(run_dir + "/exec", 0700));
  VIRGA_CHECK(io::make_directory(dir, 0700));
  return io::write_file(dir + "/" + process_name, json::serialize(document));
}

/// Starts the runtime and fills the session's streams.
Task<Result<>> launch(SessionPtr s, std::string id) {
  io::ShimSpec shim;
  shim.program = s->core->options.shim_program;
  shim.run_dir = s->dir;
  shim.cwd = s->dir;
  shim.argv = exec_command(s->core->runtime, id, s->terminal);
  shim.env = {"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"};
  shim.pid_file = s->dir + "/" + pid_name;
  shim.die_with_parent = true;
  io::UniqueFd listener;
  Pipe in, out, err;
  if (s->terminal) {
    VIRGA_CO_TRY(listener, listen_for_terminal(s->dir));
  } else {
    VIRGA_CO_TRY(in, make_pipe());
    VIRGA_CO_TRY(out, make_pipe());
    VIRGA_CO_TRY(err, make_pipe());
    shim.fds = {{in.read.get(), 0}, {out.write.get(), 1}, {err.write.get(), 2}};
  }
  VIRGA_CO_TRY(s->shim, co_await io::Shim::start(std::move(shim), Milliseconds(30'000)));
  if (!s->terminal) {
    VIRGA_CO_CHECK(assign(s->input, std::move(in.write)));
    VIRGA_CO_CHECK(assign(s->output, std::move(out.read)));
    VIRGA_CO_CHECK(assign(s->error, std::move(err.read)));
    co_return Result<>{};
  }
  VIRGA_CO_TRY(auto master, take_terminal(listener.get()));
  io::UniqueFd again(::fcntl(master.get(), F_DUPFD_CLOEXEC, 3));
  if (!again) co_return fail_errno(errno, "dup");
  VIRGA_CO_CHECK(assign(s->input, std::move(again)));
  co_return assign(s->output, std::move(master));
}

}  // namespace

Task<Result<std::unique_ptr<ExecSession>>> start_exec(CorePtr core, GuestPtr guest, ExecSpec spec) {
  auto s = std::make_shared<Session>(core, guest->run_dir + "/exec/" + random_hex(8));
  s->terminal = spec.interactive;
  auto prepared = co_await core->options.pool.run(
      [&] { return prepare_directory(guest->run_dir, s->dir, guest->remembered.rootfs, spec, core->facts); });
  if (!prepared) co_return fail(std::move(prepared).error());
  auto launched = co_await launch(s, guest->id);
  if (launched) {
    winsize size{};
    size.ws_col = spec.columns;
    size.ws_row = spec.rows;
    if (s->terminal) ::ioctl(s->output.native_handle(), TIOCSWINSZ, &size);
    core->tasks.spawn("exec session", watch(s));
    co_return std::make_unique<OciExec>(s);
  }
  const auto said = last_error(io::read_file(s->dir + "/" + log_name).value_or(""));
  s->failed_code = exit_code_of_failed_exec(said);
  s->exited = true;
  if (s->failed_code != 0) {
    // What a shell says of a command that cannot be run is a result, not an error of ours.
    s->shim.reset();
    s->failed_words = fmt::format("'{}': {}{}\n", spec.command.front().substr(0, 200),
                                  s->failed_code == 127 ? "command not found" : "cannot be executed", s->terminal ? "\r" : "");
    co_return std::make_unique<OciExec>(s);
  }
  co_await clean_up(s);
  if (launched.error().kind() != ErrorKind::unavailable || said.empty())
    co_return fail(std::move(launched).error().wrap("run the command"));
  co_return fail(ErrorKind::unavailable, fmt::format("run the command: {}", said));
}

Task<> sweep_exec_sessions(std::string run_dir) {
  const auto top = run_dir + "/exec";
  const auto names = io::list_directory(top).value_or(std::vector<std::string>());
  for (const auto& name : names) {
    const auto session = top + "/" + name;
    if (auto gone = co_await io::Shim::sweep(session); !gone)
      log::warn("an exec session of an earlier daemon stays: {}", gone.error().text());
    else
      (void)io::remove_tree(session);
  }
}

}  // namespace virga::compute::oci_driver
