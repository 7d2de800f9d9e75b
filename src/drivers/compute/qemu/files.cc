// The files of a virtual machine: its agent serves them, on the streams of what looks like a command.
#include "drivers/compute/qemu/guest.h"

namespace virga::compute::qemu_driver {
namespace {

class AgentStream final : public ByteStream {
 public:
  explicit AgentStream(std::unique_ptr<agent::Command> command) : command_(std::move(command)) {}
  Task<Result<std::string>> read() override { return command_->read(agent::Channel::output); }
  Task<Result<>> write(std::string bytes) override { return command_->write(std::move(bytes)); }
  void abort() noexcept override { command_->abort(); }

 private:
  std::unique_ptr<agent::Command> command_;
};

}  // namespace

Task<Result<std::unique_ptr<ByteStream>>> serve_files(GuestPtr guest) {
  if (guest->state == State::paused)
    co_return fail(Error(ErrorKind::unavailable, "the virtual machine is paused").with_hint("resume it first"));
  VIRGA_CO_CHECK(co_await wait_for_agent(guest));
  if (!guest->agent) co_return fail(ErrorKind::unavailable, "the virtual machine does not run");
  agent::ExecRequest request;
  request.argv = {"sftp-server"};
  request.files = true;
  VIRGA_CO_TRY(auto command, co_await guest->agent->exec(std::move(request), Milliseconds(30'000)));
  co_return std::unique_ptr<ByteStream>(std::make_unique<AgentStream>(std::move(command)));
}

}  // namespace virga::compute::qemu_driver
