// Manual pages and the reference of commands, made from the tree of commands. Pure.
#pragma once

#include <map>
#include <string>

#include "apps/virga/command.h"

namespace virga::cli {

/// File name -> content. "virga.1", "virga-config-set.1"; hidden commands only with `hidden`.
std::map<std::string, std::string> manual_pages(const Command& root, bool hidden);
/// "README.md" and a page for each command of the first level.
std::map<std::string, std::string> markdown_pages(const Command& root, bool hidden);

}  // namespace virga::cli
