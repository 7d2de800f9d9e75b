// Heads and chunks of HTTP: any bytes give a request or a refusal. What is accepted holds no dot segment, slash or control
// character in its path, has one framing, and the scanner finds the same end whether the bytes come at once or one by one.
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "wire/http/multipart.h"
#include "wire/http/parse.h"

namespace {

using namespace virga::http;

void check_head(std::string_view bytes) {
  HeadScanner at_once, one_by_one;
  const auto state = at_once.scan(bytes);
  auto slow = HeadScanner::State::more;
  for (std::size_t n = 1; n <= bytes.size() && slow == HeadScanner::State::more; ++n) slow = one_by_one.scan(bytes.substr(0, n));
  if (slow != state) std::abort();
  if (state != HeadScanner::State::complete) return;
  if (at_once.length() != one_by_one.length()) std::abort();
  Request request;
  Framing framing;
  if (parse_head(bytes.substr(0, at_once.length()), 128, request, framing)) return;
  if (framing.chunked && framing.content_length) std::abort();
  for (const auto& segment : request.path) {
    if (segment.empty() || segment == "." || segment == ".." || segment.find_first_of("/\\") != std::string::npos) std::abort();
    for (char c : segment)
      if (static_cast<unsigned char>(c) < 0x20) std::abort();
  }
  AnswerHead answer;
  (void)parse_answer_head(bytes.substr(0, at_once.length()), 128, answer);
}

/// The body that comes out does not depend on the pieces that went in.
std::string decode(std::string_view bytes, std::size_t step, bool& ended) {
  ChunkDecoder decoder;
  std::string out, window;
  while (true) {
    std::string_view view(window);
    std::size_t available = 0;
    const auto state = decoder.feed(view, available);
    if (state == ChunkDecoder::State::data) {
      out.append(view.substr(0, available));
      decoder.take(available);
      view.remove_prefix(available);
    }
    window = std::string(view);
    ended = state == ChunkDecoder::State::done;
    if (ended || state == ChunkDecoder::State::malformed) return out;
    if (state == ChunkDecoder::State::more) {
      if (bytes.empty()) return out;
      window.append(bytes.substr(0, step));
      bytes.remove_prefix(std::min(step, bytes.size()));
    }
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  if (size > 4096) return 0;
  check_head(bytes);
  bool whole = false, pieces = false;
  const auto a = decode(bytes, 4096, whole), b = decode(bytes, 1, pieces);
  if (a != b || whole != pieces) std::abort();
  (void)multipart_boundary(bytes).has_value();
  (void)valid_utf8(bytes);
  return 0;
}
