// The filter language of lists: "status eq running and not config.user.tier ne web". Clauses are read from left to right; a string
// is compared as a case-insensitive regular expression over all of it, or as it is written when it holds ^ or $, as Incus does.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "api/regex.h"
#include "base/error.h"
#include "base/json.h"

namespace virga::api {

class Filter {
 public:
  /// What a field of the object holds: "" where a map lacks the key. Errors: invalid, for a field that such objects never have.
  using Lookup = std::function<Result<json::value>(std::string_view field)>;

  /// An empty text matches everything. Errors: invalid.
  static Result<Filter> parse(std::string_view text);
  bool empty() const noexcept { return clauses_.empty(); }
  /// Errors: invalid (no such field, the value does not fit the field's type, or it takes too long).
  Result<bool> matches(const Lookup& lookup) const;
  Result<bool> matches(const json::object& object) const;

 private:
  struct Clause {
    bool either = false;  ///< "or" stands before it
    bool negated = false;
    bool equal = true;
    std::string field;
    std::string value;
    std::optional<Regex> regex;
  };
  Result<bool> holds(const Clause& clause, const json::value& value) const;
  std::vector<Clause> clauses_;
  /// What matching may cost for one request, all objects together: linear time is still long where a stranger brings pattern and
  /// text.
  mutable std::size_t work_ = 10'000'000;
};

/// "config.limits.cpu" in {"config": {"limits.cpu": "2"}}: keys may hold dots.
Result<json::value> find_field(const json::object& object, std::string_view field);

}  // namespace virga::api
