#include "api/regex.h"

#include <algorithm>
#include <optional>
#include <utility>

namespace virga::api {
namespace {
constexpr std::size_t max_pattern = 512;
constexpr std::size_t max_program = 4096;
constexpr int max_depth = 32;
constexpr unsigned max_repeat = 255;
}  // namespace

/// Compiles to a Thompson program: each piece of syntax is a block of instructions with relative jumps fixed when it is placed.
class RegexParser {
 public:
  explicit RegexParser(std::string_view pattern) : text_(pattern) {}

  Result<Regex> run() {
    if (text_.size() > max_pattern) return fail(ErrorKind::invalid, "the pattern is too long");
    VIRGA_TRY(auto block, alternatives(0));
    if (!text_.empty()) return fail(ErrorKind::invalid, "unmatched ')' in the pattern");
    block.push_back({Regex::Op::match});
    regex_.program_ = std::move(block);
    return std::move(regex_);
  }

 private:
  // Targets within a block are relative to the block's begin.
  using Block = std::vector<Regex::Instruction>;

  static void append(Block& to, const Block& block) {
    const auto base = static_cast<std::uint32_t>(to.size());
    for (auto i : block) {
      if (i.op == Regex::Op::split || i.op == Regex::Op::jump) i.a += base;
      if (i.op == Regex::Op::split) i.b += base;
      to.push_back(i);
    }
  }
  static std::uint32_t size(const Block& b) { return static_cast<std::uint32_t>(b.size()); }

  Result<Block> alternatives(int depth) {
    if (depth > max_depth) return fail(ErrorKind::invalid, "the pattern is nested too deeply");
    VIRGA_TRY(auto left, sequence(depth));
    while (eat('|')) {
      VIRGA_TRY(auto right, sequence(depth));
      Block both{{Regex::Op::split, 1, size(left) + 2}};
      append(both, left);
      both.push_back({Regex::Op::jump, size(left) + 2 + size(right)});
      append(both, right);
      VIRGA_CHECK(bounded(both));
      left = std::move(both);
    }
    return left;
  }

  Result<Block> sequence(int depth) {
    Block out;
    while (!text_.empty() && text_.front() != '|' && text_.front() != ')') {
      VIRGA_TRY(auto atom_block, atom(depth));
      VIRGA_TRY(auto repeated, repeat(std::move(atom_block)));
      append(out, repeated);
      VIRGA_CHECK(bounded(out));
    }
    return out;
  }

  Result<Block> repeat(Block block) {
    unsigned least = 1, most = 1;
    bool endless = false;
    if (eat('*')) {
      least = 0;
      endless = true;
    } else if (eat('+')) {
      endless = true;
    } else if (eat('?')) {
      least = 0;
    } else if (!text_.empty() && text_.front() == '{') {
      VIRGA_CHECK(braces(least, most, endless));
    } else {
      return block;
    }
    eat('?');  // a lazy match finds the same
    Block out;
    for (unsigned i = 0; i < least; ++i) {
      append(out, block);
      VIRGA_CHECK(bounded(out));
    }
    if (endless) {
      Block loop{{Regex::Op::split, 1, size(block) + 2}};
      append(loop, block);
      loop.push_back({Regex::Op::jump, 0});
      append(out, loop);
    } else {
      for (unsigned i = least; i < most; ++i) {
        Block maybe{{Regex::Op::split, 1, size(block) + 1}};
        append(maybe, block);
        append(out, maybe);
        VIRGA_CHECK(bounded(out));
      }
    }
    VIRGA_CHECK(bounded(out));
    return out;
  }

  Result<> braces(unsigned& least, unsigned& most, bool& endless) {
    text_.remove_prefix(1);
    auto number = [&]() -> std::optional<unsigned> {
      unsigned n = 0;
      bool any = false;
      while (!text_.empty() && text_.front() >= '0' && text_.front() <= '9' && n <= max_repeat) {
        n = n * 10 + static_cast<unsigned>(text_.front() - '0');
        text_.remove_prefix(1);
        any = true;
      }
      return any ? std::optional(n) : std::nullopt;
    };
    const auto first = number();
    most = least = first.value_or(0);
    if (eat(',')) {
      const auto second = number();
      endless = !second;
      most = second.value_or(least);
    }
    if (!first || !eat('}') || most < least || most > max_repeat)
      return fail(ErrorKind::invalid, "malformed repetition in the pattern");
    return {};
  }

  Result<Block> atom(int depth) {
    const char c = text_.front();
    text_.remove_prefix(1);
    switch (c) {
      case '(': {
        if (text_.starts_with("?:")) text_.remove_prefix(2);
        if (text_.starts_with("?")) return fail(ErrorKind::invalid, "unknown group in the pattern");
        VIRGA_TRY(auto block, alternatives(depth + 1));
        if (!eat(')')) return fail(ErrorKind::invalid, "unmatched '(' in the pattern");
        return block;
      }
      case '^':
        return Block{{Regex::Op::begin}};
      case '$':
        return Block{{Regex::Op::end}};
      case '*':
      case '+':
      case '?':
      case '{':
        return fail(ErrorKind::invalid, "nothing to repeat in the pattern");
      case '[':
        return char_class();
      case '.': {
        Regex::Set all;
        for (auto& word : all.bits) word = ~std::uint64_t(0);
        return place(all);
      }
      case '\\': {
        Regex::Set set;
        VIRGA_CHECK(escape(set));
        return place(set);
      }
      default: {
        Regex::Set set;
        add_folded(set, static_cast<unsigned char>(c));
        return place(set);
      }
    }
  }

  Result<> escape(Regex::Set& set) {
    if (text_.empty()) return fail(ErrorKind::invalid, "the pattern ends with a backslash");
    const char c = text_.front();
    text_.remove_prefix(1);
    auto range = [&](char from, char to) {
      for (int i = from; i <= to; ++i) set.add(static_cast<unsigned char>(i));
    };
    if (c == 'd' || c == 'w') range('0', '9');
    if (c == 'w') {
      range('a', 'z');
      range('A', 'Z');
      set.add('_');
    }
    if (c == 's')
      for (char blank : std::string_view(" \t\r\n\f")) set.add(static_cast<unsigned char>(blank));
    if (c == 'd' || c == 'w' || c == 's') return {};
    const bool word = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
    if (word) return fail(ErrorKind::invalid, "unknown escape in the pattern");
    set.add(static_cast<unsigned char>(c));
    return {};
  }

  Result<Block> char_class() {
    Regex::Set set;
    const bool negated = eat('^');
    bool first = true;
    while (first || text_.empty() || text_.front() != ']') {
      if (text_.empty()) return fail(ErrorKind::invalid, "unmatched '[' in the pattern");
      first = false;
      const auto low = static_cast<unsigned char>(text_.front());
      text_.remove_prefix(1);
      if (low == '\\') {
        VIRGA_CHECK(escape(set));
        continue;
      }
      auto high = low;
      if (text_.size() >= 2 && text_[0] == '-' && text_[1] != ']') {
        high = static_cast<unsigned char>(text_[1]);
        text_.remove_prefix(2);
        if (high < low) return fail(ErrorKind::invalid, "malformed range in the pattern");
      }
      for (unsigned c = low; c <= high; ++c) add_folded(set, static_cast<unsigned char>(c));
    }
    text_.remove_prefix(1);
    if (negated)
      for (auto& word : set.bits) word = ~word;
    return place(set);
  }

  static void add_folded(Regex::Set& set, unsigned char c) {
    set.add(c);
    if (c >= 'a' && c <= 'z') set.add(static_cast<unsigned char>(c - 32));
    if (c >= 'A' && c <= 'Z') set.add(static_cast<unsigned char>(c + 32));
  }

  Block place(const Regex::Set& set) {
    regex_.sets_.push_back(set);
    return {{Regex::Op::set, static_cast<std::uint32_t>(regex_.sets_.size() - 1)}};
  }

  static Result<> bounded(const Block& block) {
    if (block.size() > max_program) return fail(ErrorKind::invalid, "the pattern is too large");
    return {};
  }

  bool eat(char c) {
    if (text_.empty() || text_.front() != c) return false;
    text_.remove_prefix(1);
    return true;
  }

  std::string_view text_;
  Regex regex_;
};

Result<Regex> Regex::parse(std::string_view pattern) {
  return RegexParser(pattern).run();
}

bool Regex::search(std::string_view text, std::size_t& work) const {
  std::vector<std::uint32_t> now, next, stack;
  std::vector<std::size_t> mark(program_.size(), 0);
  bool matched = false;
  std::size_t visited = 0;
  // Follows everything that consumes no character; each instruction once a position.
  auto enter = [&](std::vector<std::uint32_t>& into, std::uint32_t start, std::size_t position) {
    stack.push_back(start);
    while (!stack.empty()) {
      const auto at = stack.back();
      stack.pop_back();
      ++visited;
      if (mark[at] == position + 1) continue;
      mark[at] = position + 1;
      const auto& i = program_[at];
      switch (i.op) {
        case Op::set:
          into.push_back(at);
          break;
        case Op::match:
          matched = true;
          break;
        case Op::jump:
          stack.push_back(i.a);
          break;
        case Op::split:
          stack.push_back(i.a);
          stack.push_back(i.b);
          break;
        case Op::begin:
          if (position == 0) stack.push_back(at + 1);
          break;
        case Op::end:
          if (position == text.size()) stack.push_back(at + 1);
          break;
      }
    }
  };
  for (std::size_t position = 0;; ++position) {
    const auto cost = std::exchange(visited, 0) + now.size() + 1;
    if (work <= cost) {
      work = 0;
      return false;
    }
    work -= cost;
    enter(now, 0, position);
    if (matched || position == text.size()) return matched;
    next.clear();
    for (auto at : now)
      if (sets_[program_[at].a].has(static_cast<unsigned char>(text[position]))) enter(next, at + 1, position + 1);
    if (matched) return true;
    std::swap(now, next);
  }
}

}  // namespace virga::api
