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
  /// Errors: invalid (no such field, or the value does not fit the field's type).
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
  static Result<bool> holds(const Clause& clause, const json::value& value);
  std::vector<Clause> clauses_;
};

/// "config.limits.cpu" in {"config": {"limits.cpu": "2"}}: keys may hold dots.
Result<json::value> find_field(const json::object& object, std::string_view field);

}  // namespace virga::api
