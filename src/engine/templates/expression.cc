#include "engine/templates/expression.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <ctime>
#include <iterator>
#include <string_view>
#include <utility>

#include "base/units.h"

namespace virga::engine::templates {

Result<Value> Expression::disjunction() {
  VIRGA_TRY(auto value, conjunction());
  while (keyword("or") || sign("||")) {
    ++at_;
    VIRGA_TRY(auto other, conjunction());
    if (!value.truth()) value = std::move(other);
  }
  return value;
}

Result<Value> Expression::conjunction() {
  VIRGA_TRY(auto value, negation());
  while (keyword("and") || sign("&&")) {
    ++at_;
    VIRGA_TRY(auto other, negation());
    if (value.truth()) value = std::move(other);
  }
  return value;
}

Result<Value> Expression::negation() {
  VIRGA_CHECK(budget_.step());
  if (!keyword("not") && !sign("!")) return comparison();
  if (--budget_.depth < 0) return error("the expression is nested too deeply");
  ++at_;
  VIRGA_TRY(auto value, negation());
  ++budget_.depth;
  return Value(!value.truth());
}

namespace {

Result<bool> holds(const Value& a, std::string_view sign, const Value& b) {
  if (sign == "==") return a == b;
  if (sign == "!=" || sign == "<>") return !(a == b);
  int order = 0;
  if (a.get<std::int64_t>() != nullptr || b.get<std::int64_t>() != nullptr) {
    VIRGA_TRY(auto x, parse_integer(a.text(), INT64_MIN, INT64_MAX));
    VIRGA_TRY(auto y, parse_integer(b.text(), INT64_MIN, INT64_MAX));
    order = x < y ? -1 : x > y ? 1 : 0;
  } else {
    order = a.text().compare(b.text());
  }
  return sign == "<" ? order < 0 : sign == ">" ? order > 0 : sign == "<=" ? order <= 0 : order >= 0;
}

/// In time linear in both, which std::string's find is not: whoever writes a template chooses both.
std::size_t find_text(std::string_view in, std::string_view what, std::size_t from = 0) {
  if (from > in.size()) return std::string_view::npos;
  if (what.empty()) return from;
  const auto* at = static_cast<const char*>(::memmem(in.data() + from, in.size() - from, what.data(), what.size()));
  return at == nullptr ? std::string_view::npos : static_cast<std::size_t>(at - in.data());
}

bool contains(const Value& in, const Value& what) {
  if (auto* list = in.list()) return std::find(list->begin(), list->end(), what) != list->end();
  if (auto* map = in.map()) return map->contains(what.text());
  const auto* text = in.get<std::string>();
  return text != nullptr && find_text(*text, what.text()) != std::string_view::npos;
}

/// What handling a value once costs, by its length.
std::size_t cost_of(const Value& value) {
  if (auto* text = value.get<std::string>()) return text->size() / 64;
  return value.list() != nullptr ? value.list()->size() : 0;
}

/// The layout shows Monday, 2 January 2006, 15:04:05 as it is wanted. Local time.
std::string dated(WallTime time, std::string_view layout) {
  static constexpr std::pair<std::string_view, const char*> parts[] = {
      {"January", "%B"}, {"Monday", "%A"}, {"2006", "%Y"}, {"Jan", "%b"}, {"Mon", "%a"}, {"MST", "%Z"}, {"01", "%m"},
      {"02", "%d"},      {"03", "%I"},     {"04", "%M"},   {"05", "%S"},  {"06", "%y"},  {"15", "%H"},  {"PM", "%p"}};
  const auto seconds = std::chrono::system_clock::to_time_t(time);
  std::tm local{};
  if (::localtime_r(&seconds, &local) == nullptr) return {};
  std::string out;
  while (!layout.empty()) {
    const auto* part = std::find_if(std::begin(parts), std::end(parts), [&](const auto& p) { return layout.starts_with(p.first); });
    if (part == std::end(parts)) {
      out += layout.front();
      layout.remove_prefix(1);
      continue;
    }
    char text[64];
    out.append(text, std::strftime(text, sizeof text, part->second, &local));
    layout.remove_prefix(part->first.size());
  }
  return out;
}

}  // namespace

Result<Value> Expression::comparison() {
  VIRGA_TRY(auto value, filtered());
  if (keyword("in")) {
    ++at_;
    VIRGA_TRY(auto in, filtered());
    VIRGA_CHECK(budget_.step(cost_of(in) + cost_of(value)));
    return Value(contains(in, value));
  }
  if (word().kind != Word::Kind::sign) return value;
  const auto s = word().value;
  if (s != "==" && s != "!=" && s != "<>" && s != "<" && s != ">" && s != "<=" && s != ">=") return value;
  ++at_;
  VIRGA_TRY(auto other, filtered());
  VIRGA_CHECK(budget_.step(cost_of(value) + cost_of(other)));
  auto result = holds(value, s, other);
  if (!result) return error("these two cannot be compared");
  return Value(*result);
}

Result<Value> Expression::filtered() {
  VIRGA_TRY(auto value, primary());
  while (sign("|")) {
    VIRGA_CHECK(budget_.step());
    ++at_;
    if (word().kind != Word::Kind::name) return error("a filter's name must follow '|'");
    const auto name = words_[at_++].value;
    Value argument;
    if (sign(":")) {
      ++at_;
      VIRGA_TRY(argument, primary());
    }
    VIRGA_TRY(value, filter(value, name, argument));
  }
  return value;
}

Result<Value> Expression::filter(const Value& value, const std::string& name, const Value& argument) {
  auto text = value.text();
  VIRGA_CHECK(budget_.step(1 + text.size() / 64));
  auto lower = [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; };
  auto upper = [](char c) { return c >= 'a' && c <= 'z' ? static_cast<char>(c - 32) : c; };
  if (name == "default") return value.truth() ? value : argument;
  if (name == "default_if_none") return value.empty() ? argument : value;
  if (name == "safe") return value;
  if (name == "lower" || name == "upper") {
    for (auto& c : text) c = name == "lower" ? lower(c) : upper(c);
    return Value(std::move(text));
  }
  if (name == "capfirst") {
    if (!text.empty()) text[0] = upper(text[0]);
    return Value(std::move(text));
  }
  if (name == "length") {
    const auto n = value.list() != nullptr ? value.list()->size() : value.map() != nullptr ? value.map()->size() : text.size();
    return Value(static_cast<std::int64_t>(n));
  }
  if (name == "date") {
    const auto layout = argument.text();
    VIRGA_CHECK(budget_.step(layout.size() / 16));
    const auto time = parse_time(text);
    if (!time) return error("'date' needs a time");
    return Value(dated(*time, layout));
  }
  if (name == "integer") return Value(parse_integer(text, INT64_MIN, INT64_MAX).value_or(0));
  if (name == "cut") {
    const auto what = argument.text();
    std::string out;
    for (std::size_t at = 0; at <= text.size();) {
      const auto found = what.empty() ? std::string::npos : find_text(text, what, at);
      const auto end = std::min(found, text.size());
      out.append(text, at, end - at);
      at = found == std::string::npos ? text.size() + 1 : end + what.size();
    }
    return Value(std::move(out));
  }
  if (name == "join") {
    std::string out;
    if (auto* list = value.list())
      for (const auto& item : *list) {
        VIRGA_CHECK(budget_.step(1 + item.text().size() / 64 + argument.text().size() / 64));
        out += (out.empty() ? "" : argument.text()) + item.text();
      }
    return Value(std::move(out));
  }
  if (name == "split") {
    List out;
    const auto by = argument.text();
    if (by.empty()) return error("'split' needs a text to split at");
    for (std::size_t at = 0;;) {
      VIRGA_CHECK(budget_.step());
      const auto end = find_text(text, by, at);
      out.push_back(text.substr(at, end == std::string::npos ? end : end - at));
      if (end == std::string::npos) break;
      at = end + by.size();
    }
    return Value(std::move(out));
  }
  if (name == "first" || name == "last") {
    auto* list = value.list();
    if (list == nullptr || list->empty()) return Value();
    return name == "first" ? list->front() : list->back();
  }
  return error(fmt::format("unknown filter '{}'", name));
}

Result<Value> Expression::primary() {
  VIRGA_CHECK(budget_.step());
  const auto& w = words_[at_];
  switch (w.kind) {
    case Word::Kind::text:
      ++at_;
      VIRGA_CHECK(budget_.step(w.value.size() / 64));
      return Value(w.value);
    case Word::Kind::number:
      ++at_;
      return Value(parse_integer(w.value, 0, INT64_MAX).value_or(0));
    case Word::Kind::name:
      ++at_;
      if (w.value == "true" || w.value == "True") return Value(true);
      if (w.value == "false" || w.value == "False") return Value(false);
      if (w.value == "nil" || w.value == "None" || w.value == "null") return Value();
      return sign("(") ? call(w.value) : variable(w.value);
    case Word::Kind::sign:
      if (w.value == "(") {
        if (--budget_.depth < 0) return error("the expression is nested too deeply");
        ++at_;
        VIRGA_TRY(auto value, disjunction());
        ++budget_.depth;
        if (!sign(")")) return error("')' is missing");
        ++at_;
        return value;
      }
      return error(fmt::format("'{}' cannot stand here", w.value));
    case Word::Kind::end:
      break;
  }
  return error("something is missing");
}

Result<Value> Expression::variable(const std::string& name) {
  Value value;
  if (auto local = scope_.locals.find(name); local != scope_.locals.end()) {
    value = local->second;
  } else if (auto found = scope_.context.variables.find(name); found != scope_.context.variables.end()) {
    value = found->second;
  }
  while (sign(".") || sign("[")) {
    VIRGA_CHECK(budget_.step());
    const bool brackets = sign("[");
    ++at_;
    Value key;
    if (brackets) {
      if (--budget_.depth < 0) return error("the expression is nested too deeply");
      VIRGA_TRY(key, disjunction());
      ++budget_.depth;
      if (!sign("]")) return error("']' is missing");
      ++at_;
    } else {
      if (word().kind != Word::Kind::name && word().kind != Word::Kind::number) return error("a name must follow '.'");
      key = words_[at_++].value;
    }
    Value next;
    if (auto* map = value.map()) {
      if (auto it = map->find(key.text()); it != map->end()) next = it->second;
    } else if (auto* list = value.list()) {
      auto index = parse_integer(key.text(), 0, static_cast<std::int64_t>(list->size()) - 1);
      if (index) next = (*list)[static_cast<std::size_t>(*index)];
    }
    value = std::move(next);
  }
  VIRGA_CHECK(budget_.step(cost_of(value)));
  return value;
}

Result<Value> Expression::call(const std::string& name) {
  auto function = scope_.context.functions.find(name);
  if (function == scope_.context.functions.end()) return error(fmt::format("unknown function '{}'", name));
  List arguments;
  ++at_;
  while (!sign(")")) {
    if (arguments.size() == 8) return error("too many arguments");
    if (--budget_.depth < 0) return error("the expression is nested too deeply");
    VIRGA_TRY(auto argument, disjunction());
    ++budget_.depth;
    arguments.push_back(std::move(argument));
    if (sign(",")) {
      ++at_;
    } else if (!sign(")")) {
      return error("')' is missing");
    }
  }
  ++at_;
  auto value = function->second(arguments);
  VIRGA_CHECK(budget_.step(cost_of(value)));
  return value;
}

}  // namespace virga::engine::templates
