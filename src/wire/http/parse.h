// Reading HTTP/1.1 heads and chunk framing: pure, strict, allocation-light. Whatever two programs could read in two ways is
// refused.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "wire/http/message.h"

namespace virga::http {

/// Where a head ends in bytes that arrive piece by piece, and the first place that can never become one.
class HeadScanner {
 public:
  enum class State { more, complete, malformed };
  void reset() noexcept { position_ = 0; }
  /// `bytes` is the same buffer, grown. When complete, length() includes the blank line.
  State scan(std::string_view bytes) noexcept;
  std::size_t length() const noexcept { return position_; }

 private:
  std::size_t position_ = 0;
};

/// A refusal, with the status that fits.
struct Refusal {
  int status = 400;
  std::string_view reason;
};

/// The framing that a head announces.
struct Framing {
  std::optional<std::uint64_t> content_length;
  bool chunked = false;
  bool keep_alive = true;
  bool expect_continue = false;
};

/// Fills path, query, method, headers and websocket of `request` with views into `head` and decoded copies. `head` ends with the
/// blank line.
std::optional<Refusal> parse_head(std::string_view head, std::size_t max_fields, Request& request, Framing& framing);

struct AnswerHead {
  int status = 0;
  Headers headers;
  Framing framing;
};
/// The head of an answer, for the client.
std::optional<Refusal> parse_answer_head(std::string_view head, std::size_t max_fields, AnswerHead& answer);

/// Decodes chunked framing in place of a stream: feed() says what the next bytes are.
class ChunkDecoder {
 public:
  enum class State { data, more, done, malformed };
  /// Looks at `bytes` and consumes framing. data: `available` bytes at the new front of `bytes` belong to the body (take them with
  /// take()); more: everything was consumed; done: the body has ended, what is left of `bytes` is not part of it.
  State feed(std::string_view& bytes, std::size_t& available) noexcept;
  void take(std::size_t n) noexcept { left_ -= n; }

 private:
  enum class Part { size, size_lf, data, data_cr, data_lf, end_cr, end_lf, done };
  Part part_ = Part::size;
  unsigned digits_ = 0;
  std::uint64_t left_ = 0;
};

/// Decodes %XX (and, in a query, '+'). Absent when malformed.
std::optional<std::string> percent_decode(std::string_view text, bool plus_is_space);
bool valid_utf8(std::string_view text) noexcept;

}  // namespace virga::http
