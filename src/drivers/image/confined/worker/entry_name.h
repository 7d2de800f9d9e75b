// The grammar of names inside archives. Pure.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <utility>

#include "base/error.h"

namespace virga::image {

constexpr std::size_t max_entry_depth = 512;

/// A name as it is resolved beneath the root: bytes kept as they are, "./" in front and "/" behind taken away. The root itself
/// ("./") is empty. Errors: invalid (absolute, "..", ".", empty parts, NUL, too long, too deep).
Result<std::string> clean_name(std::string_view raw);
/// {"a/b", "c"} of "a/b/c"; {"", "a"} of "a".
std::pair<std::string_view, std::string_view> split_name(std::string_view clean) noexcept;
/// For messages: control characters and bytes that are not ASCII are shown as '?', long names are cut.
std::string printable(std::string_view name);

}  // namespace virga::image
