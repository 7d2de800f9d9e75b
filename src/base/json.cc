#include "base/json.h"

#include <fmt/format.h>

#include <boost/json/basic_parser_impl.hpp>
#include <cmath>
#include <limits>
#include <set>

namespace virga {
namespace {

/// Builds a DOM and refuses an object that names a key twice: two readers of such a text may disagree, and one of them checks it.
struct StrictHandler {
  // Boost.JSON reads these four.
  [[maybe_unused]] static constexpr std::size_t max_object_size = std::size_t(-1);
  [[maybe_unused]] static constexpr std::size_t max_array_size = std::size_t(-1);
  [[maybe_unused]] static constexpr std::size_t max_key_size = std::size_t(-1);
  [[maybe_unused]] static constexpr std::size_t max_string_size = std::size_t(-1);

  json::value_stack stack;
  std::string key, text;
  std::vector<std::set<std::string>> keys;
  std::string duplicate;

  bool on_document_begin(json::error_code&) { return true; }
  bool on_document_end(json::error_code&) { return true; }
  bool on_object_begin(json::error_code&) {
    keys.emplace_back();
    return true;
  }
  bool on_object_end(std::size_t n, json::error_code&) {
    stack.push_object(n);
    keys.pop_back();
    return true;
  }
  bool on_array_begin(json::error_code&) { return true; }
  bool on_array_end(std::size_t n, json::error_code&) {
    stack.push_array(n);
    return true;
  }
  bool on_key_part(json::string_view s, std::size_t, json::error_code&) {
    key.append(s.data(), s.size());
    return true;
  }
  bool on_key(json::string_view s, std::size_t, json::error_code& ec) {
    key.append(s.data(), s.size());
    if (!keys.back().insert(key).second) {
      duplicate = key;
      ec = json::error::syntax;
      return false;
    }
    stack.push_key(key);
    key.clear();
    return true;
  }
  bool on_string_part(json::string_view s, std::size_t, json::error_code&) {
    text.append(s.data(), s.size());
    return true;
  }
  bool on_string(json::string_view s, std::size_t, json::error_code&) {
    text.append(s.data(), s.size());
    stack.push_string(text);
    text.clear();
    return true;
  }
  bool on_number_part(json::string_view, json::error_code&) { return true; }
  bool on_int64(std::int64_t i, json::string_view, json::error_code&) {
    stack.push_int64(i);
    return true;
  }
  bool on_uint64(std::uint64_t u, json::string_view, json::error_code&) {
    stack.push_uint64(u);
    return true;
  }
  bool on_double(double d, json::string_view, json::error_code& ec) {
    if (!std::isfinite(d)) {  // "1e999" would be written as text that nobody can read again
      ec = json::error::exponent_overflow;
      return false;
    }
    stack.push_double(d);
    return true;
  }
  bool on_bool(bool b, json::error_code&) {
    stack.push_bool(b);
    return true;
  }
  bool on_null(json::error_code&) {
    stack.push_null();
    return true;
  }
  bool on_comment_part(json::string_view, json::error_code&) { return true; }
  bool on_comment(json::string_view, json::error_code&) { return true; }
};

}  // namespace

Result<json::value> parse_json(std::string_view text) {
  json::parse_options options;
  options.max_depth = 32;
  json::basic_parser<StrictHandler> parser(options);
  parser.handler().stack.reset();
  json::error_code ec;
  const auto used = parser.write_some(false, text.data(), text.size(), ec);
  if (!parser.handler().duplicate.empty())
    return invalid(parser.handler().duplicate,
                   fmt::format("key '{}' appears twice in one JSON object", parser.handler().duplicate));
  if (ec) return fail(ErrorKind::invalid, fmt::format("malformed JSON at byte {}: {}", used, ec.message()));
  for (std::size_t i = used; i < text.size(); ++i)
    if (text[i] != ' ' && text[i] != '\n' && text[i] != '\r' && text[i] != '\t')
      return fail(ErrorKind::invalid, fmt::format("malformed JSON: text behind the value at byte {}", i));
  if (!parser.done()) return fail(ErrorKind::invalid, "malformed JSON: it ends too early");
  return parser.handler().stack.release();
}

Result<json::object> parse_json_object(std::string_view text) {
  VIRGA_TRY(auto value, parse_json(text));
  if (!value.is_object()) return fail(ErrorKind::invalid, "a JSON object is expected");
  return std::move(value.as_object());
}

const json::value* Fields::find(std::string_view name) const {
  auto* v = object_.if_contains(name);
  return v == nullptr || v->is_null() ? nullptr : v;
}

tl::unexpected<Error> Fields::wrong(std::string_view name, std::string_view expected) const {
  auto full = prefix_.empty() ? std::string(name) : fmt::format("{}.{}", prefix_, name);
  auto message = fmt::format("field '{}' must be {}", full, expected);
  return invalid(std::move(full), std::move(message));
}

bool Fields::has(std::string_view name) const {
  return find(name) != nullptr;
}

Result<std::string> Fields::string(std::string_view name, std::string fallback) const {
  const auto* v = find(name);
  if (v == nullptr) return fallback;
  if (!v->is_string()) return wrong(name, "a string");
  return std::string(v->get_string());
}

Result<bool> Fields::boolean(std::string_view name, bool fallback) const {
  const auto* v = find(name);
  if (v == nullptr) return fallback;
  if (!v->is_bool()) return wrong(name, "true or false");
  return v->get_bool();
}

Result<std::int64_t> Fields::integer(std::string_view name, std::int64_t fallback) const {
  const auto* v = find(name);
  if (v == nullptr) return fallback;
  if (v->is_int64()) return v->get_int64();
  if (v->is_uint64() && v->get_uint64() <= static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max()))
    return static_cast<std::int64_t>(v->get_uint64());
  return wrong(name, "a whole number");
}

Result<std::vector<std::string>> Fields::strings(std::string_view name) const {
  std::vector<std::string> out;
  const auto* v = find(name);
  if (v == nullptr) return out;
  if (!v->is_array()) return wrong(name, "a list of strings");
  for (const auto& e : v->get_array()) {
    if (!e.is_string()) return wrong(name, "a list of strings");
    out.emplace_back(e.get_string());
  }
  return out;
}

Result<std::map<std::string, std::string>> Fields::string_map(std::string_view name) const {
  std::map<std::string, std::string> out;
  const auto* v = find(name);
  if (v == nullptr) return out;
  if (!v->is_object()) return wrong(name, "an object of strings");
  for (const auto& [key, value] : v->get_object()) {
    if (!value.is_string()) return wrong(fmt::format("{}.{}", name, std::string_view(key)), "a string");
    out.emplace(key, value.get_string());
  }
  return out;
}

Result<std::map<std::string, std::map<std::string, std::string>>> Fields::string_maps(std::string_view name) const {
  std::map<std::string, std::map<std::string, std::string>> out;
  const auto* v = find(name);
  if (v == nullptr) return out;
  if (!v->is_object()) return wrong(name, "an object of objects of strings");
  for (const auto& [key, value] : v->get_object()) {
    if (!value.is_object()) return wrong(fmt::format("{}.{}", name, std::string_view(key)), "an object of strings");
    auto& inner = out[std::string(key)];
    for (const auto& [k, s] : value.get_object()) {
      if (!s.is_string()) return wrong(fmt::format("{}.{}.{}", name, std::string_view(key), std::string_view(k)), "a string");
      inner.emplace(k, s.get_string());
    }
  }
  return out;
}

Result<json::object> Fields::object(std::string_view name) const {
  const auto* v = find(name);
  if (v == nullptr) return json::object{};
  if (!v->is_object()) return wrong(name, "an object");
  return v->get_object();
}

Result<> Fields::only(std::initializer_list<std::string_view> known) const {
  for (const auto& [key, value] : object_) {
    std::string_view k(key.data(), key.size());
    if (std::find(known.begin(), known.end(), k) == known.end()) {
      auto full = prefix_.empty() ? std::string(k) : fmt::format("{}.{}", prefix_, k);
      auto message = fmt::format("field '{}' is unknown", full);
      return invalid(std::move(full), std::move(message));
    }
  }
  return {};
}

json::object to_json(const std::map<std::string, std::string>& map) {
  json::object out;
  for (const auto& [k, v] : map) out.emplace(k, v);
  return out;
}

json::object to_json(const std::map<std::string, std::map<std::string, std::string>>& maps) {
  json::object out;
  for (const auto& [k, v] : maps) out.emplace(k, to_json(v));
  return out;
}

json::array to_json(const std::vector<std::string>& strings) {
  json::array out;
  for (const auto& s : strings) out.emplace_back(s);
  return out;
}

std::string valid_utf8(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (std::size_t i = 0; i < text.size();) {
    const auto c = static_cast<unsigned char>(text[i]);
    const std::size_t length = c < 0x80 ? 1 : c >= 0xc2 && c < 0xe0 ? 2 : c >= 0xe0 && c < 0xf0 ? 3 : c >= 0xf0 && c < 0xf5 ? 4 : 0;
    bool good = length > 0 && i + length <= text.size();
    for (std::size_t k = 1; good && k < length; ++k) good = (static_cast<unsigned char>(text[i + k]) & 0xc0) == 0x80;
    if (good && length > 2) {
      // Overlong forms, surrogates, beyond U+10FFFF.
      const auto second = static_cast<unsigned char>(text[i + 1]);
      good = !((c == 0xe0 && second < 0xa0) || (c == 0xed && second >= 0xa0) || (c == 0xf0 && second < 0x90) ||
               (c == 0xf4 && second >= 0x90));
    }
    if (good) {
      out.append(text.substr(i, length));
      i += length;
    } else {
      out += '?';
      ++i;
    }
  }
  return out;
}

}  // namespace virga
