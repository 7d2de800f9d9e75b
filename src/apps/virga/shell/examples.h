// Examples for commands that bring none: the usage line with names that could be. Pure.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "apps/virga/command.h"

namespace virga::cli {

/// "virga profile get web limits.memory" for {"profile", "get"} and "get [<remote>:]<profile> <key>".
std::string example_of(const std::vector<std::string>& path, std::string_view use);
/// Gives every command below `root` that does something examples of its own or these.
void fill_examples(Command& root);

}  // namespace virga::cli
