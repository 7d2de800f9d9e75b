#include "engine/templates/render.h"

namespace virga::engine::templates {

Value Value::map_of(const std::map<std::string, std::string>& texts) {
  Map map;
  for (const auto& [key, text] : texts) map.emplace(key, text);
  return map;
}

const List* Value::list() const {
  auto* held = get<std::shared_ptr<const List>>();
  return held != nullptr ? held->get() : nullptr;
}

const Map* Value::map() const {
  auto* held = get<std::shared_ptr<const Map>>();
  return held != nullptr ? held->get() : nullptr;
}

bool Value::truth() const {
  if (auto* b = get<bool>()) return *b;
  if (auto* n = get<std::int64_t>()) return *n != 0;
  if (auto* s = get<std::string>()) return !s->empty();
  if (auto* l = list()) return !l->empty();
  if (auto* m = map()) return !m->empty();
  return false;
}

std::string Value::text() const {
  if (auto* b = get<bool>()) return *b ? "True" : "False";
  if (auto* n = get<std::int64_t>()) return std::to_string(*n);
  if (auto* s = get<std::string>()) return *s;
  return {};
}

bool operator==(const Value& a, const Value& b) {
  if (a.held_.index() == b.held_.index()) return a.list() == nullptr && a.map() == nullptr && a.held_ == b.held_;
  // Configuration is text: "2" is 2 where a template compares them.
  const bool numbers = (a.get<std::int64_t>() != nullptr && b.get<std::string>() != nullptr) ||
                       (a.get<std::string>() != nullptr && b.get<std::int64_t>() != nullptr);
  return numbers && a.text() == b.text();
}

}  // namespace virga::engine::templates
