// admin shutdown.
#include <fmt/format.h>

#include <chrono>
#include <thread>

#include "apps/virga/app.h"
#include "apps/virga/server/admin.h"

namespace virga::cli {
namespace {

constexpr std::chrono::milliseconds look_interval{50};
constexpr std::chrono::seconds patience{60};

/// The daemon has answered before it has ended; its socket goes last.
Result<> wait_until_gone(App& app) {
  const auto end = std::chrono::steady_clock::now() + patience;
  for (;;) {
    Api probe(http::Endpoint{.unix_path = app.socket_path()});
    if (!probe.connect()) return {};
    if (std::chrono::steady_clock::now() >= end)
      return fail(ErrorKind::timeout, "the daemon has stopped all guests, but does not end");
    std::this_thread::sleep_for(look_interval);
  }
}

Result<> shut_down(App& app, const Args& args) {
  const auto timeout = args.integer("timeout");
  auto url = Url("/internal/shutdown").query("force", args.has("force") ? "true" : "");
  if (timeout >= 0) url = std::move(url).query("timeout", fmt::format("{}", timeout));
  VIRGA_TRY(auto* api, app.api());
  auto progress = app.progress("");
  progress.show("Waiting for operations, then stopping all instances");
  VIRGA_CHECK(api->send("PUT", url));
  progress.show("Waiting for the daemon to end");
  return wait_until_gone(app);
}

}  // namespace

Command admin_shutdown_command() {
  return {.use = "shutdown",
          .summary = "Stop all instances, then the daemon",
          .description =
              "Operations that run get the time of core.shutdown_timeout, in minutes, to come to their end; with --force they get "
              "none.\n"
              "Instances are stopped in the order of boot.stop.priority, highest first, and cleanly where they stop in time. They "
              "start\n"
              "again with the next start of the daemon. To end the daemon and leave the instances running, stop its service\n"
              "(systemctl stop virgad) instead.",
          .examples =
              "virga admin shutdown\nvirga admin shutdown --timeout 300\n    Give each instance five minutes to stop by itself\n\n"
              "virga admin shutdown --force\n    Do not ask the instances",
          .flags = {{"force", 'f', Flag::boolean, "Stop instances at once instead of asking them"},
                    {"timeout", 't', Flag::integer, "Seconds that an instance gets to stop cleanly (default 60)", "-1"}},
          .run = shut_down};
}

}  // namespace virga::cli
