// Text of strangers: guests, image servers, files.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace virga {

/// Fit for people, logs and terminals: at most so many bytes of it, with '?' for control characters and for what is no UTF-8.
std::string printable_text(std::string_view text, std::size_t most);

}  // namespace virga
