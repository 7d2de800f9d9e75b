// Hands a text to the user's editor.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"

namespace virga::cli {

/// What the user saved, in VISUAL, EDITOR, or the first of sensible-editor, nano, vi. Errors: not_found (no editor), internal (it
/// failed).
Result<std::string> edit_text(const std::string& text);
/// Errors: cancelled (the input ended).
Result<> wait_for_enter(std::string_view prompt);

/// Runs a program with our standard streams, without a shell; argv[0] is looked up in PATH. Where a path is given, what it prints
/// goes to that file. Returns its exit code. Errors: not_found.
Result<int> run_program(const std::vector<std::string>& argv, const std::string& output_path = {});

}  // namespace virga::cli
