#include "engine/templates/lexer.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>

namespace virga::engine::templates {
namespace {

constexpr std::string_view space = " \t\r\n";

bool is_name(char c, bool first) {
  const auto u = static_cast<unsigned char>(c);
  return c == '_' || std::isalpha(u) != 0 || (!first && std::isdigit(u) != 0);
}

/// The end of a tag, outside of quotes.
std::size_t find_end(std::string_view source, std::size_t from, std::string_view closing) {
  char quote = 0;
  for (std::size_t i = from; i + 1 < source.size(); ++i) {
    const char c = source[i];
    if (quote != 0) {
      if (c == '\\')
        ++i;
      else if (c == quote)
        quote = 0;
    } else if (c == '"' || c == '\'') {
      quote = c;
    } else if (source.substr(i, 2) == closing) {
      return i;
    }
  }
  return std::string_view::npos;
}

}  // namespace

tl::unexpected<Error> template_error(int line, std::string_view what) {
  return fail(ErrorKind::invalid, fmt::format("line {}: {}", line, what));
}

Result<std::vector<Piece>> split(std::string_view source) {
  std::vector<Piece> out;
  int line = 1;
  bool trim_next = false;
  auto add_text = [&](std::string_view text, bool trim_end) {
    const int at = line;
    line += static_cast<int>(std::count(text.begin(), text.end(), '\n'));
    if (trim_next) text.remove_prefix(std::min(text.find_first_not_of(space), text.size()));
    if (trim_end) text = text.substr(0, text.find_last_not_of(space) + 1);
    if (!text.empty()) out.push_back({Piece::Kind::text, text, at});
    trim_next = false;
  };
  while (!source.empty()) {
    std::size_t open = 0;
    while ((open = source.find('{', open)) != std::string_view::npos) {
      const char next = open + 1 < source.size() ? source[open + 1] : '\0';
      if (next == '{' || next == '%' || next == '#') break;
      ++open;
    }
    if (open == std::string_view::npos) {
      add_text(source, false);
      break;
    }
    const char kind = source[open + 1];
    const bool trim_before = kind != '#' && open + 2 < source.size() && source[open + 2] == '-';
    add_text(source.substr(0, open), trim_before);
    source.remove_prefix(open + 2);
    const std::string_view closing = kind == '{' ? "}}" : kind == '%' ? "%}" : "#}";
    const auto end = kind == '#' ? source.find(closing) : find_end(source, 0, closing);
    if (end == std::string_view::npos) return template_error(line, "a tag does not end");
    auto body = source.substr(0, end);
    const int at = line;
    line += static_cast<int>(std::count(body.begin(), body.end(), '\n'));
    if (trim_before) body.remove_prefix(1);
    if (kind != '#' && !body.empty() && body.back() == '-') {
      body.remove_suffix(1);
      trim_next = true;
    }
    if (kind != '#') out.push_back({kind == '{' ? Piece::Kind::output : Piece::Kind::tag, body, at});
    source.remove_prefix(end + 2);
  }
  return out;
}

Result<std::vector<Word>> words_of(const Piece& piece) {
  std::vector<Word> out;
  auto s = piece.body;
  for (std::size_t i = 0; i < s.size();) {
    const char c = s[i];
    if (space.find(c) != std::string_view::npos) {
      ++i;
    } else if (is_name(c, true)) {
      const auto from = i;
      while (i < s.size() && is_name(s[i], false)) ++i;
      out.push_back({Word::Kind::name, std::string(s.substr(from, i - from))});
    } else if (std::isdigit(static_cast<unsigned char>(c)) != 0) {
      const auto from = i;
      while (i < s.size() && std::isdigit(static_cast<unsigned char>(s[i])) != 0) ++i;
      if (i - from > 18) return template_error(piece.line, "a number is too large");
      out.push_back({Word::Kind::number, std::string(s.substr(from, i - from))});
    } else if (c == '"' || c == '\'') {
      std::string text;
      for (++i; i < s.size() && s[i] != c; ++i) {
        if (s[i] == '\\' && i + 1 < s.size()) {
          ++i;
          text.push_back(s[i] == 'n' ? '\n' : s[i] == 't' ? '\t' : s[i]);
        } else {
          text.push_back(s[i]);
        }
      }
      if (i == s.size()) return template_error(piece.line, "a text does not end");
      ++i;
      out.push_back({Word::Kind::text, std::move(text)});
    } else {
      std::size_t n = 1;
      for (std::string_view two : {"==", "!=", "<=", ">=", "<>", "&&", "||"})
        if (s.substr(i, 2) == two) n = 2;
      if (n == 1 && std::string_view(".|:,()[]<>!+-").find(c) == std::string_view::npos)
        return template_error(piece.line, fmt::format("'{}' cannot stand here", static_cast<unsigned char>(c) < 0x20 ? '?' : c));
      out.push_back({Word::Kind::sign, std::string(s.substr(i, n))});
      i += n;
    }
  }
  out.push_back({});
  return out;
}

}  // namespace virga::engine::templates
