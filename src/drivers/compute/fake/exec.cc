#include "drivers/compute/fake/exec.h"

#include "base/units.h"

namespace virga::compute {
namespace {
constexpr std::size_t pipe_size = 64u << 10;
}

FakeExecSession::FakeExecSession(Executor executor, ExecSpec spec) : spec_(std::move(spec)), changed_(std::move(executor)) {
  run();
}

void FakeExecSession::run() {
  const auto& argv = spec_.command;
  const std::string program = argv.empty() ? "" : argv.front();
  if (program == "true") {
    end(0);
  } else if (program == "false") {
    end(1);
  } else if (program == "exit" && argv.size() == 2) {
    end(static_cast<int>(parse_integer(argv[1], 0, 255).value_or(255)));
  } else if (program == "echo") {
    for (std::size_t i = 1; i < argv.size(); ++i) output_ += (i > 1 ? " " : "") + argv[i];
    output_ += "\n";
    end(0);
  } else if (program == "env") {
    for (const auto& [name, value] : spec_.environment) output_ += name + "=" + value + "\n";
    end(0);
  } else if (program == "pwd") {
    output_ = (spec_.cwd.empty() ? "/root" : spec_.cwd) + "\n";
    end(0);
  } else if (program == "cat") {
    reads_input_ = true;
  } else if (program != "sleep") {
    (spec_.interactive ? output_ : error_) = "fake: " + program + ": not found\n";
    end(127);
  }
}

void FakeExecSession::end(int code) {
  exit_code_ = code;
  reads_input_ = false;
  changed_.notify();
}

Task<Result<>> FakeExecSession::write(std::string bytes) {
  while (reads_input_ && output_.size() >= pipe_size) {
    if (!co_await changed_.wait() && co_await is_cancelled()) co_return fail(ErrorKind::cancelled, "cancelled");
  }
  if (!reads_input_) co_return fail(ErrorKind::unavailable, "the command has closed its input");
  output_ += bytes;
  changed_.notify();
  co_return Result<>();
}

Task<Result<>> FakeExecSession::close_input() {
  if (reads_input_) end(0);
  co_return Result<>();
}

Task<Result<std::string>> FakeExecSession::read(Stream stream) {
  std::string& source = stream == Stream::output ? output_ : error_;
  while (source.empty() && !exit_code_) {
    if (!co_await changed_.wait() && co_await is_cancelled()) co_return fail(ErrorKind::cancelled, "cancelled");
  }
  std::string out = source.substr(0, pipe_size);
  source.erase(0, out.size());
  changed_.notify();
  co_return out;
}

Task<Result<>> FakeExecSession::resize(std::uint16_t columns, std::uint16_t rows) {
  spec_.columns = columns;
  spec_.rows = rows;
  co_return Result<>();
}

Task<Result<>> FakeExecSession::signal(int number) {
  if (!exit_code_) end(128 + number);
  co_return Result<>();
}

Task<Result<int>> FakeExecSession::wait() {
  while (!exit_code_) {
    if (!co_await changed_.wait() && co_await is_cancelled()) co_return fail(ErrorKind::cancelled, "cancelled");
  }
  co_return *exit_code_;
}

}  // namespace virga::compute
