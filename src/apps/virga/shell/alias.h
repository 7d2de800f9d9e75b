// Words that stand for other words: "virga alias add rl 'list -c ns'". The expansion is pure.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"

namespace virga::cli {

using Aliases = std::map<std::string, std::string>;

/// Those that come with virga; a user's alias of the same name goes before.
const Aliases& builtin_aliases();
/// What an alias that matches makes of the arguments: "@ARGS@" is all that stands behind it, "@ARG1@" the first of that; without
/// "@ARGS@" the rest follows at the end. The longest name wins. Absent where none matches.
/// Errors: invalid (an argument that the alias needs is missing; quotes that do not close).
Result<std::optional<std::vector<std::string>>> expand_alias(const Aliases& users, const std::vector<std::string>& arguments);
/// Words as a shell would take them, with '...' and "..." around what holds spaces. Errors: invalid.
Result<std::vector<std::string>> quoted_words(std::string_view text);

}  // namespace virga::cli
