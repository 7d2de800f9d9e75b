// Words that other command lines have and this one has not: what to type here instead.
#pragma once

#include <string_view>

namespace virga::cli {

/// `command`: all words below "virga", such as "network acl". Empty where nothing is known of it.
std::string_view instead_of(std::string_view command);

}  // namespace virga::cli
