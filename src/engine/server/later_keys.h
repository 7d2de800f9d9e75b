// Server keys that Incus has and virga has not: refused with the reason, where a key that nobody has is a mistake. Pure.
#pragma once

#include <string_view>

namespace virga::engine {

/// Empty: Incus has no such key either.
std::string_view why_not_supported(std::string_view key) noexcept;

}  // namespace virga::engine
