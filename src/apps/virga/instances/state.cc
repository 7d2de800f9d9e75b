// start, stop, restart, pause, resume: one verb for one, several or all instances. All are asked first and then waited for, so that
// several take as long as the slowest.
#include <fmt/format.h>

#include "apps/virga/instances/instances.h"
#include "apps/virga/text.h"
#include "apps/virga/values.h"

namespace virga::cli {
namespace {

constexpr std::int64_t frozen = 110;
constexpr std::int64_t running = 103;
constexpr std::int64_t stopped = 102;

json::object state_body(const std::string& action, std::int64_t timeout, bool force, bool stateful) {
  return {{"action", action}, {"timeout", timeout}, {"force", force}, {"stateful", stateful}};
}

Result<std::string> request_state(App& app, Api& api, const std::string& name, const std::string& action,
                                  const json::object& body) {
  json::object request = body;
  if (action == "start") {
    // Starting what is paused goes on with it.
    VIRGA_TRY(auto instance, api.object(instance_url(app, name)));
    if (integer_of(instance, "status_code") == frozen) request["action"] = "unfreeze";
  }
  VIRGA_TRY(auto answer, api.start("PUT", Url(instance_url(app, name)).segment("state"), std::move(request)));
  return std::move(answer.operation);
}

bool concerns(const std::string& action, std::int64_t status) {
  if (action == "start") return status != running;
  if (action == "unfreeze") return status == frozen;
  if (action == "freeze") return status == running;
  return status != stopped;
}

Result<std::vector<std::string>> chosen(App& app, Api& api, const Args& args, const std::string& action) {
  std::vector<std::string> names;
  if (!args.has("all")) {
    for (const auto& word : args.words) {
      VIRGA_TRY(auto name, local_name(word));
      names.push_back(std::move(name));
    }
    return names;
  }
  if (args.size() > 0) return fail(ErrorKind::invalid, "Both --all and instance name given");
  VIRGA_TRY(auto instances, api.array(app.url("/1.0/instances").query("recursion", "1")));
  for (const auto& instance : objects_of(instances))
    if (concerns(action, integer_of(instance, "status_code"))) names.push_back(text_of(instance, "name"));
  return names;
}

Result<> change_states(App& app, const Args& args, const std::string& action, const std::string& verb, const std::string& doing) {
  VIRGA_TRY(auto* api, app.api());
  VIRGA_TRY(auto names, chosen(app, *api, args, action));
  const auto body = state_body(action, args.integer("timeout"), args.has("force"), args.has("stateful"));
  std::vector<std::pair<std::string, std::string>> operations;
  std::vector<std::pair<std::string, Error>> failures;
  for (const auto& name : names) {
    auto operation = request_state(app, *api, name, action, body);
    if (operation) {
      operations.emplace_back(name, std::move(*operation));
    } else {
      failures.emplace_back(name, std::move(operation).error());
    }
  }
  for (const auto& [name, operation] : operations) {
    auto progress = app.progress("");
    progress.show(fmt::format("{} {}", doing, name));
    if (operation.empty()) continue;
    auto done = api->wait(operation);
    if (!done) failures.emplace_back(name, std::move(done).error());
  }
  if (failures.empty()) return {};
  if (names.size() == 1) {
    if (action == "start") return fail(with_log_hint(std::move(failures[0].second), failures[0].first));
    return fail(std::move(failures[0].second));
  }
  for (const auto& [name, error] : failures) app.warn(fmt::format("{}: error: {}", name, error.chain()));
  app.warn("");
  return fail(ErrorKind::internal, fmt::format("Some instances failed to {}", verb));
}

Flag all_flag() {
  return {"all", 0, Flag::boolean, "Run against all instances"};
}
Flag force_flag() {
  return {"force", 'f', Flag::boolean, "Force the instance to stop"};
}
Flag timeout_flag() {
  return {"timeout", 0, Flag::integer, "Time to wait for the instance to shutdown cleanly", "-1"};
}

Command state_command(std::string_view use, std::string_view summary, std::string action, std::string verb, std::string doing,
                      std::vector<Flag> flags) {
  flags.push_back(all_flag());
  return {.use = use,
          .summary = summary,
          .flags = std::move(flags),
          .most = any_number,
          .run = [action = std::move(action), verb = std::move(verb), doing = std::move(doing)](App& app,
                                                                                                const Args& args) -> Result<> {
            if (args.size() == 0 && !args.has("all")) {
              VIRGA_TRY(auto path, find_command(app.root(), {verb}));
              app.print(help_text(path));
              return {};
            }
            return change_states(app, args, action, verb, doing);
          }};
}

}  // namespace

Error with_log_hint(Error error, const std::string& name) {
  if (error.kind() == ErrorKind::cancelled || error.kind() == ErrorKind::not_found) return error;
  return std::move(error).with_hint(fmt::format("Try `virga info --show-log {}` for more info", name));
}

Result<> change_state(App& app, const std::string& name, const std::string& action, std::int64_t timeout, bool force,
                      bool stateful) {
  VIRGA_TRY(auto* api, app.api());
  auto progress = app.progress("");
  progress.show(fmt::format("{} {}", action == "start" ? "Starting" : "Stopping", name));
  VIRGA_TRY(auto operation, request_state(app, *api, name, action, state_body(action, timeout, force, stateful)));
  if (!operation.empty()) VIRGA_CHECK(api->wait(operation));
  return {};
}

Command start_command() {
  return state_command("start [<remote>:]<instance> [[<remote>:]<instance>...]", "Start instances", "start", "start", "Starting",
                       {});
}
Command stop_command() {
  auto command = state_command("stop [<remote>:]<instance> [[<remote>:]<instance>...]", "Stop instances", "stop", "stop",
                               "Stopping", {force_flag(), timeout_flag()});
  command.examples =
      "virga stop c1\n    Ask the instance to shut down and wait\n\nvirga stop c1 --timeout 10\n    Wait at most 10 "
      "seconds\n\nvirga stop -f c1\n    Stop it at once";
  return command;
}
Command restart_command() {
  return state_command("restart [<remote>:]<instance> [[<remote>:]<instance>...]", "Restart instances", "restart", "restart",
                       "Restarting", {force_flag(), timeout_flag()});
}
Command pause_command() {
  auto command =
      state_command("pause [<remote>:]<instance> [[<remote>:]<instance>...]", "Pause instances", "freeze", "pause", "Pausing", {});
  command.aliases = {"freeze"};
  return command;
}
Command resume_command() {
  auto command = state_command("resume [<remote>:]<instance> [[<remote>:]<instance>...]", "Resume instances", "unfreeze", "resume",
                               "Resuming", {});
  command.aliases = {"unfreeze"};
  return command;
}

}  // namespace virga::cli
