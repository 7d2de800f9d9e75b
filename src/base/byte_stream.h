// A connected stream of bytes, whatever carries it: a socket pair to a worker, a channel of a guest's agent, a client's connection.
#pragma once

#include <string>

#include "base/error.h"
#include "base/task.h"

namespace virga {

/// One reader and one writer at a time, on the event loop. Destroying it ends the stream.
class ByteStream {
 public:
  virtual ~ByteStream() = default;
  /// What is there, at least one byte; an empty string is the end. Errors: unavailable (it broke), cancelled.
  virtual Task<Result<std::string>> read() = 0;
  /// Returns when the other side can take more. Errors: unavailable, cancelled.
  virtual Task<Result<>> write(std::string bytes) = 0;
  /// Ends both directions now; pending calls return.
  virtual void abort() noexcept = 0;
};

}  // namespace virga
