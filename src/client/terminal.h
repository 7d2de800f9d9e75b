// This process's own terminal and standard streams, read and written without stopping the event loop.
#pragma once

#include <termios.h>

#include <span>
#include <string_view>
#include <utility>

#include "base/error.h"
#include "base/task.h"

namespace virga::client {

/// Puts a terminal into raw mode, and back when it goes.
class RawTerminal {
 public:
  explicit RawTerminal(int fd);
  ~RawTerminal();
  RawTerminal(const RawTerminal&) = delete;
  RawTerminal& operator=(const RawTerminal&) = delete;

 private:
  int fd_;
  bool changed_ = false;
  struct ::termios before_{};
};

/// Columns and rows; {0, 0} when none of the standard streams is a terminal.
std::pair<unsigned, unsigned> terminal_size();

/// Reads what is there; 0 is the end. The descriptor's flags stay as they are: it may be shared with the shell. Errors: cancelled,
/// unavailable.
Task<Result<std::size_t>> read_stream(int fd, std::span<char> into);
/// Errors: cancelled, unavailable (nobody reads any more).
Task<Result<>> write_stream(int fd, std::string_view bytes);

}  // namespace virga::client
