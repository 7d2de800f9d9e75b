// What `virga version` says.
#pragma once

#include <string_view>

namespace virga::cli {

#ifndef VIRGA_VERSION
#define VIRGA_VERSION "0.1.0"
#endif
inline constexpr std::string_view version = VIRGA_VERSION;

}  // namespace virga::cli
