#include "apps/virga/server/admin.h"

#include <fmt/format.h>

#include <chrono>
#include <thread>

#include "apps/virga/app.h"
#include "apps/virga/commands.h"

namespace virga::cli {
namespace {

constexpr std::chrono::milliseconds retry_interval{50};

/// Asks until the daemon answers. Each try connects anew.
Result<> waitready(App& app, const Args& args) {
  const auto timeout = args.integer("timeout");
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(timeout);
  for (;;) {
    Error last(ErrorKind::unavailable, "no answer");
    if (auto api = app.api(); !api) {
      last = std::move(api).error();
    } else if (auto answer = (*api)->object(Url("/1.0")); !answer) {
      last = std::move(answer).error();
    } else {
      return {};
    }
    if (last.kind() == ErrorKind::denied) return fail(std::move(last));
    if (timeout > 0 && std::chrono::steady_clock::now() >= end)
      return fail(std::move(last).wrap(fmt::format("Daemon still not running after {}s timeout", timeout)));
    std::this_thread::sleep_for(retry_interval);
  }
}

}  // namespace

Command admin_command() {
  Command group{.use = "admin", .summary = "Manage virga daemon"};
  group.children = {admin_init_command(),
                    admin_doctor_command(),
                    admin_shutdown_command(),
                    {.use = "waitready",
                     .summary = "Wait for the daemon to be ready to process requests",
                     .description = "This command will block until the daemon is reachable over its REST API and\nis done with "
                                    "early start tasks like finishing what a crash interrupted.",
                     .flags = {{"timeout", 't', Flag::integer, "Number of seconds to wait before giving up"}},
                     .run = waitready}};
  return group;
}

}  // namespace virga::cli
