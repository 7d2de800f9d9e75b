#include "api/filter.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/units.h"

namespace virga::api {
namespace {

constexpr std::size_t max_filter = 4096;
constexpr std::size_t max_clauses = 64;

struct Word {
  std::string text;
  bool quoted = false;
};

Result<std::vector<Word>> split(std::string_view text) {
  std::vector<Word> out;
  std::size_t i = 0;
  while (i < text.size()) {
    if (text[i] == ' ' || text[i] == '\t') {
      ++i;
      continue;
    }
    Word word;
    if (text[i] == '"' || text[i] == '\'') {
      const char quote = text[i++];
      word.quoted = true;
      while (i < text.size() && text[i] != quote) {
        if (text[i] == '\\' && i + 1 < text.size() && text[i + 1] == quote) ++i;
        word.text.push_back(text[i++]);
      }
      if (i == text.size()) return invalid("filter", "filter: unterminated quote");
      ++i;
    } else {
      while (i < text.size() && text[i] != ' ' && text[i] != '\t') word.text.push_back(text[i++]);
    }
    out.push_back(std::move(word));
  }
  return out;
}

}  // namespace

Result<Filter> Filter::parse(std::string_view text) {
  if (text.size() > max_filter) return invalid("filter", "filter: it is too long");
  VIRGA_TRY(auto words, split(text));
  Filter filter;
  std::size_t i = 0;
  while (i < words.size()) {
    Clause clause;
    if (!filter.clauses_.empty()) {
      const auto& logic = words[i++];
      if (logic.quoted || (logic.text != "and" && logic.text != "or"))
        return invalid("filter", fmt::format("filter: 'and' or 'or' is expected instead of '{}'", logic.text));
      clause.either = logic.text == "or";
    }
    if (i < words.size() && !words[i].quoted && words[i].text == "not") {
      clause.negated = true;
      ++i;
    }
    if (i + 1 >= words.size()) return invalid("filter", "filter: a clause has no operator");
    clause.field = words[i].text;
    const auto& op = words[i + 1].text;
    if (op != "eq" && op != "ne") return invalid("filter", fmt::format("filter: unknown operator '{}' (there are eq and ne)", op));
    clause.equal = op == "eq";
    if (i + 2 >= words.size()) return invalid("filter", "filter: a clause has no value");
    clause.value = std::move(words[i + 2].text);
    i += 3;
    const bool anchored = clause.value.find_first_of("^$") != std::string::npos;
    // What is no regular expression is compared as plain text.
    if (auto regex = Regex::parse(anchored ? clause.value : fmt::format("^(?:{})$", clause.value)))
      clause.regex = std::move(*regex);
    filter.clauses_.push_back(std::move(clause));
    if (filter.clauses_.size() > max_clauses) return invalid("filter", "filter: too many clauses");
  }
  return filter;
}

Result<bool> Filter::holds(const Clause& clause, const json::value& value) const {
  auto text_holds = [&](std::string_view text) { return clause.regex ? clause.regex->search(text, work_) : text == clause.value; };
  if (value.is_string()) return text_holds(value.get_string());
  if (value.is_bool()) {
    if (clause.value != "true" && clause.value != "false")
      return invalid("filter", fmt::format("filter: field '{}' is true or false, not '{}'", clause.field, clause.value));
    return value.get_bool() == (clause.value == "true");
  }
  if (value.is_int64() || value.is_uint64()) return json::serialize(value) == clause.value;
  if (value.is_null()) return clause.value.empty();
  if (value.is_array())
    return std::any_of(value.get_array().begin(), value.get_array().end(),
                       [&](const auto& e) { return e.is_string() && text_holds(e.get_string()); });
  return invalid("filter", fmt::format("filter: field '{}' is an object; name one of its keys", clause.field));
}

Result<bool> Filter::matches(const Lookup& lookup) const {
  bool result = true;
  for (const auto& clause : clauses_) {
    VIRGA_TRY(auto value, lookup(clause.field));
    VIRGA_TRY(bool one, holds(clause, value));
    if (work_ == 0) return invalid("filter", "filter: it takes too long to match; use simpler patterns");
    if (!clause.equal) one = !one;
    if (clause.negated) one = !one;
    result = clause.either ? result || one : result && one;
  }
  return result;
}

Result<bool> Filter::matches(const json::object& object) const {
  return matches([&](std::string_view field) { return find_field(object, field); });
}

Result<json::value> find_field(const json::object& object, std::string_view field) {
  const json::object* at = &object;
  auto rest = field;
  while (true) {
    if (const auto* v = at->if_contains(rest)) return *v;
    // The shortest key that is there leads on; below the first level a missing key is an empty value.
    const json::value* next = nullptr;
    std::size_t dot = rest.find('.');
    for (; dot != std::string_view::npos; dot = rest.find('.', dot + 1)) {
      next = at->if_contains(rest.substr(0, dot));
      if (next != nullptr) break;
    }
    if (next == nullptr) {
      if (at != &object) return json::value("");
      return invalid("filter", fmt::format("filter: there is no field '{}'", field));
    }
    if (!next->is_object()) return json::value("");
    at = &next->get_object();
    rest.remove_prefix(dot + 1);
  }
}

}  // namespace virga::api
