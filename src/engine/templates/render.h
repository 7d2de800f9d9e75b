// Templates of files in images, in the part of the pongo2 language that they use:
//
//   {{ expression }}   {% if e %} {% elif e %} {% else %} {% endif %}   {% for x in e %} {% endfor %}   {# comment #}   {%- -%}
//   a.b   "text"   12   true   not   and   or   ==   !=   <   >   <=   >=   in   value|filter:"argument"   f("argument")
//
// Pure: it reads and writes nothing, knows no other tag (include, ssi, extends, import, macro, ...), and stops at a number of steps
// and a length of output that no honest template reaches (S17).
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "base/error.h"

namespace virga::engine::templates {

class Value;
using Map = std::map<std::string, Value>;
using List = std::vector<Value>;

/// What a template can see: nothing, true or false, numbers, texts, lists and maps of these.
class Value {
 public:
  using Held =
      std::variant<std::monostate, bool, std::int64_t, std::string, std::shared_ptr<const List>, std::shared_ptr<const Map>>;
  Value() = default;
  template <class T>
  Value(T held) : held_(std::move(held)) {}  // NOLINT(google-explicit-constructor): values are written where templates are set up
  Value(const char* text) : held_(std::string(text)) {}
  Value(List list) : held_(std::make_shared<const List>(std::move(list))) {}
  Value(Map map) : held_(std::make_shared<const Map>(std::move(map))) {}
  static Value map_of(const std::map<std::string, std::string>& texts);

  template <class T>
  const T* get() const {
    return std::get_if<T>(&held_);
  }
  const List* list() const;
  const Map* map() const;
  bool empty() const { return held_.index() == 0; }
  bool truth() const;
  /// As {{ }} writes it.
  std::string text() const;
  friend bool operator==(const Value& a, const Value& b);

 private:
  Held held_;
};

using Function = std::function<Value(const List& arguments)>;

struct Context {
  Map variables;
  std::map<std::string, Function> functions;
};

struct Caps {
  std::size_t steps = 100'000;
  std::size_t output = 1u << 20;
  std::size_t source = 1u << 20;
  int depth = 40;
};

/// Errors: invalid (says the line), unavailable (a cap was met).
Result<std::string> render(std::string_view source, const Context& context, Caps caps = {});

}  // namespace virga::engine::templates
