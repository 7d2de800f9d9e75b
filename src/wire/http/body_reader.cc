#include "wire/http/body_reader.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

namespace virga::http {
namespace {
constexpr std::size_t window_size = 64u << 10;
constexpr std::size_t chunk_buffer = 16u << 10;
}  // namespace

void BodyReader::begin(const Framing& framing, bool until_end) {
  chunked_ = framing.chunked;
  until_end_ = until_end;
  length_ = chunked_ || until_end ? std::nullopt : std::optional<std::uint64_t>(framing.content_length.value_or(0));
  left_ = length_.value_or(0);
  done_ = !chunked_ && !until_end && left_ == 0;
  chunks_ = {};
  too_large_ = false;
  expect_continue_ = framing.expect_continue && !done_;
  window_bytes_ = 0;
  window_left_ = window_;
}

Task<Result<std::size_t>> BodyReader::receive(char* into, std::size_t size) {
  if (expect_continue_) {
    expect_continue_ = false;
    VIRGA_CO_CHECK(co_await transport_.write("HTTP/1.1 100 Continue\r\n\r\n", {}));
  }
  if (window_.count() == 0) co_return co_await transport_.read_some(into, size);
  // Only waiting counts, and only for 64 KiB at a time: a slow consumer is not the sender's fault, a drip of bytes is.
  const auto before = std::chrono::steady_clock::now();
  transport_.deadline = before + window_left_;
  auto n = co_await transport_.read_some(into, size);
  transport_.deadline = Transport::SteadyTime::max();
  window_left_ -= std::chrono::steady_clock::now() - before;
  if (n) {
    window_bytes_ += *n;
    if (window_bytes_ >= window_size) {
      window_bytes_ = 0;
      window_left_ = window_;
    }
  }
  co_return n;
}

Task<Result<std::size_t>> BodyReader::read_some(std::span<char> into) {
  if (done_ || into.empty()) co_return 0;
  if (chunked_) co_return co_await read_chunked(into);
  std::size_t n = 0;
  const auto want = until_end_ ? into.size() : static_cast<std::size_t>(std::min<std::uint64_t>(left_, into.size()));
  if (!inbox_.empty()) {
    n = std::min(want, inbox_.size());
    std::memcpy(into.data(), inbox_.data(), n);
    inbox_.erase(0, n);
  } else {
    VIRGA_CO_TRY(n, co_await receive(into.data(), want));
    if (n == 0) {
      done_ = until_end_;
      if (until_end_) co_return 0;
      co_return fail(ErrorKind::unavailable, "the connection ended in the middle of a body");
    }
  }
  if (!until_end_) {
    left_ -= n;
    done_ = left_ == 0;
  }
  co_return n;
}

Task<Result<std::size_t>> BodyReader::read_chunked(std::span<char> into) {
  while (true) {
    std::string_view bytes(inbox_);
    std::size_t available = 0;
    const auto state = chunks_.feed(bytes, available);
    const auto framing = inbox_.size() - bytes.size();
    if (state == ChunkDecoder::State::data) {
      const auto n = std::min(available, into.size());
      std::memcpy(into.data(), bytes.data(), n);
      chunks_.take(n);
      inbox_.erase(0, framing + n);
      co_return n;
    }
    inbox_.erase(0, framing);
    if (state == ChunkDecoder::State::done) {
      done_ = true;
      co_return 0;
    }
    if (state == ChunkDecoder::State::malformed) co_return fail(ErrorKind::invalid, "malformed chunk in the body");
    inbox_.resize(chunk_buffer);
    auto n = co_await receive(inbox_.data(), chunk_buffer);
    inbox_.resize(n ? *n : 0);
    if (!n) co_return fail(std::move(n).error());
    if (*n == 0) co_return fail(ErrorKind::unavailable, "the connection ended in the middle of a body");
  }
}

Task<Result<std::string>> BodyReader::read_all(std::size_t limit) {
  std::string out;
  if (length_ && *length_ > limit) {
    too_large_ = true;
    co_return fail(ErrorKind::invalid, fmt::format("the body is longer than {} bytes", limit));
  }
  if (length_ && inbox_.size() >= left_) {  // all here already: the usual small request
    out.assign(inbox_, 0, static_cast<std::size_t>(left_));
    inbox_.erase(0, static_cast<std::size_t>(left_));
    left_ = 0;
    done_ = true;
    co_return out;
  }
  while (!done_) {
    const auto have = out.size();
    const auto room = std::min<std::size_t>(limit + 1 - have, chunk_buffer);
    out.resize(have + room);
    auto n = co_await read_some({out.data() + have, room});
    if (!n) co_return fail(std::move(n).error());
    out.resize(have + *n);
    if (out.size() > limit) {
      too_large_ = true;
      co_return fail(ErrorKind::invalid, fmt::format("the body is longer than {} bytes", limit));
    }
  }
  co_return out;
}

}  // namespace virga::http
