// The command line from argv to exit code.
#pragma once

#include <string>
#include <vector>

#include "apps/virga/command.h"
#include "base/error.h"

namespace virga::cli {

/// The whole tree of commands.
Command root_command();
/// Parses, runs, prints errors. Returns the exit code.
int run(const std::vector<std::string>& arguments);
/// "Error: ..." and, on lines of its own, what can be done.
std::string error_report(const Error& error);

}  // namespace virga::cli
