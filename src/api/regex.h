// Regular expressions for filters that strangers write: matched in time linear in pattern times text, without recursion on the
// text, so that no pattern can hold up the daemon. Case does not count. Syntax: literals . [a-z] [^...] \d \w \s \. ( ) (?: ) | * +
// ? {n,m} ^ $
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"

namespace virga::api {

class Regex {
 public:
  /// Errors: invalid (syntax, or a pattern that grows too large).
  static Result<Regex> parse(std::string_view pattern);
  /// Whether it matches somewhere in the text. Each step takes from `work`; where nothing is left, it is 0 and the answer is no.
  bool search(std::string_view text, std::size_t& work) const;

 private:
  friend class RegexParser;
  enum class Op : std::uint8_t { set, split, jump, begin, end, match };
  struct Instruction {
    Op op;
    std::uint32_t a = 0;  ///< set: index of the set; split, jump: target
    std::uint32_t b = 0;  ///< split: second target
  };
  struct Set {
    std::uint64_t bits[4] = {};
    void add(unsigned char c) { bits[c >> 6] |= std::uint64_t(1) << (c & 63); }
    bool has(unsigned char c) const { return (bits[c >> 6] >> (c & 63) & 1) != 0; }
  };
  std::vector<Instruction> program_;
  std::vector<Set> sets_;
};

}  // namespace virga::api
