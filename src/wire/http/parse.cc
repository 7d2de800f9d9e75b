#include "wire/http/parse.h"

#include <algorithm>
#include <array>
#include <limits>

namespace virga::http {
namespace {

constexpr bool is_alpha(char c) noexcept {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}
constexpr bool is_digit(char c) noexcept {
  return c >= '0' && c <= '9';
}
constexpr char lower(char c) noexcept {
  return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c;
}

constexpr std::array<bool, 256> make_token_table() {
  std::array<bool, 256> t{};
  for (int c = 0; c < 256; ++c) t[static_cast<std::size_t>(c)] = is_alpha(static_cast<char>(c)) || is_digit(static_cast<char>(c));
  for (char c : std::string_view("!#$%&'*+-.^_`|~")) t[static_cast<unsigned char>(c)] = true;
  return t;
}
constexpr auto token_table = make_token_table();
bool is_token(std::string_view s) noexcept {
  return !s.empty() && std::all_of(s.begin(), s.end(), [](char c) { return token_table[static_cast<unsigned char>(c)]; });
}

int hex_value(char c) noexcept {
  if (is_digit(c)) return c - '0';
  const char l = lower(c);
  return l >= 'a' && l <= 'f' ? l - 'a' + 10 : -1;
}

bool has_control(std::string_view s) noexcept {
  return std::any_of(s.begin(), s.end(), [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7f; });
}

std::optional<Method> parse_method(std::string_view s) noexcept {
  if (s == "GET") return Method::get;
  if (s == "POST") return Method::post;
  if (s == "PUT") return Method::put;
  if (s == "PATCH") return Method::patch;
  if (s == "DELETE") return Method::del;
  if (s == "HEAD") return Method::head;
  if (s == "OPTIONS") return Method::options;
  return std::nullopt;
}

/// Cuts one CRLF line off the front. The scanner has seen to it that every line ends so.
std::string_view next_line(std::string_view& text) noexcept {
  const auto end = text.find('\n');
  auto line = text.substr(0, end == std::string_view::npos ? text.size() : end);
  text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
  if (!line.empty() && line.back() == '\r') line.remove_suffix(1);
  return line;
}

std::string_view trim(std::string_view s) noexcept {
  while (!s.empty() && (s.front() == ' ' || s.front() == '\t')) s.remove_prefix(1);
  while (!s.empty() && (s.back() == ' ' || s.back() == '\t')) s.remove_suffix(1);
  return s;
}

std::optional<Refusal> parse_fields(std::string_view text, std::size_t max_fields, Headers& headers) {
  while (true) {
    const auto line = next_line(text);
    if (line.empty()) return std::nullopt;
    if (line.front() == ' ' || line.front() == '\t') return Refusal{400, "folded header line"};
    const auto colon = line.find(':');
    if (colon == std::string_view::npos || !is_token(line.substr(0, colon))) return Refusal{400, "malformed header line"};
    const auto value = trim(line.substr(colon + 1));
    for (char c : value)
      if ((static_cast<unsigned char>(c) < 0x20 && c != '\t') || c == 0x7f) return Refusal{400, "control character in a header"};
    if (headers.size() == max_fields) return Refusal{431, "too many header fields"};
    headers.add(line.substr(0, colon), value);
  }
}

/// Whether a comma-separated list names a token.
bool lists(std::string_view list, std::string_view token) noexcept {
  while (!list.empty()) {
    const auto comma = list.find(',');
    if (equals_ignoring_case(trim(list.substr(0, comma)), token)) return true;
    list.remove_prefix(comma == std::string_view::npos ? list.size() : comma + 1);
  }
  return false;
}

std::optional<Refusal> read_framing(const Headers& headers, Framing& framing) {
  bool has_length = false;
  for (const auto& [name, value] : headers) {
    // Ordered by length first: most names of a request are none of these.
    if (name.size() == 14 && equals_ignoring_case(name, "content-length")) {
      if (has_length) return Refusal{400, "several Content-Length headers"};
      has_length = true;
      if (value.empty() || value.size() > 18 || !std::all_of(value.begin(), value.end(), is_digit))
        return Refusal{400, "malformed Content-Length"};
      std::uint64_t n = 0;
      for (char c : value) n = n * 10 + static_cast<std::uint64_t>(c - '0');
      framing.content_length = n;
    } else if (name.size() == 17 && equals_ignoring_case(name, "transfer-encoding")) {
      if (framing.chunked) return Refusal{400, "several Transfer-Encoding headers"};
      if (!equals_ignoring_case(value, "chunked")) return Refusal{400, "unknown Transfer-Encoding"};
      framing.chunked = true;
    } else if (name.size() == 10 && equals_ignoring_case(name, "connection")) {
      if (lists(value, "close")) framing.keep_alive = false;
    } else if (name.size() == 6 && equals_ignoring_case(name, "expect")) {
      if (!equals_ignoring_case(value, "100-continue")) return Refusal{417, "unknown Expect"};
      framing.expect_continue = true;
    }
  }
  if (has_length && framing.chunked) return Refusal{400, "both Content-Length and Transfer-Encoding"};
  return std::nullopt;
}

/// A segment may be a name with slashes in it ("debian%2F12"); none of its parts may be one that readers of paths act on.
std::optional<Refusal> check_segment(std::string_view segment) {
  for (std::size_t at = 0; at <= segment.size();) {
    const auto end = std::min(segment.find('/', at), segment.size());
    const auto part = segment.substr(at, end - at);
    if (part.empty()) return Refusal{400, "empty path segment"};
    if (part == "." || part == ".." || part.starts_with("..;") || part.starts_with(".;"))
      return Refusal{400, "dot segment in the path"};
    at = end + 1;
  }
  return std::nullopt;
}

std::optional<Refusal> parse_path(std::string_view path, Request& request) {
  if (path.empty() || path.front() != '/') return Refusal{400, "the request target must be a path"};
  path.remove_prefix(1);
  while (!path.empty()) {
    const auto slash = path.find('/');
    const auto raw = path.substr(0, slash);
    if (raw.empty()) return Refusal{400, "empty path segment"};
    auto decoded = percent_decode(raw, false);
    if (!decoded) return Refusal{400, "malformed escape in the path"};
    if (has_control(*decoded) || decoded->find('\\') != std::string::npos || !valid_utf8(*decoded))
      return Refusal{400, "forbidden character in the path"};
    if (auto refusal = check_segment(*decoded)) return refusal;
    if (decoded->find('/') != std::string::npos) request.slash_in_segment = true;
    request.path.push_back(std::move(*decoded));
    if (slash == std::string_view::npos) return std::nullopt;
    path.remove_prefix(slash + 1);
    request.trailing_slash = path.empty();
  }
  return std::nullopt;
}

std::optional<Refusal> parse_query(std::string_view text, Request& request) {
  while (!text.empty()) {
    const auto amp = text.find('&');
    const auto item = text.substr(0, amp);
    text.remove_prefix(amp == std::string_view::npos ? text.size() : amp + 1);
    if (item.empty()) continue;
    const auto eq = item.find('=');
    auto key = percent_decode(item.substr(0, eq), true);
    auto value = percent_decode(eq == std::string_view::npos ? std::string_view{} : item.substr(eq + 1), true);
    if (!key || !value) return Refusal{400, "malformed escape in the query"};
    if (has_control(*key) || value->find('\0') != std::string::npos || !valid_utf8(*key) || !valid_utf8(*value))
      return Refusal{400, "forbidden character in the query"};
    if (request.query.has(*key)) return Refusal{400, "a query parameter appears twice"};
    request.query.add(std::move(*key), std::move(*value));
  }
  return std::nullopt;
}

/// Fields on which decisions rest must come once.
std::optional<Refusal> refuse_doubles(const Headers& headers) {
  static constexpr std::string_view once[] = {"host",     "content-type",  "origin",  "sec-fetch-site",
                                              "if-match", "authorization", "upgrade", "sec-websocket-key"};
  unsigned seen = 0;
  for (const auto& [name, value] : headers) {
    for (unsigned i = 0; i < std::size(once); ++i) {
      if (name.size() != once[i].size() || !equals_ignoring_case(name, once[i])) continue;
      if ((seen & (1u << i)) != 0) return Refusal{400, "a header appears twice"};
      seen |= 1u << i;
    }
  }
  if ((seen & 1u) == 0) return Refusal{400, "no Host header"};
  return std::nullopt;
}

bool asks_for_websocket(const Request& request) {
  if (request.method != Method::get) return false;
  const auto& h = request.headers;
  return equals_ignoring_case(h.get("upgrade"), "websocket") && lists(h.get("connection"), "upgrade") &&
         h.get("sec-websocket-version") == "13" && h.get("sec-websocket-key").size() == 24;
}

}  // namespace

HeadScanner::State HeadScanner::scan(std::string_view bytes) noexcept {
  // position_ is the start of a line that was not complete yet.
  while (true) {
    const auto lf = bytes.find('\n', position_);
    const auto end = lf == std::string_view::npos ? bytes.size() : lf;
    for (auto i = position_; i < end; ++i) {
      if (bytes[i] == '\0') return State::malformed;
      if (bytes[i] == '\r' && i + 1 < bytes.size() && bytes[i + 1] != '\n') return State::malformed;
    }
    if (lf == std::string_view::npos) return State::more;
    if (lf == position_ || bytes[lf - 1] != '\r') return State::malformed;
    const bool blank = lf == position_ + 1;
    const bool first = position_ == 0;
    position_ = lf + 1;
    if (blank) return first ? State::malformed : State::complete;
  }
}

std::optional<Refusal> parse_head(std::string_view head, std::size_t max_fields, Request& request, Framing& framing) {
  auto line = next_line(head);
  const auto space = line.find(' ');
  if (space == std::string_view::npos || !is_token(line.substr(0, space))) return Refusal{400, "malformed request line"};
  const auto method = parse_method(line.substr(0, space));
  if (!method) return Refusal{501, "unknown method"};
  request.method = *method;
  line.remove_prefix(space + 1);
  const auto second = line.find(' ');
  if (second == std::string_view::npos) return Refusal{400, "malformed request line"};
  const auto version = line.substr(second + 1);
  if (version != "HTTP/1.1")
    return version.starts_with("HTTP/") && version.find(' ') == std::string_view::npos ? Refusal{505, "only HTTP/1.1 is spoken"}
                                                                                       : Refusal{400, "malformed request line"};
  request.target = line.substr(0, second);
  for (char c : request.target)
    if (static_cast<unsigned char>(c) <= 0x20 || static_cast<unsigned char>(c) >= 0x7f || c == '#')
      return Refusal{400, "forbidden character in the request target"};
  const auto question = request.target.find('?');
  if (auto r = parse_path(request.target.substr(0, question), request)) return r;
  if (question != std::string_view::npos)
    if (auto r = parse_query(request.target.substr(question + 1), request)) return r;
  if (auto r = parse_fields(head, max_fields, request.headers)) return r;
  if (auto r = read_framing(request.headers, framing)) return r;
  if (auto r = refuse_doubles(request.headers)) return r;
  request.websocket = asks_for_websocket(request);
  return std::nullopt;
}

std::optional<Refusal> parse_answer_head(std::string_view head, std::size_t max_fields, AnswerHead& answer) {
  const auto line = next_line(head);
  if (line.size() < 12 || !line.starts_with("HTTP/1.1 ") || !is_digit(line[9]) || !is_digit(line[10]) || !is_digit(line[11]) ||
      (line.size() > 12 && line[12] != ' '))
    return Refusal{502, "malformed status line"};
  answer.status = (line[9] - '0') * 100 + (line[10] - '0') * 10 + (line[11] - '0');
  if (auto r = parse_fields(head, max_fields, answer.headers)) return r;
  return read_framing(answer.headers, answer.framing);
}

ChunkDecoder::State ChunkDecoder::feed(std::string_view& bytes, std::size_t& available) noexcept {
  while (true) {
    if (part_ == Part::done) return State::done;
    if (bytes.empty()) return State::more;
    if (part_ == Part::data) {
      if (left_ == 0) {
        part_ = Part::data_cr;
        continue;
      }
      available = static_cast<std::size_t>(std::min<std::uint64_t>(left_, bytes.size()));
      return State::data;
    }
    const char c = bytes.front();
    bytes.remove_prefix(1);
    switch (part_) {
      case Part::size: {
        if (c == '\r' && digits_ > 0) {
          part_ = Part::size_lf;
          break;
        }
        const int v = hex_value(c);
        // 15 digits are more than any disk; a longer number is an attempt to overflow somebody's counter.
        if (v < 0 || ++digits_ > 15) return State::malformed;
        left_ = left_ * 16 + static_cast<std::uint64_t>(v);
        break;
      }
      case Part::size_lf:
        if (c != '\n') return State::malformed;
        digits_ = 0;
        part_ = left_ == 0 ? Part::end_cr : Part::data;
        break;
      case Part::data_cr:
        if (c != '\r') return State::malformed;
        part_ = Part::data_lf;
        break;
      case Part::data_lf:
        if (c != '\n') return State::malformed;
        part_ = Part::size;
        break;
      case Part::end_cr:  // trailers are refused: nobody needs them, and they are a second set of headers
        if (c != '\r') return State::malformed;
        part_ = Part::end_lf;
        break;
      case Part::end_lf:
        if (c != '\n') return State::malformed;
        part_ = Part::done;
        break;
      case Part::data:
      case Part::done:
        break;
    }
  }
}

std::optional<std::string> percent_decode(std::string_view text, bool plus_is_space) {
  std::string out;
  out.reserve(text.size());
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (c == '%') {
      if (i + 2 >= text.size()) return std::nullopt;
      const int high = hex_value(text[i + 1]), low = hex_value(text[i + 2]);
      if (high < 0 || low < 0) return std::nullopt;
      out.push_back(static_cast<char>(high * 16 + low));
      i += 2;
    } else {
      out.push_back(c == '+' && plus_is_space ? ' ' : c);
    }
  }
  return out;
}

bool valid_utf8(std::string_view text) noexcept {
  const auto* p = reinterpret_cast<const unsigned char*>(text.data());
  const auto* end = p + text.size();
  while (p != end) {
    if (*p < 0x80) {
      ++p;
      continue;
    }
    int more = 0;
    std::uint32_t code = 0, least = 0;
    if ((*p & 0xe0) == 0xc0) {
      more = 1;
      code = *p & 0x1fu;
      least = 0x80;
    } else if ((*p & 0xf0) == 0xe0) {
      more = 2;
      code = *p & 0x0fu;
      least = 0x800;
    } else if ((*p & 0xf8) == 0xf0) {
      more = 3;
      code = *p & 0x07u;
      least = 0x10000;
    } else
      return false;
    if (end - p <= more) return false;
    for (int i = 1; i <= more; ++i) {
      if ((p[i] & 0xc0) != 0x80) return false;
      code = code << 6 | (p[i] & 0x3fu);
    }
    if (code < least || code > 0x10ffff || (code >= 0xd800 && code <= 0xdfff)) return false;
    p += more + 1;
  }
  return true;
}

}  // namespace virga::http
