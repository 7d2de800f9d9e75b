// Splits a template into text and tags, and the inside of tags into words.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"

namespace virga::engine::templates {

struct Piece {
  enum class Kind { text, output, tag };
  Kind kind = Kind::text;
  std::string_view body;  ///< of a tag or output: what stands between the braces
  int line = 1;
};
/// Comments are gone, and so is the space that "{%-" and "-%}" take away. Views point into `source`. Errors: invalid.
Result<std::vector<Piece>> split(std::string_view source);

struct Word {
  enum class Kind { name, text, number, sign, end };
  Kind kind = Kind::end;
  std::string value;
};
/// Errors: invalid.
Result<std::vector<Word>> words_of(const Piece& piece);

tl::unexpected<Error> template_error(int line, std::string_view what);

}  // namespace virga::engine::templates
