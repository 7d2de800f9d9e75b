// A duplex stream of messages between an operation and its client: a WebSocket in the daemon, a queue in tests.
#pragma once

#include <string>

#include "base/error.h"
#include "base/task.h"

namespace virga::engine {

struct Message {
  enum class Kind { text, binary, close };
  Kind kind = Kind::binary;
  std::string data;
};

/// One reader and one writer at a time. An implementation owns all that it needs: the operation decides when it is destroyed.
class Channel {
 public:
  virtual ~Channel() = default;
  /// The next whole message; Kind::close when the peer has ended the stream. Errors: unavailable (the connection broke), cancelled.
  virtual Task<Result<Message>> read() = 0;
  /// Returns when the peer's side can take more. Errors: unavailable, cancelled.
  virtual Task<Result<>> write(Message message) = 0;
  /// Ends the stream politely, in bounded time; a stream that has ended is success.
  virtual Task<> close() = 0;
};

}  // namespace virga::engine
