// Commands in a virtual machine, through its agent.
#include <fmt/format.h>

#include "drivers/compute/qemu/guest.h"

namespace virga::compute::qemu_driver {
namespace {

class AgentExec final : public ExecSession {
 public:
  explicit AgentExec(std::unique_ptr<agent::Command> command) : command_(std::move(command)) {}
  Task<Result<>> write(std::string bytes) override { return command_->write(std::move(bytes)); }
  Task<Result<>> close_input() override { return command_->close_input(); }
  Task<Result<std::string>> read(Stream stream) override {
    return command_->read(stream == Stream::error ? agent::Channel::error : agent::Channel::output);
  }
  Task<Result<>> resize(std::uint16_t columns, std::uint16_t rows) override { return command_->resize(columns, rows); }
  Task<Result<>> signal(int number) override { return command_->signal(number); }
  Task<Result<int>> wait() override { return command_->wait(); }

 private:
  std::unique_ptr<agent::Command> command_;
};

}  // namespace

Task<Result<std::unique_ptr<ExecSession>>> start_exec(GuestPtr guest, ExecSpec spec) {
  VIRGA_CO_CHECK(co_await wait_for_agent(guest));
  agent::ExecRequest request;
  request.argv = std::move(spec.command);
  for (const auto& [name, value] : spec.environment) request.environment.push_back(fmt::format("{}={}", name, value));
  request.cwd = std::move(spec.cwd);
  request.uid = spec.uid;
  request.gid = spec.gid;
  request.terminal = spec.interactive;
  request.columns = spec.columns;
  request.rows = spec.rows;
  if (!guest->agent) co_return fail(ErrorKind::unavailable, "the virtual machine does not run");
  VIRGA_CO_TRY(auto command, co_await guest->agent->exec(std::move(request), Milliseconds(30'000)));
  co_return std::unique_ptr<ExecSession>(std::make_unique<AgentExec>(std::move(command)));
}

}  // namespace virga::compute::qemu_driver
