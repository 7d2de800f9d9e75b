// A socket as a ByteStream.
#pragma once

#include <memory>

#include "base/byte_stream.h"
#include "io/fd.h"

namespace virga::io {

/// Takes over a connected stream socket. `keep` is destroyed with the stream: what the other side needs (its process).
std::unique_ptr<ByteStream> make_stream(const Executor& executor, UniqueFd socket, std::shared_ptr<void> keep = nullptr);

struct SocketPair {
  UniqueFd ours, theirs;
};
/// Errors: unavailable (no more descriptors).
Result<SocketPair> make_socket_pair();

}  // namespace virga::io
