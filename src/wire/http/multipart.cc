#include "wire/http/multipart.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "wire/http/parse.h"

namespace virga::http {
namespace {

constexpr std::size_t read_step = 64u << 10;
constexpr std::size_t max_part_head = 8u << 10;

std::string_view trim(std::string_view s) {
  while (!s.empty() && (s.front() == ' ' || s.front() == '\t')) s.remove_prefix(1);
  while (!s.empty() && (s.back() == ' ' || s.back() == '\t')) s.remove_suffix(1);
  return s;
}

/// The value of `name=` among "a; b=c; d=\"e\"". Quoted values may hold ';' and escaped quotes.
std::optional<std::string> parameter(std::string_view text, std::string_view name) {
  while (true) {
    const auto semicolon = text.find(';');
    if (semicolon == std::string_view::npos) return std::nullopt;
    text = trim(text.substr(semicolon + 1));
    const auto equals = text.find('=');
    if (equals == std::string_view::npos) return std::nullopt;
    const auto key = trim(text.substr(0, equals));
    text.remove_prefix(equals + 1);
    std::string value;
    if (text.starts_with('"')) {
      std::size_t i = 1;
      for (; i < text.size() && text[i] != '"'; ++i) {
        if (text[i] == '\\' && i + 1 < text.size()) ++i;
        value.push_back(text[i]);
      }
      if (i >= text.size()) return std::nullopt;
      text.remove_prefix(i + 1);
    } else {
      value = trim(text.substr(0, text.find(';')));
    }
    if (equals_ignoring_case(key, name)) return value;
  }
}

}  // namespace

Result<std::string> multipart_boundary(std::string_view content_type) {
  if (!equals_ignoring_case(trim(content_type.substr(0, content_type.find(';'))), "multipart/form-data"))
    return invalid("Content-Type", "the body must be multipart/form-data");
  auto boundary = parameter(content_type, "boundary");
  if (!boundary || boundary->empty() || boundary->size() > 70 || boundary->find_first_of("\r\n") != std::string::npos)
    return invalid("Content-Type", "the multipart boundary is missing or malformed");
  return std::move(*boundary);
}

MultipartReader::MultipartReader(Body& body, const std::string& boundary) : body_(body), delimiter_("\r\n--" + boundary) {}

Task<Result<>> MultipartReader::fill() {
  const auto have = window_.size();
  window_.resize(have + read_step);
  auto n = co_await body_.read_some({window_.data() + have, read_step});
  window_.resize(have + (n ? *n : 0));
  if (!n) co_return fail(std::move(n).error());
  if (*n == 0) co_return fail(ErrorKind::invalid, "the multipart body ends too early");
  co_return Result<>{};
}

Task<Result<std::size_t>> MultipartReader::read_some(std::span<char> into) {
  while (in_part_) {
    const auto found = window_.find(delimiter_);
    if (found == 0) {
      in_part_ = false;
      break;
    }
    // Without a delimiter the last bytes may be the beginning of one.
    const auto safe = found != std::string::npos           ? found
                      : window_.size() < delimiter_.size() ? 0
                                                           : window_.size() - delimiter_.size() + 1;
    if (safe != 0) {
      const auto n = std::min(safe, into.size());
      std::memcpy(into.data(), window_.data(), n);
      window_.erase(0, n);
      co_return n;
    }
    VIRGA_CO_CHECK(co_await fill());
  }
  co_return 0;
}

Task<Result<std::optional<MultipartReader::Part>>> MultipartReader::next() {
  if (ended_) co_return std::optional<Part>();
  std::string scrap(read_step, '\0');
  bool first = window_ == "\r\n";
  while (true) {
    VIRGA_CO_TRY(const std::size_t n, co_await read_some(scrap));
    if (n == 0) break;
    if (first) co_return fail(ErrorKind::invalid, "the multipart body does not begin with its boundary");
  }
  while (window_.size() < delimiter_.size() + 2) VIRGA_CO_CHECK(co_await fill());
  const auto after = std::string_view(window_).substr(delimiter_.size(), 2);
  if (after == "--") {
    ended_ = true;
    co_return std::optional<Part>();
  }
  if (after != "\r\n") co_return fail(ErrorKind::invalid, "malformed boundary in the multipart body");
  window_.erase(0, delimiter_.size() + 2);
  VIRGA_CO_TRY(auto part, co_await read_part_head());
  in_part_ = true;
  co_return std::optional<Part>(std::move(part));
}

Task<Result<MultipartReader::Part>> MultipartReader::read_part_head() {
  std::size_t end = 0;
  while ((end = window_.find("\r\n\r\n")) == std::string::npos) {
    if (window_.size() > max_part_head) co_return fail(ErrorKind::invalid, "the head of a multipart part is too long");
    VIRGA_CO_CHECK(co_await fill());
  }
  Part part;
  bool named = false;
  std::string_view head(window_.data(), end + 2);
  while (!head.empty()) {
    const auto line = head.substr(0, head.find("\r\n"));
    head.remove_prefix(line.size() + 2);
    const auto colon = line.find(':');
    if (colon == std::string_view::npos || !equals_ignoring_case(line.substr(0, colon), "content-disposition")) continue;
    const auto value = line.substr(colon + 1);
    auto name = parameter(value, "name");
    if (named || !name || !valid_utf8(*name)) co_return fail(ErrorKind::invalid, "malformed part in the multipart body");
    named = true;
    part.name = std::move(*name);
    part.file_name = parameter(value, "filename").value_or("");
  }
  if (!named) co_return fail(ErrorKind::invalid, "a part of the multipart body has no name");
  window_.erase(0, end + 4);
  co_return part;
}

}  // namespace virga::http
