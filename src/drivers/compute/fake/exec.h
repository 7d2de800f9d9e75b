// A command in a fake guest: a few built-in programs over one bounded pipe. Private to this folder.
#pragma once

#include <optional>
#include <string>

#include "drivers/compute/driver.h"

namespace virga::compute {

class FakeExecSession final : public ExecSession {
 public:
  FakeExecSession(Executor executor, ExecSpec spec);
  Task<Result<>> write(std::string bytes) override;
  Task<Result<>> close_input() override;
  Task<Result<std::string>> read(Stream stream) override;
  Task<Result<>> resize(std::uint16_t columns, std::uint16_t rows) override;
  Task<Result<>> signal(int number) override;
  Task<Result<int>> wait() override;

 private:
  void run();
  void end(int code);

  ExecSpec spec_;
  bool reads_input_ = false;
  std::optional<int> exit_code_;
  std::string output_;
  std::string error_;
  Notification changed_;
};

}  // namespace virga::compute
