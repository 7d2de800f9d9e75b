// The bytes behind a head, read from the connection on demand. Internal to wire/http: the server's request bodies and the client's
// answers.
#pragma once

#include <string>

#include "wire/http/parse.h"
#include "wire/http/transport.h"

namespace virga::http {

class BodyReader final : public Body {
 public:
  /// `inbox` holds bytes that were read already; what is left in it afterwards belongs to the next message. `window`: how long 64
  /// KiB may take; 0: for ever.
  BodyReader(Transport& transport, std::string& inbox, Milliseconds window)
      : transport_(transport), inbox_(inbox), window_(window) {}
  void begin(const Framing& framing, bool until_end = false);

  std::optional<std::uint64_t> length() const noexcept override { return length_; }
  Task<Result<std::size_t>> read_some(std::span<char> into) override;
  Task<Result<std::string>> read_all(std::size_t limit) override;
  bool too_large() const noexcept override { return too_large_; }

  bool done() const noexcept { return done_; }
  /// Nothing was asked of the body yet although the client waits for a word.
  bool awaits_continue() const noexcept { return expect_continue_; }

 private:
  Task<Result<std::size_t>> receive(char* into, std::size_t size);
  Task<Result<std::size_t>> read_chunked(std::span<char> into);
  Transport& transport_;
  std::string& inbox_;
  Milliseconds window_;
  std::optional<std::uint64_t> length_;
  std::uint64_t left_ = 0;
  std::uint64_t window_bytes_ = 0;
  std::chrono::steady_clock::duration window_left_{};
  ChunkDecoder chunks_;
  bool chunked_ = false;
  bool until_end_ = false;
  bool done_ = true;
  bool too_large_ = false;
  bool expect_continue_ = false;
};

}  // namespace virga::http
