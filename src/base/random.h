// Identifiers and secrets from the kernel's random numbers. Thread-safe.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace virga {

/// `bytes` random bytes as lower-case hexadecimal digits.
std::string random_hex(std::size_t bytes);
/// A random (version 4) UUID in its usual form.
std::string random_uuid();
/// SHA-256 as 64 lower-case hexadecimal digits.
std::string sha256_hex(std::string_view data);
/// Compares in time that depends on the lengths only.
bool equal_constant_time(std::string_view a, std::string_view b) noexcept;

}  // namespace virga
