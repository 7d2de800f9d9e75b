#include "apps/virga/document.h"

#include <fmt/format.h>

#include "apps/virga/editor.h"
#include "apps/virga/values.h"
#include "wire/yaml/yaml.h"

namespace virga::cli {
namespace {

constexpr std::string_view text_parts[] = {"config", "devices", "properties", "description", "name", "expires_at"};

Result<std::string> value_or_input(std::string value) {
  if (value != "-") return value;
  VIRGA_TRY(auto text, piped_input());
  if (stdin_is_terminal())
    return fail(ErrorKind::invalid, "Can't read the value from the terminal: redirect a file, or write the value");
  return text;
}

/// A map without entries is written as "config:" by people too.
void fill_empty_maps(json::object& object) {
  for (std::string_view name : {"config", "devices", "properties"})
    if (auto* value = object.if_contains(name);
        value != nullptr && (value->is_null() || (value->is_string() && value->get_string().empty())))
      *value = json::object();
}

}  // namespace

Result<KeyValues> parse_key_values(const std::vector<std::string>& words) {
  KeyValues out;
  for (const auto& word : words) {
    auto equals = word.find('=');
    if (equals == std::string::npos || equals == 0)
      return fail(ErrorKind::invalid, fmt::format("Bad key=value pair: \"{}\"", word));
    out.emplace_back(word.substr(0, equals), word.substr(equals + 1));
  }
  return out;
}

Result<KeyValues> parse_settings(const std::vector<std::string>& words) {
  KeyValues out;
  if (words.size() == 2 && words[0].find('=') == std::string::npos) {
    out.emplace_back(words[0], words[1]);
  } else {
    for (const auto& word : words)
      if (word.find('=') == std::string::npos)
        return fail(ErrorKind::invalid, fmt::format("Invalid key=value configuration: {}", word));
    VIRGA_TRY(out, parse_key_values(words));
  }
  for (auto& [key, value] : out) {
    VIRGA_TRY(value, value_or_input(std::move(value)));
  }
  return out;
}

Result<json::object> parse_document(std::string_view text) {
  VIRGA_TRY(auto object, yaml::decode_object(text));
  yaml::DecodeOptions as_text;
  as_text.strings_only = true;
  VIRGA_TRY(auto strings, yaml::decode_object(text, as_text));
  for (auto name : text_parts)
    if (auto* value = strings.if_contains(name)) object[name] = std::move(*value);
  fill_empty_maps(object);
  return object;
}

Result<json::object> piped_document() {
  VIRGA_TRY(auto text, piped_input());
  auto object = parse_document(text);
  if (!object) return fail(std::move(object).error().wrap("standard input is not a YAML document of this object"));
  return object;
}

Result<std::string> property_text(const json::object& object, std::string_view name) {
  const auto* value = object.if_contains(name);
  if (value == nullptr) return fail(ErrorKind::not_found, fmt::format("The property \"{}\" does not exist", name));
  if (value->is_string()) return std::string(value->get_string());
  if (value->is_structured()) {
    auto text = as_yaml(*value);
    while (text.ends_with('\n')) text.pop_back();
    return text;
  }
  return json::serialize(*value);
}

Result<> set_property(json::object& object, std::string_view name, std::string_view value) {
  auto* old = object.if_contains(name);
  if (old == nullptr) return fail(ErrorKind::not_found, fmt::format("The property \"{}\" does not exist or cannot be set", name));
  if (old->is_bool()) {
    VIRGA_TRY(bool truth, parse_bool(value.empty() ? "false" : value));
    *old = truth;
  } else if (old->is_string()) {
    *old = value;
  } else {
    VIRGA_TRY(*old, yaml::decode(value));
  }
  return {};
}

Result<> edit_document(App& app, const json::object& object, std::string_view help,
                       const std::function<Result<>(json::object)>& apply) {
  if (!stdin_is_terminal()) {
    VIRGA_TRY(auto document, piped_document());
    // Nothing would take all configuration away: more likely a script's input is closed.
    if (document.empty()) return fail(ErrorKind::invalid, "standard input is empty: nothing is changed");
    return apply(std::move(document));
  }
  std::string text;
  for (auto rest = help; !rest.empty();) {
    auto end = rest.find('\n');
    text += fmt::format("### {}\n", rest.substr(0, end));
    rest = end == std::string_view::npos ? std::string_view() : rest.substr(end + 1);
  }
  text += "\n" + as_yaml(object);
  const std::string before = text;
  for (;;) {
    VIRGA_TRY(text, edit_text(text));
    if (text == before) return {};
    auto document = parse_document(text);
    auto done = document ? apply(std::move(*document)) : Result<>(fail(std::move(document).error().wrap("Config parsing error")));
    if (done) return {};
    app.warn(done.error().text());
    VIRGA_CHECK(wait_for_enter("Press enter to open the editor again or ctrl+c to abort change"));
  }
}

}  // namespace virga::cli
