// Objects as people write them: key=value words, YAML from a file or an editor. The parsing is pure.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "apps/virga/app.h"
#include "base/error.h"
#include "base/json.h"

namespace virga::cli {

using KeyValues = std::vector<std::pair<std::string, std::string>>;

/// "a=b c=d"; the values may hold "=". Errors: invalid.
Result<KeyValues> parse_key_values(const std::vector<std::string>& words);
/// The words behind a `set`: "k=v..." or the older "k v". A value of "-" is read from standard input. Errors: invalid.
Result<KeyValues> parse_settings(const std::vector<std::string>& words);

/// YAML of an object of the API. What the API has as text stays text even where it looks like a number: all below config, devices
/// and properties, and description. Errors: invalid (says the line).
Result<json::object> parse_document(std::string_view yaml);
/// parse_document() of standard input, where it is not a terminal.
Result<json::object> piped_document();

/// A property of an object by name, as `get -p` prints it. Errors: not_found.
Result<std::string> property_text(const json::object& object, std::string_view name);
/// Sets a property and keeps its type. Errors: not_found, invalid.
Result<> set_property(json::object& object, std::string_view name, std::string_view value);

/// Offers `object` as YAML below `help` (lines that begin with "#") in an editor, and calls `apply` with what was saved. A text
/// that does not parse or is refused is offered again, as it was left. With input that is not a terminal, applies that instead.
Result<> edit_document(App& app, const json::object& object, std::string_view help,
                       const std::function<Result<>(json::object)>& apply);

}  // namespace virga::cli
