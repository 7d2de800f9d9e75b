// The size of a client's window, as control messages of exec and console tell it.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

namespace virga::engine {

struct WindowSize {
  std::uint16_t columns = 0;
  std::uint16_t rows = 0;
};
/// Nothing for any other message, and for one that makes no sense: a client may say what it likes.
std::optional<WindowSize> parse_window_resize(std::string_view message);

}  // namespace virga::engine
