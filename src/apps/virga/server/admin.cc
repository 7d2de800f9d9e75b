#include "apps/virga/server/admin.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <thread>

#include "apps/virga/app.h"
#include "apps/virga/commands.h"

namespace virga::cli {
namespace {

using Time = std::chrono::steady_clock::time_point;

constexpr std::chrono::milliseconds retry_interval{50};
constexpr std::int64_t very_long = 10 * 365 * 86'400;

Milliseconds time_until(Time end) {
  return std::max(Milliseconds(1), std::chrono::duration_cast<Milliseconds>(end - std::chrono::steady_clock::now()));
}

Task<> ask(client::Client& client, Result<>& out) {
  auto answer = co_await client.call({.target = "/1.0"});
  out = answer ? Result<>{} : fail(std::move(answer).error());
}

Task<> give_up_after(Milliseconds limit, TaskGroup& asking) {
  if (co_await sleep_for(limit)) asking.cancel();
}

/// A daemon that takes connections need not answer: it may hang.
Task<Result<>> ask_within(client::Client& client, Milliseconds limit) {
  Result<> out;
  TaskGroup asking(co_await current_executor()), patience(co_await current_executor());
  asking.spawn("question", ask(client, out));
  patience.spawn("patience", give_up_after(limit, asking));
  co_await asking.join();
  patience.cancel();
  co_await patience.join();
  if (!out && out.error().kind() == ErrorKind::cancelled) out = fail(ErrorKind::timeout, "it does not answer");
  co_return out;
}

/// Asks until the daemon answers. Each try connects anew.
Result<> waitready(App& app, const Args& args) {
  const auto timeout = args.integer("timeout");
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(timeout > 0 ? std::min(timeout, very_long) : very_long);
  for (;;) {
    Error last(ErrorKind::unavailable, "no answer");
    if (auto api = app.api(); !api) {
      last = std::move(api).error();
    } else if (auto answer = (*api)->await(ask_within((*api)->client(), time_until(end))); !answer) {
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
