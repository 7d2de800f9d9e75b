// virgad: options, one event loop, signals. What it consists of is in daemon.cc.
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/signal_set.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <cstdio>
#include <cstdlib>

#include "apps/virgad/daemon.h"
#include "apps/virgad/layout.h"
#include "apps/virgad/notify.h"
#include "apps/virgad/options.h"
#include "base/log.h"
#include "base/task.h"

namespace {

using namespace virga;

int complain(const Error& error) {
  std::fprintf(stderr, "virgad: %s\n", error.text().c_str());
  return 1;
}

/// One descriptor a connection, several a guest: the usual 1024 would end a few hundred guests.
void raise_descriptor_limit() {
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  limit.rlim_cur = limit.rlim_max;
  (void)::setrlimit(RLIMIT_NOFILE, &limit);
}

/// From start to end. A signal that comes while it starts waits for the start's end: half-made services cannot be stopped.
Task<> serve(virgad::Daemon& daemon, boost::asio::io_context& loop, int& code) {
  boost::asio::signal_set signals(loop, SIGTERM, SIGINT);
  auto started = co_await daemon.start();
  if (started) {
    virgad::notify_supervisor("READY=1");
    co_await signals.async_wait(boost::asio::as_tuple(boost::asio::use_awaitable));
    virgad::notify_supervisor("STOPPING=1");
  } else {
    code = complain(started.error());
  }
  co_await daemon.stop();
  loop.stop();
}

}  // namespace

int main(int argc, char** argv) {
  auto options = virgad::parse_options(argc, argv);
  if (!options) return complain(options.error());
  if (!*options) return 0;
  log::configure((*options)->debug ? log::Level::debug : (*options)->verbose ? log::Level::info : log::Level::warn);
  if (::geteuid() != 0 && !(*options)->fake_drivers)
    return complain(
        Error(ErrorKind::denied, "virgad needs root: it makes namespaces, mounts and bridges").with_hint("run it with sudo"));
  ::umask(0077);
  ::signal(SIGPIPE, SIG_IGN);
  ::signal(SIGHUP, SIG_IGN);
  raise_descriptor_limit();
  if (auto made = virgad::make_layout((*options)->state_dir); !made) return complain(made.error());
  auto lock = virgad::lock_state_dir((*options)->state_dir);
  if (!lock) return complain(lock.error());

  boost::asio::io_context loop(1);
  int code = 0;
  virgad::Daemon daemon(std::move(**options), loop.get_executor());
  TaskGroup main_tasks(loop.get_executor());
  main_tasks.spawn("serve", serve(daemon, loop, code));
  loop.run();
  return code;
}
