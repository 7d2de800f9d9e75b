// Expressions: evaluated while they are read, each word a step. Not for others.
#pragma once

#include "engine/templates/lexer.h"
#include "engine/templates/render.h"

namespace virga::engine::templates {

/// What a rendering has left.
struct Budget {
  std::size_t steps;
  int depth;
  Result<> step(std::size_t n = 1) {
    if (steps < n) return fail(ErrorKind::unavailable, "the template takes too many steps");
    steps -= n;
    return {};
  }
};

struct Scope {
  const Context& context;
  Map locals;  ///< of loops
};

class Expression {
 public:
  Expression(const std::vector<Word>& words, std::size_t from, int line, const Scope& scope, Budget& budget)
      : words_(words), at_(from), line_(line), scope_(scope), budget_(budget) {}
  /// Errors: invalid, unavailable.
  Result<Value> evaluate() { return disjunction(); }
  std::size_t position() const { return at_; }

 private:
  Result<Value> disjunction();
  Result<Value> conjunction();
  Result<Value> negation();
  Result<Value> comparison();
  Result<Value> filtered();
  Result<Value> primary();
  Result<Value> variable(const std::string& name);
  Result<Value> call(const std::string& name);
  Result<Value> filter(const Value& value, const std::string& name, const Value& argument);
  const Word& word() const { return words_[at_]; }
  bool sign(std::string_view s) const { return word().kind == Word::Kind::sign && word().value == s; }
  bool keyword(std::string_view s) const { return word().kind == Word::Kind::name && word().value == s; }
  tl::unexpected<Error> error(std::string_view what) const { return template_error(line_, what); }

  const std::vector<Word>& words_;
  std::size_t at_;
  int line_;
  const Scope& scope_;
  Budget& budget_;
};

}  // namespace virga::engine::templates
